"""Where and with what something is measured: the facts that a number is worthless without.

What cannot change while a process lives is read once; the load of the machine is read at each
call. Nothing here names a user, a host or a path: a machine is told from another by a short
hash. A fact that this machine does not show is ``unknown``, never an error.
"""

import hashlib
import os
import platform
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import psutil

from trials.machine.cgroup import container_id
from trials.machine.checkout import checkout_facts
from trials.machine.gpus import gpu_facts
from trials.machine.packages import installed_version
from trials.outcome import Environment

_UNKNOWN = "unknown"
_CPUS = Path("/sys/devices/system/cpu")
_CPUINFO = Path("/proc/cpuinfo")
_PRESSURE = Path("/proc/pressure/cpu")
_MACHINE_ID = Path("/etc/machine-id")
_LIBRARIES = ("trifront", "numpy", "onnx", "onnxruntime", "optuna")
_SETTINGS = (
    "OMP_NUM_THREADS",
    "OMP_PROC_BIND",
    "OMP_PLACES",
    "OMP_WAIT_POLICY",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
)
_BYTES_PER_MB = 1e6
_KHZ_PER_MHZ = 1e3
_HASH_LENGTH = 12  # enough to tell a fleet's machines apart, too short to look one up


def environment(*, extra: tuple[tuple[str, str], ...] = ()) -> Environment:
    """Record where this process runs and how busy that machine is now.

    Args:
        extra: Facts of the caller; they win over ours of the same name.
    """
    facts = dict(_lasting_facts()) | dict(_load_facts()) | dict(extra)
    return Environment(facts=tuple(sorted(facts.items())))


@cache
def _lasting_facts() -> tuple[tuple[str, str], ...]:
    return tuple(
        fact
        for facts in (
            _cpu_facts(),
            _system_facts(),
            _library_facts(),
            _setting_facts(),
            checkout_facts(Path(__file__).resolve().parents[2]),
            gpu_facts(),
        )
        for fact in facts
    )


def _cpu_facts() -> Iterator[tuple[str, str]]:
    yield "cpu_model", cpu_model(_text(_CPUINFO))
    yield "cpu_logical", str(psutil.cpu_count(logical=True) or _UNKNOWN)
    yield "cpu_physical", str(psutil.cpu_count(logical=False) or _UNKNOWN)
    if hasattr(os, "sched_getaffinity"):
        yield "cpu_affinity", _ranges(sorted(os.sched_getaffinity(0)))
    yield "cpu_governor", _governors()
    yield "cpu_clock_limits_mhz", _clock_limits()
    yield "cpu_turbo", _turbo()


def _system_facts() -> Iterator[tuple[str, str]]:
    yield "memory_mb", f"{psutil.virtual_memory().total / _BYTES_PER_MB:.0f}"
    yield "os", _os_name()
    yield "kernel", platform.release()
    yield "machine", platform.machine()
    yield "host", _host_hash()
    yield "container", container_id()
    yield "python", platform.python_version()


def _library_facts() -> Iterator[tuple[str, str]]:
    for name in _LIBRARIES:
        yield name, installed_version(name) or "none"


def _setting_facts() -> Iterator[tuple[str, str]]:
    yield from ((name, os.environ[name]) for name in _SETTINGS if name in os.environ)


def _load_facts() -> Iterator[tuple[str, str]]:
    yield "load_1m", f"{os.getloadavg()[0]:.2f}"
    found = re.search(r"^some avg10=([\d.]+)", _text(_PRESSURE), re.MULTILINE)
    yield "psi_cpu_some_avg10", _UNKNOWN if found is None else found[1]


def cpu_model(cpuinfo: str) -> str:
    """Read the processor's name from the text of ``/proc/cpuinfo``, whatever the architecture."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip().lower(), value.strip())
    for name in ("model name", "cpu model", "cpu", "model"):
        if fields.get(name):
            return fields[name]
    part = fields.get("cpu part")  # arm64 says only who made it and a part number
    if part is not None:
        return f"implementer {fields.get('cpu implementer', _UNKNOWN)} part {part}"
    return platform.processor() or platform.machine() or _UNKNOWN


def _governors() -> str:
    found = {_text(path) for path in _CPUS.glob("cpu[0-9]*/cpufreq/scaling_governor")}
    return ", ".join(sorted(found - {""})) or _UNKNOWN


def _clock_limits() -> str:
    limits = [_text(_CPUS / f"cpu0/cpufreq/scaling_{end}_freq") for end in ("min", "max")]
    if not all(limit.isdigit() for limit in limits):
        return _UNKNOWN
    return "-".join(f"{int(limit) / _KHZ_PER_MHZ:.0f}" for limit in limits)


def _turbo() -> str:
    off = _text(_CPUS / "intel_pstate/no_turbo")
    if off:
        return "off" if off == "1" else "on"
    boost = _text(_CPUS / "cpufreq/boost")
    return {"1": "on", "0": "off"}.get(boost, _UNKNOWN)


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system() or _UNKNOWN


def _host_hash() -> str:
    identity = _text(_MACHINE_ID) + platform.node()
    return hashlib.sha256(identity.encode()).hexdigest()[:_HASH_LENGTH]


def _ranges(numbers: list[int]) -> str:
    """Write ascending numbers as ``0-3,8``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ",".join("-".join(map(str, run)) for run in runs)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""  # not on this machine: the fact is unknown
