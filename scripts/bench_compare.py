"""Count how often comparisons of two engines are wrong, and how often they see 5 %.

Real engines of ONNX Runtime on this machine, as noisy as it is: one against itself (A/A), and
against one with 5 % more of the same layers. Each repetition measures 20 blocks of 0.1 s of each,
in turns and one after the other, and every method judges the same blocks:

    ours             paired log ratios of neighbouring blocks, beyond 2 %, Holm over the metrics
    margin           intervals of two sets of blocks, beyond 2 %, Holm over the metrics
    Mann-Whitney     of the blocks' own values, p < 5 %
    threshold        5 % between the two values
    overlap          the two 95 % intervals do not overlap

A false verdict is any *faster* or *slower* of A/A; power is the share of +5 % that was called
slower. To reach: at most 5 % false verdicts on each metric and 2 % on p50, and 85 % power on p50.

    python scripts/bench_compare.py --keep blocks/     # about a quarter of an hour
    python scripts/bench_compare.py --from blocks/     # judge kept blocks again
    python scripts/bench_compare.py --smoke            # a few seconds, to see that it runs
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from optimizer.workspace import load_blocks, save_blocks
from trials.backends.ort_engine import OrtEngine
from trials.measurement import Block
from trials.measuring.closed_loop import ClosedLoop, Quota
from trials.measuring.comparison import SPEEDS, Verdict, compare_speeds
from trials.measuring.pairing import BlockPair, compare_pairs
from trials.measuring.statistics import CONFIDENCE
from trials.measuring.turns import drive_in_turns

METRICS = ("latency_p50_ms", "latency_p99_ms", "throughput_sps")
MARGIN = 0.02
LAYERS, WIDTH = 20, 96
BLOCK_S = 0.1
_THRESHOLD = 0.05
_NEVER_S = 1e6

Blocks: TypeAlias = tuple[Block, ...]
Judged: TypeAlias = Mapping[str, bool | None]
"""By metric: the new one was called slower (True), faster (False) or neither (None)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """Blocks of two engines, neighbours at the same place of both.

    Attributes:
        in_turns: Measured in turns, else one engine after the other.
    """

    new: Blocks
    old: Blocks
    in_turns: bool


def chain(layers: int) -> Any:
    """Open a session over so many square products in a row, on one thread."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    weights = np.eye(WIDTH, dtype=np.float32)
    names = ["x", *(f"h{at}" for at in range(layers - 1)), "y"]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", [names[at], f"w{at}"], [names[at + 1]])
            for at in range(layers)
        ],
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [WIDTH, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [WIDTH, WIDTH])],
        [numpy_helper.from_array(weights, f"w{at}") for at in range(layers)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def record(pairs: int, random: np.random.Generator) -> dict[str, Recorded]:
    """Measure three freshly opened engines, two of them alike, in turns and in a row."""
    batch = {"x": np.ones((WIDTH, WIDTH), dtype=np.float32)}
    with ExitStack() as stack:
        a, twin, slower = (
            stack.enter_context(
                ClosedLoop(OrtEngine(chain(layers)), [batch], workers=1, batch_size=1)
            )
            for layers in (LAYERS, LAYERS, LAYERS + LAYERS // 20)
        )
        found = {}
        for name, other in (("same", twin), ("slower", slower)):
            turns = drive_in_turns(a, other, fours=pairs // 2, block_s=BLOCK_S, random=random)
            found[f"{name}-turns"] = _recorded(turns.pairs)
        rows = [tuple(_row(loop, pairs)) for loop in (a, twin, slower)]
    found["same-row"] = Recorded(new=rows[1], old=rows[0], in_turns=False)
    found["slower-row"] = Recorded(new=rows[2], old=rows[0], in_turns=False)
    return found


def _recorded(pairs: Sequence[BlockPair]) -> Recorded:
    new, old = (tuple(getattr(pair, side) for pair in pairs) for side in ("new", "old"))
    return Recorded(new=new, old=old, in_turns=True)


def _row(loop: ClosedLoop, blocks: int) -> Iterator[Block]:
    loop.block(Quota(window_s=2 * BLOCK_S, requests=20, cap_s=_NEVER_S))
    for _ in range(blocks):
        yield loop.block(Quota(window_s=BLOCK_S, requests=20, cap_s=_NEVER_S))


def ours(found: Recorded) -> Judged:
    """Judge neighbouring blocks."""
    pairs = [BlockPair(new=new, old=old) for new, old in zip(found.new, found.old, strict=True)]
    return {
        one.metric: _is_slower(one.verdict) for one in compare_pairs(pairs, METRICS, margin=MARGIN)
    }


def margin(found: Recorded) -> Judged:
    """Judge two sets of blocks by the interval of their ratio."""
    return {
        one.metric: _is_slower(one.verdict)
        for one in compare_speeds(found.new, found.old, METRICS, margin=MARGIN)
    }


def mann_whitney(found: Recorded) -> Judged:
    """Judge the blocks' own values by their ranks."""
    from scipy.stats import mannwhitneyu

    judged = {}
    for metric in METRICS:
        new, old = ([_value((one,), metric) for one in side] for side in (found.new, found.old))
        is_sure = mannwhitneyu(new, old).pvalue < 1 - CONFIDENCE
        judged[metric] = _slower(metric, np.median(new), np.median(old)) if is_sure else None
    return judged


