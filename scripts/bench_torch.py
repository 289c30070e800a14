"""Hold eager, compiled and ahead-of-time torch and ONNX Runtime against each other on the CPU.

The same shipped model, one thread, one request in flight, our own closed loop. All engines are
loaded at once and take blocks in turns, in a new random order each round, so that whatever else
the machine does hits them alike; a ratio is the median over rounds of one block against ONNX
Runtime's of the same round, with the interval of the signs (95 %).

    python scripts/bench_torch.py [--rounds 60] [--batches 1 16] [--models cnn-w16 resnet-w16]
"""

import argparse
import random
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from scipy.stats import binom

from search_spaces.catalog import space_path
from search_spaces.deployment import Deployment, Precision
from search_spaces.files import space_from_yaml
from search_spaces.space import SearchSpace
from trials.bench import Bench, open_bench
from trials.data.dataset import request_batches
from trials.data.feeding import feeds
from trials.measurement import Block
from trials.measuring.closed_loop import ClosedLoop, Quota
from trials.store.store import Store

BLOCK_S = 0.1
WARMUP_S = 1.0
RIVALS = ("ort", "eager", "compile", "aot")
_STORE_BYTES = 10**9


def benches(folder: Path) -> dict[str, Bench]:
    """Open both spaces, by backend."""
    spaces = {name: space_from_yaml(space_path(name)) for name in ("fashion-mnist-torch",)}
    spaces["fashion-mnist"] = _only_shared(space_from_yaml(space_path("fashion-mnist")))
    store = Store(folder, limit_bytes=_STORE_BYTES)
    return {space.backend: open_bench(space, store) for space in spaces.values()}


def race(
    opened: dict[str, Bench], model: str, batch_size: int, rounds: int
) -> dict[str, list[Block]]:
    """Let all rivals take blocks in turns; returns the blocks of each, by round."""
    with ExitStack() as stack:
        loops = {}
        for rival in RIVALS:
            bench = opened["ort" if rival == "ort" else "torch"]
            options = () if rival == "ort" else (("mode", rival),)
            point = Deployment(
                variant=model,
                precision=Precision.FP32,
                batch_size=batch_size,
                concurrency=1,
                options=options,
            )
            engine = bench.backend.load(bench.prepare(point).engine.path, point)
            stack.callback(engine.close)
            batches = request_batches(
                bench.dataset.search,
                batch_size=batch_size,
                count=8,
                preprocessing=bench.dataset.preprocessing,
                seed=0,
            )
            fed = [feeds(batch, engine.inputs, source="bench") for batch in batches]
            loop = ClosedLoop(engine, fed, workers=1, batch_size=batch_size)
            loops[rival] = stack.enter_context(loop)
            loop.block(_quota(loop, WARMUP_S))
        blocks: dict[str, list[Block]] = {rival: [] for rival in RIVALS}
        order, chance = list(RIVALS), random.Random(0)  # noqa: S311 - an order, no secret
        for _ in range(rounds):
            chance.shuffle(order)
            for rival in order:
                blocks[rival].append(loops[rival].block(_quota(loops[rival], BLOCK_S)))
        return blocks


def main() -> None:
    """Race every model at every batch size and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 16])
    parser.add_argument("--models", nargs="*", default=["cnn-w16", "resnet-w16"])
    arguments = parser.parse_args()
    print("| model | batch | engine | p50, us (best round) | time against ort [95 %] |")
    print("|---|---|---|---|---|")
    with TemporaryDirectory() as folder:
        opened = benches(Path(folder))
        for model in arguments.models:
            for batch_size in arguments.batches:
                blocks = race(opened, model, batch_size, arguments.rounds)
                medians = {
                    rival: np.array([np.median(one.latencies_s) for one in found])
                    for rival, found in blocks.items()
                }
                for rival in RIVALS:
                    low, middle, high = _median_of(medians[rival] / medians["ort"])
                    print(
                        f"| {model} | {batch_size} | {rival} | {1e6 * medians[rival].min():.0f} "
                        f"| {middle:.2f} [{low:.2f}, {high:.2f}] |",
                        flush=True,
                    )


def _median_of(ratios: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, ...]:
    """Return the median between the order statistics that hold it with 95 %."""
    ordered = np.sort(ratios)
    rank = int(binom.ppf(0.025, len(ordered), 0.5))
    return float(ordered[rank]), float(np.median(ordered)), float(ordered[-1 - rank])


def _quota(loop: ClosedLoop, window_s: float) -> Quota:
    return Quota(window_s=window_s, requests=1, cap_s=loop.now_s() + 60.0)


def _only_shared(space: SearchSpace) -> SearchSpace:
    """Leave out the variants that have no torch form."""
    names = {each.name for each in space_from_yaml(space_path("fashion-mnist-torch")).variants}
    return replace(space, variants=tuple(one for one in space.variants if one.name in names))


if __name__ == "__main__":
    main()
