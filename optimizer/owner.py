"""Who runs a trial: told apart from other processes, hosts and boots, to find orphans."""

import json
import socket
from functools import cache
from pathlib import Path

import psutil

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@cache
def this_process() -> str:
    """Sign as this process; also unlike a later process that gets the same number."""
    process = psutil.Process()
    signature = [socket.gethostname(), _boot(), process.pid, process.create_time()]
    return json.dumps(signature)


def is_alive(signature: str) -> bool | None:
    """Tell whether the signing process still runs; None where it is on another host."""
    host, boot, pid, created = json.loads(signature)
    if host != socket.gethostname():
        return None
    if boot != _boot():
        return False
    try:
        process = psutil.Process(pid)
        return process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _boot() -> str:
    return _BOOT_ID.read_text(encoding="ascii").strip() if _BOOT_ID.exists() else ""
