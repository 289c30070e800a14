"""The control group of this process: which container it is, how often memory ran out in it."""

import re
from collections.abc import Iterator
from pathlib import Path

_IN_CGROUP = re.compile(r"([0-9a-f]{64})")
# the engine binds these files into the container; elsewhere a host lists its containers' mounts
_IN_MOUNTS = re.compile(r"containers/([0-9a-f]{64})/\S* /etc/")
_SHORT = 12  # characters of a container's id that people use
_COUNTER = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def oom_kills(
    *, proc: Path = Path("/proc/self"), mount: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Count the processes of this control group that the kernel killed for lack of memory.

    Reads ``memory.events`` (version 2) or ``memory.oom_control`` (version 1).

    Returns:
        The number since the group was made, or None where the kernel does not say.
    """
    for path in _counter_files(_read(proc / "cgroup"), mount):
        found = _COUNTER.search(_read(path))
        if found is not None:
            return int(found[1])
    return None


def was_oom_kill(before: int | None, after: int | None) -> bool:
    """Tell from two counts whether memory ran out between them; not where one is unknown."""
    return before is not None and after is not None and after > before


def container_id(*, proc: Path = Path("/proc/self"), root: Path = Path("/")) -> str:
    """Name the container that this process runs in: a short id, ``unnamed``, or ``none``."""
    for name, pattern in (("cgroup", _IN_CGROUP), ("mountinfo", _IN_MOUNTS)):
        found = pattern.search(_read(proc / name))
        if found is not None:
            return found[1][:_SHORT]
    inside = (root / ".dockerenv").exists() or (root / "run/.containerenv").exists()
    return "unnamed" if inside else "none"


def _counter_files(groups: str, mount: Path) -> Iterator[Path]:
    """Yield where the counter may be; inside a container the group is often the mount itself."""
    for line in groups.splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            yield mount / group.lstrip("/") / "memory.events"
            yield mount / "memory.events"
        elif "memory" in controllers.split(","):
            yield mount / "memory" / group.lstrip("/") / "memory.oom_control"
            yield mount / "memory" / "memory.oom_control"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # not mounted, or not ours to read: the fact is unknown
