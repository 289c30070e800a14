"""Wait until an engine that has done its work really rests.

Pools of threads look for more work before they sleep: those of ONNX Runtime spin for some 40 ms of
CPU time after the last request. Whoever is measured meanwhile is measured beside a neighbour. To
the kernel a thread that spins is *running*, also while it waits for a CPU, so the kernel is asked.
"""

import threading
from pathlib import Path
from time import perf_counter, sleep

_TASKS = Path("/proc/self/task")
_STEP_S = 0.001
_RUNNING = "R"


def wait_until_resting(limit_s: float) -> bool:
    """Wait until no other thread of this process runs; tell whether it came to that.

    At once True where the kernel does not tell.

    Args:
        limit_s: Longest wait, seconds.
    """
    ends_s = perf_counter() + limit_s
    while _others_run():
        if perf_counter() >= ends_s:
            return False
        sleep(_STEP_S)
    return True


def _others_run() -> bool:
    own = str(threading.get_native_id())
    try:
        tasks = [task for task in _TASKS.iterdir() if task.name != own]
    except OSError:
        return False
    return any(_state(task) == _RUNNING for task in tasks)


def _state(task: Path) -> str:
    """Return a thread's state, nothing for one that just ended."""
    try:
        # the name stands in brackets and may hold anything, brackets too
        return (task / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""
