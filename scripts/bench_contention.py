"""Count which blocks of load are said to be contended, with neighbours and without.

An engine of ONNX Runtime is driven by one worker, block after block, while nobody, one other
process, or one on each core is busy. To reach: at least 99 % of the blocks flagged with a
neighbour on each core, at most 1 % on an idle machine. Whether the machine was idle otherwise is
shown beside each row: the share of its CPUs that went to neither this process nor its neighbours.

    python scripts/bench_contention.py            # a minute
    python scripts/bench_contention.py --smoke    # a few seconds, to see that it runs
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import psutil

from search_spaces.catalog import space_path
from search_spaces.deployment import Deployment, Precision
from trials.backends.catalog import backend_named
from trials.measuring import contention
from trials.measuring.closed_loop import ClosedLoop, Quota

MODEL = space_path("fashion-mnist").parent / "fashion_mnist" / "resnet-w16.onnx"
DEPLOYMENT = Deployment(
    variant="resnet-w16",
    precision=Precision.FP32,
    batch_size=1,
    concurrency=1,
    options=(("threads", 1),),
)
_BUSY = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"
_NEVER_S = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What was seen under one kind of neighbours.

    Attributes:
        foreign: Share of all CPUs that went to others than this process and its neighbours.
        cost_s: What two readings of the clocks cost, median, seconds.
    """

    neighbours: int
    block_s: float
    blocks: int
    flagged: int
    foreign: float
    cost_s: float


@contextmanager
def busy_on(cpus: Sequence[int]) -> Iterator[list[psutil.Process]]:
    """Keep these CPUs busy, one process each."""
    started = [subprocess.Popen([sys.executable, "-c", _BUSY, str(cpu)]) for cpu in cpus]
    try:
        yield [psutil.Process(one.pid) for one in started]
    finally:
        for one in started:
            one.kill()
            one.wait()


def count(loop: ClosedLoop, neighbours: Sequence[int], *, block_s: float, blocks: int) -> Row:
    """Measure blocks beside neighbours on these CPUs."""
    flagged, costs_s = 0, []
    quota = Quota(window_s=block_s, requests=1, cap_s=_NEVER_S)
    with busy_on(neighbours) as processes:
        loop.block(Quota(window_s=0.5, requests=1, cap_s=_NEVER_S))
        known = [psutil.Process(), *processes]
        began_s, busy_s, ours_s = perf_counter(), _busy_s(), _cpu_s(known)
        for _ in range(blocks):
            before = contention.read()
            loop.block(quota)
            read_s = perf_counter()
            after = contention.read()
            costs_s.append(2 * (perf_counter() - read_s))
            flagged += contention.was_contended(before, after)
        others_s = _busy_s() - busy_s - (_cpu_s(known) - ours_s)
        capacity_s = (perf_counter() - began_s) * (os.cpu_count() or 1)
    return Row(
        neighbours=len(neighbours),
        block_s=block_s,
        blocks=blocks,
        flagged=flagged,
        foreign=max(0.0, others_s / capacity_s),
        cost_s=float(np.median(costs_s)),
    )


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def _cpu_s(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(one.cpu_times()[:2]) for one in processes)


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=200)
    parser.add_argument("--idle-only", action="store_true", help="without neighbours of ours")
    parser.add_argument("--smoke", action="store_true", help="ten blocks of each")
    given = parser.parse_args(arguments)
    blocks = 10 if given.smoke else given.blocks
    cpus = sorted(os.sched_getaffinity(0))
    kinds: list[list[int]] = [[]] if given.idle_only else [[], cpus[:1], cpus]
    engine = backend_named("ort").load(MODEL, DEPLOYMENT)
    batch = {
        one.name: np.ones((1, *(size or 1 for size in one.shape[1:])), dtype=one.dtype)
        for one in engine.inputs
    }
    print(
        f"{'neighbours':>10}{'block s':>9}{'blocks':>8}{'flagged':>9}{'others':>8}{'read ms':>9}"
    )
    with ExitStack() as stack:
        stack.callback(engine.close)
        loop = stack.enter_context(ClosedLoop(engine, [batch], workers=1, batch_size=1))
        for block_s in (0.05, 0.1):
            for neighbours in kinds:
                row = count(loop, neighbours, block_s=block_s, blocks=blocks)
                print(
                    f"{row.neighbours:>10}{row.block_s:>9}{row.blocks:>8}"
                    f"{row.flagged / row.blocks:>9.1%}{row.foreign:>8.1%}{row.cost_s * 1e3:>9.2f}",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
