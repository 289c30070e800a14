"""Check intervals on what a real machine did: long records, and measurements cut out of them.

``record`` keeps several engines of the shipped space busy with our own load generator, in blocks
without a pause, and writes all latencies. ``replay`` takes the whole record for the truth and asks
how often the interval of a measurement, blocks of that record, covers it::

    spread       each measurement has a block out of each of as many equal stretches of the record
    contiguous   its blocks follow each other, as in a single session

The two answer different questions. Spread blocks see all that the machine did, so they tell
whether the *formulas* hold on real latencies. Contiguous blocks see a second or two of it; what
the machine did in the other minutes no formula can know.

    python scripts/replay_records.py record DIR [--seconds 60]
    python scripts/replay_records.py replay DIR [--repetitions 400] [--blocks 20]
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from optimizer.workspace import load_blocks, save_blocks
from search_spaces.catalog import space_path
from search_spaces.deployment import Deployment, Precision
from search_spaces.files import space_from_yaml
from trials.bench import Bench, open_bench
from trials.data.dataset import request_batches
from trials.data.feeding import feeds
from trials.measurement import Block, Estimate
from trials.measuring.closed_loop import ClosedLoop, Quota
from trials.measuring.spread import METHODS
from trials.measuring.statistics import mean_latency, quantiles, throughput
from trials.store.store import Store

ENGINES = (
    ("cnn-w16", Precision.FP32, 16, 1),
    ("resnet-w16", Precision.INT8, 1, 1),
    ("resnet-w32", Precision.FP32, 1, 1),
    ("resnet-w32", Precision.FP32, 1, 2),
    ("resnet-w16", Precision.FP32, 4, 1),
)
BLOCK_S = 0.1
BLOCK_REQUESTS = 100
WARMUP_S = 1.0
LEVELS = (0.5, 0.9, 0.99)
NAMES = ("p50", "p90", "p99", "mean", "throughput")
_STORE_BYTES = 10**9


def record(folder: Path, seconds: float) -> None:
    """Record every engine, one after the other."""
    folder.mkdir(parents=True, exist_ok=True)
    space = space_from_yaml(space_path("fashion-mnist"))
    with TemporaryDirectory() as store:
        bench = open_bench(space, Store(Path(store), limit_bytes=_STORE_BYTES))
        for variant, precision, batch_size, concurrency in ENGINES:
            deployment = Deployment(
                variant=variant,
                precision=precision,
                batch_size=batch_size,
                concurrency=concurrency,
                options=(("threads", 1),),
            )
            blocks = recorded(bench, deployment, seconds)
            path = folder / f"{variant}-{precision}-b{batch_size}-c{concurrency}.parquet"
            save_blocks(blocks, path)
            print(f"{path}: {len(blocks)} blocks", flush=True)


def recorded(bench: Bench, deployment: Deployment, seconds: float) -> tuple[Block, ...]:
    """Drive one engine in blocks that follow each other."""
    engine = bench.backend.load(bench.prepare(deployment).engine.path, deployment)
    drawn = request_batches(
        bench.dataset.search,
        batch_size=deployment.batch_size,
        count=16,
        preprocessing=bench.dataset.preprocessing,
        seed=0,
    )
    batches = [feeds(one, engine.inputs, source=bench.space.source) for one in drawn]
    with ClosedLoop(
        engine, batches, workers=deployment.concurrency, batch_size=deployment.batch_size
    ) as loop:
        endless_s = 2 * seconds + WARMUP_S
        loop.block(Quota(window_s=WARMUP_S, requests=1, cap_s=endless_s))
        ends_s = loop.now_s() + seconds
        quota = Quota(window_s=BLOCK_S, requests=BLOCK_REQUESTS, cap_s=ends_s + seconds)
        blocks = []
        while loop.now_s() < ends_s:
            blocks.append(loop.block(quota))
    engine.close()
    return tuple(blocks)


def spread_out(random: np.random.Generator, record: Sequence[Block], count: int) -> list[Block]:
    """Take a block out of each of ``count`` equal stretches of the record."""
    ends = np.linspace(0, len(record), count + 1).astype(int)
    places = random.integers(ends[:-1], ends[1:])
    return [record[place] for place in places]


def contiguous(random: np.random.Generator, record: Sequence[Block], count: int) -> list[Block]:
    """Take ``count`` blocks that follow each other."""
    first = int(random.integers(0, len(record) - count + 1))
    return list(record[first : first + count])


Cut = Callable[[np.random.Generator, Sequence[Block], int], list[Block]]
CUTS: dict[str, Cut] = {"spread": spread_out, "contiguous": contiguous}


def estimates(blocks: Sequence[Block], method: int) -> tuple[Estimate, ...]:
    """Estimate what ``NAMES`` name."""
    return (
        *quantiles(blocks, LEVELS, method=method),
        mean_latency(blocks, method=method),
        throughput(blocks, method=method),
    )


def lines(path: Path, repetitions: int, count: int) -> Iterator[str]:
    """Replay one record and write a line for each way to cut and version of the formulas."""
    record = load_blocks(path)
    truths = [estimate.value for estimate in estimates(record, max(METHODS))]
    for cut_name, cut in CUTS.items():
        for method in METHODS:
            covered = np.zeros(len(NAMES))
            random = np.random.default_rng(0)
            for _ in range(repetitions):
                found = estimates(cut(random, record, count), method)
                covered += [holds(one, truth) for one, truth in zip(found, truths, strict=True)]
            cells = " | ".join(f"{share:.1%}" for share in covered / repetitions)
            yield f"| {path.stem} | {cut_name} | {method} | {cells} |"


def holds(estimate: Estimate, truth: float) -> bool:
    """Tell whether an interval holds the truth; a limit that is unknown excludes nothing."""
    low, high = estimate.low, estimate.high
    return (low is None or low <= truth) and (high is None or truth <= high)


def replay(folder: Path, repetitions: int, count: int) -> None:
    """Print the table of all records in a folder."""
    print(f"| record | blocks | version | {' | '.join(NAMES)} |")
    print("|---|---|---|" + "---|" * len(NAMES))
    for path in sorted(folder.glob("*.parquet")):
        for line in lines(path, repetitions, count):
            print(line, flush=True)


def main() -> None:
    """Record or replay."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("record", "replay"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each engine")
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--blocks", type=int, default=20, help="of a measurement")
    arguments = parser.parse_args()
    if arguments.step == "record":
        record(arguments.folder, arguments.seconds)
    else:
        replay(arguments.folder, arguments.repetitions, arguments.blocks)


if __name__ == "__main__":
    main()
