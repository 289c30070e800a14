"""Which CPU this is, as far as code that was made for it can tell."""

import hashlib
import re
from functools import cache
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")


@cache
def cpu_identity() -> tuple[tuple[str, str], ...]:
    """Identify the CPU by model and instruction set; kernels are chosen by these."""
    try:
        text = _CPU_INFO.read_text(encoding="utf-8")
    except OSError:  # not Linux: the platform's own word must do
        import platform

        return (("cpu", platform.processor() or platform.machine()), ("cpu_flags", "unknown"))
    fields: dict[str, str] = dict(re.findall(r"^([^\t:]+?)\s*: (.*)$", text, re.MULTILINE))
    flags = fields.get("flags") or fields.get("Features") or ""  # x86, ARM
    digest = hashlib.sha256(" ".join(sorted(flags.split())).encode()).hexdigest()
    model = fields.get("model name") or fields.get("CPU part") or "unknown"
    return (("cpu", model), ("cpu_flags", digest[:16]))
