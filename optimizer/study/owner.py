"""Who runs a trial: told apart from other processes, hosts and boots, to find orphans."""

import json
import socket
from functools import cache
from pathlib import Path

import psutil

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_START_TIME = 19  # proc(5): field 22 of stat; the first two end with the last bracket


@cache
def this_process() -> str:
    """Sign as this process; also unlike a later process that gets the same number."""
    process = psutil.Process()
    signature = [socket.gethostname(), _boot(), process.pid, _started(process)]
    return json.dumps(signature)


def is_alive(signature: str) -> bool | None:
    """Tell whether the signing process still runs; None where it is on another host."""
    host, boot, pid, started = json.loads(signature)
    if host != socket.gethostname():
        return None
    if boot != _boot():
        return False
    try:
        process = psutil.Process(pid)
        return _started(process) == started and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return False


def _started(process: psutil.Process) -> float:
    """Return when a process began: ticks since the boot, which no setting of the clock moves.

    Seconds since the epoch where there is no ``/proc``.
    """
    if not _BOOT_ID.exists():
        return process.create_time()
    status = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii", errors="replace")
    return float(status.rpartition(")")[2].split()[_START_TIME])


def _boot() -> str:
    return _BOOT_ID.read_text(encoding="ascii").strip() if _BOOT_ID.exists() else ""
