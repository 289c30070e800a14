"""Check what ``peak_memory_mb`` says against a server, and against itself in a used process.

For a sample of the shipped space's deployments, in shuffled order::

    fresh     told by an interpreter of its own
    used      told by this process, twice, between engines that it loads and drives
    server    what an interpreter of its own holds that loads the engine, sends one request and
              then ``concurrency`` requests at a time for a second; beyond what it held idle
    CPU       of one telling, the fresh process's own included, second load and requests too

::

    python scripts/bench_memory.py [--deployments 16] [--seed 0]
"""

import argparse
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Barrier

import numpy as np
import psutil

from search_spaces.catalog import space_path
from search_spaces.deployment import Deployment
from search_spaces.files import space_from_yaml
from trials.backend import Engine, Tensors
from trials.backends.ort import OrtBackend
from trials.backends.ort_memory import bring_up
from trials.bench import open_bench
from trials.measuring.memory import ResidentMemory
from trials.store.store import Store

_SERVED_S = 1.0
_DEADLINE_S = 60.0
_STORE_BYTES = 10**9
_MB = 1e6
_MS_PER_S = 1e3


@dataclass(kw_only=True)
class Row:
    """What was found of one deployment, bytes."""

    deployment: Deployment
    plan: Path
    batch: Tensors
    fresh: int = 0
    used: list[int] = field(default_factory=list)
    server: int = 0
    cpu_s: list[float] = field(default_factory=list)


def told(plan: Path, deployment: Deployment, batch: Tensors) -> int:
    """Let the backend tell."""
    needed = OrtBackend().peak_memory(plan, deployment, batch, deadline_s=_DEADLINE_S)
    if needed is None:
        sys.exit("this kernel does not tell how much memory a process holds")
    return needed


def serve(plan: Path, deployment: Deployment, batch: Tensors) -> int:
    """Be a server for a while and return what it came to hold."""
    bring_up()
    memory = ResidentMemory()
    engine = OrtBackend().load(plan, deployment)
    _drive(engine, deployment, batch, _SERVED_S)
    return memory.held_bytes()


def _drive(engine: Engine, deployment: Deployment, batch: Tensors, seconds: float) -> None:
    """Send one request, then as many at a time as the deployment says."""
    engine.infer(batch)
    together = Barrier(deployment.concurrency)

    def lane(_: int) -> None:
        with engine.lane([batch]) as (request,):
            together.wait()
            ends_s = time.monotonic() + seconds
            while time.monotonic() < ends_s:
                request()

    with ThreadPoolExecutor(deployment.concurrency) as lanes:
        list(lanes.map(lane, range(deployment.concurrency)))


def _alone(function: Callable[[Path, Deployment, Tensors], int], row: Row) -> int:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, row.plan, row.deployment, row.batch).result()


def _cpu_s() -> float:
    """Add up the CPU time of this process, its template process and their dead children."""
    processes = [psutil.Process(), *psutil.Process().children()]
    times = [one.cpu_times() for one in processes]
    return sum(one.user + one.system for one in times) + sum(
        one.children_user + one.children_system for one in times[1:]
    )


def _sample(count: int, seed: int, folder: Path) -> list[Row]:
    space = space_from_yaml(space_path("fashion-mnist"))
    bench = open_bench(space, Store(folder, limit_bytes=_STORE_BYTES))
    chosen = random.Random(seed).sample(list(space.deployments()), count)  # noqa: S311 -- no secret
    split, preprocessing = bench.dataset.search, bench.dataset.preprocessing
    rows = []
    for deployment in chosen:
        plan = bench.prepare(deployment).engine.path
        [name] = (spec.name for spec in OrtBackend().load(plan, deployment).inputs)
        samples = split.samples(np.arange(deployment.batch_size), preprocessing)
        rows.append(Row(deployment=deployment, plan=plan, batch={name: samples[""]}))
    return rows


def _use(row: Row) -> None:
    """Tell in this process, and leave behind what a trial leaves."""
    before_s = _cpu_s()
    row.used.append(told(row.plan, row.deployment, row.batch))
    row.cpu_s.append(_cpu_s() - before_s)
    engine = OrtBackend().load(row.plan, row.deployment)
    _drive(engine, row.deployment, row.batch, 0.1)
    engine.close()


def _print(rows: list[Row]) -> None:
    print("| deployment | fresh MB | used MB | server MB | CPU ms |")
    print("|---|---|---|---|---|")
    for row in sorted(rows, key=lambda row: str(row.deployment)):
        words = " ".join(str(value) for _, value in row.deployment.axes())
        used = ", ".join(f"{one / _MB:.2f}" for one in row.used)
        cpu_ms = median(row.cpu_s) * _MS_PER_S
        print(
            f"| {words} | {row.fresh / _MB:.2f} | {used} | {row.server / _MB:.2f} | {cpu_ms:.0f} |"
        )
    furthest = max(abs(one - row.fresh) for row in rows for one in row.used)
    print(f"\nfurthest of a used process from the fresh one: {furthest / _MB:.3f} MB")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--deployments", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with TemporaryDirectory() as folder:
        rows = _sample(asked.deployments, asked.seed, Path(folder))
        told(rows[0].plan, rows[0].deployment, rows[0].batch)  # starts the template process
        again = rows * 2
        random.Random(asked.seed).shuffle(again)  # noqa: S311 -- no secret
        for row in again:
            _use(row)
        for row in rows:
            row.fresh = _alone(told, row)
            row.server = _alone(serve, row)
        _print(rows)


if __name__ == "__main__":
    main()
