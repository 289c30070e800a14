"""Peak memory of a stretch of work, as the kernel counts it.

The peak is that of this process's resident memory above what it held at the start. Freed memory is
given back to the kernel first, so that an earlier trial in the same process neither hides nor
inflates a later one's peak. Memory that is already resident (libraries, data) does not count.
"""

import ctypes
import gc
from mmap import PAGESIZE
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): resets VmHWM to the current resident size
_BYTES_PER_KB = 1024


class PeakMemory:
    """Watch the peak of resident memory from construction on."""

    def __init__(self) -> None:
        gc.collect()
        _give_back_freed()
        _CLEAR_REFS.write_text(_RESET_PEAK, encoding="ascii")
        self._before_bytes = _field_bytes("VmRSS")

    def peak_bytes(self, *, surplus_bytes: int = 0) -> int:
        """Return the peak above the start, bytes; at least a page, in which the kernel counts.

        Args:
            surplus_bytes: What was resident at the peak and is not to count.
        """
        above = _field_bytes("VmHWM") - self._before_bytes
        return max(PAGESIZE, above - surplus_bytes)


def _give_back_freed() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only; musl has none
    if trim is not None:
        trim(0)


def _field_bytes(name: str) -> int:
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * _BYTES_PER_KB
    raise LookupError(name)