def threshold(found: Recorded) -> Judged:
    """Judge by 5 % between the two values."""
    judged = {}
    for metric in METRICS:
        new, old = _value(found.new, metric), _value(found.old, metric)
        is_far = abs(np.log(new / old)) > np.log(1 + _THRESHOLD)
        judged[metric] = _slower(metric, new, old) if is_far else None
    return judged


def overlap(found: Recorded) -> Judged:
    """Judge by whether the two intervals overlap."""
    judged = {}
    for metric in METRICS:
        new, old = (SPEEDS[metric](side, confidence=CONFIDENCE) for side in (found.new, found.old))
        limits = (new.low or 0, new.high or np.inf, old.low or 0, old.high or np.inf)
        is_apart = limits[0] > limits[3] or limits[1] < limits[2]
        judged[metric] = _slower(metric, new.value, old.value) if is_apart else None
    return judged


METHODS: Mapping[str, Callable[[Recorded], Judged]] = {
    "ours": ours,
    "margin": margin,
    "Mann-Whitney": mann_whitney,
    "threshold": threshold,
    "overlap": overlap,
}


def _value(blocks: Blocks, metric: str) -> float:
    return SPEEDS[metric](blocks, confidence=CONFIDENCE).value


def _slower(metric: str, new: float, old: float) -> bool:
    return bool((new > old) == metric.startswith("latency"))


def _is_slower(verdict: Verdict) -> bool | None:
    return {Verdict.WORSE: True, Verdict.BETTER: False}.get(verdict)


def keep(found: Mapping[str, Recorded], folder: Path, at: int) -> None:
    """Write the blocks of one repetition."""
    for name, one in found.items():
        save_blocks(one.new, folder / f"{at:04d}-{name}-new.parquet")
        save_blocks(one.old, folder / f"{at:04d}-{name}-old.parquet")


def kept(folder: Path) -> Iterator[dict[str, Recorded]]:
    """Read the repetitions of an earlier run."""
    for first in sorted(folder.glob("*-same-turns-new.parquet")):
        at = first.name.partition("-")[0]
        if not (folder / f"{at}-slower-row-old.parquet").exists():
            continue  # that run was stopped here
        yield {
            name: Recorded(
                new=load_blocks(folder / f"{at}-{name}-new.parquet"),
                old=load_blocks(folder / f"{at}-{name}-old.parquet"),
                in_turns=name.endswith("turns"),
            )
            for name in ("same-turns", "slower-turns", "same-row", "slower-row")
        }


def show(runs: Sequence[Mapping[str, Recorded]]) -> None:
    """Print the table of false verdicts and power."""
    ratios = [_value(run["slower-turns"].new, METRICS[0]) for run in runs]
    ratios = [
        new / _value(run["slower-turns"].old, METRICS[0])
        for new, run in zip(ratios, runs, strict=True)
    ]
    print(
        f"{len(runs)} repetitions; the slower engine takes {np.median(ratios):.3f} times as long"
    )
    short = [metric.removeprefix("latency_").partition("_")[0] for metric in METRICS]
    heads = [f"A/A {one}" for one in short] + [f"+5% {one}" for one in short]
    print(f"{'method':<14}{'blocks':<10}" + "".join(f"{head:>15}" for head in heads))
    for name, judge in METHODS.items():
        for way in ("turns", "row"):
            if name == "ours" and way == "row":
                continue  # blocks of a row have no neighbours
            same = [judge(run[f"same-{way}"]) for run in runs]
            slower = [judge(run[f"slower-{way}"]) for run in runs]
            shares = [np.mean([one[metric] is not None for one in same]) for metric in METRICS]
            shares += [np.mean([one[metric] is True for one in slower]) for metric in METRICS]
            print(f"{name:<14}{way:<10}" + "".join(f"{share:>15.1%}" for share in shares))


def main(arguments: Sequence[str]) -> int:
    """Measure, or read what was measured, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=60)
    parser.add_argument("--keep", type=Path, help="a folder for the blocks")
    parser.add_argument("--from", dest="source", type=Path, help="judge these blocks again")
    parser.add_argument("--smoke", action="store_true", help="two short repetitions")
    given = parser.parse_args(arguments)
    random = np.random.default_rng(0)
    if given.source is not None:
        runs = list(kept(given.source))
    else:
        runs = []
        for at in range(2 if given.smoke else given.repetitions):
            runs.append(record(6 if given.smoke else 20, random))
            if given.keep is not None:
                keep(runs[-1], given.keep, at)
    show(runs)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
