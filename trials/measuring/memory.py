"""Resident memory that a process takes for itself, as the kernel counts it.

Only anonymous memory counts: pages of libraries and other files are there for every process that
uses them and can be read again. It is meant for a process that did nothing before (see
``trials.isolation.pristine``); in one that is used again, free memory that the C library kept from
earlier work is taken first, and the growth is too low by as much.

References:
    proc(5): smaps_rollup, clear_refs, VmHWM, RssAnon.
"""

import os
from pathlib import Path

_ROLLUP = Path("/proc/self/smaps_rollup")
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # resets VmHWM to the current resident size
_BYTES_PER_KB = 1024


def is_told() -> bool:
    """Tell whether the kernel says these things; some sandboxes do not."""
    return os.access(_ROLLUP, os.R_OK) and os.access(_CLEAR_REFS, os.W_OK)


def why_untold() -> str:
    """Say why it is not told; empty where it is."""
    return "" if is_told() else f"this kernel has no {_ROLLUP} and {_CLEAR_REFS} for us"


class ResidentMemory:
    """Watch this process's own memory grow from construction on."""

    def __init__(self) -> None:
        self._before_bytes = _held_bytes()
        _CLEAR_REFS.write_text(_RESET_PEAK, encoding="ascii")
        self._anonymous_bytes = _fields(_STATUS)["RssAnon"]

    def held_bytes(self) -> int:
        """Return the growth up to now, to the page; may be negative."""
        return _held_bytes() - self._before_bytes

    def peak_bytes(self) -> int:
        """Return the largest growth at any moment since construction.

        Less exact than :meth:`held_bytes`: the kernel notes the peak of all resident pages, of
        which those of files that are resident now are taken off, and counts them roughly where
        there are many processors.
        """
        status = _fields(_STATUS)
        of_files = status["VmRSS"] - status["RssAnon"]
        return status["VmHWM"] - of_files - self._anonymous_bytes


def _held_bytes() -> int:
    """Return this process's anonymous memory, what was swapped out included."""
    fields = _fields(_ROLLUP)
    return fields["Anonymous"] + fields["Swap"]


def _fields(path: Path) -> dict[str, int]:
    """Read lines like ``Anonymous:  112 kB``, in bytes."""
    parts = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    return {
        part[0].removesuffix(":"): int(part[1]) * _BYTES_PER_KB
        for part in parts
        if len(part) == 3 and part[2] == "kB"  # noqa: PLR2004 - name, number, unit
    }
