"""How often intervals of energy per sample hold, where the energy counter moves in steps.

A card whose power wanders is read around blocks of 0.1 s, by a counter that moves every 20 to
100 ms. For the product's estimator (runs) and for one that was rejected (blocks) the table tells
how often the 95 % interval covered the truth, its median half-width, the bias of the value, and
how often there was no interval.

    python scripts/simulate_energy.py --repetitions 2000
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from trials.measurement import Block, BlockOnGpu, Estimate
from trials.measuring.energy import energy_per_sample
from trials.measuring.spread import METHOD
from trials.measuring.statistics import CONFIDENCE, ratio

MEAN_W = 300.0
IDLE_W = 80.0
BLOCK_S = 0.1
SAMPLES = 1_000  # of a block
TOGETHER = 10  # blocks of the estimator that was rejected
UPDATE_S = 0.1  # what the product takes every counter for


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """How a card and its counter behave.

    Attributes:
        update_s: How often its counter moves.
        gap_s: Between blocks, at idle power.
        wander: Spread of the log power from block to block.
        memory: How much of it stays from one block to the next, in [0, 1).
    """

    update_s: float
    gap_s: float
    wander: float
    memory: float


CARDS = {
    "moves every 1 ms": Card(update_s=0.001, gap_s=0.002, wander=0.01, memory=0.0),
    "moves every 20 ms": Card(update_s=0.02, gap_s=0.002, wander=0.01, memory=0.0),
    "moves every 100 ms": Card(update_s=0.1, gap_s=0.002, wander=0.01, memory=0.0),
    "100 ms, power wanders": Card(update_s=0.1, gap_s=0.002, wander=0.03, memory=0.7),
    "100 ms, long gaps": Card(update_s=0.1, gap_s=0.02, wander=0.01, memory=0.0),
}


def measured(card: Card, count: int, random: np.random.Generator) -> list[Block]:
    """Read a counter around blocks of load."""
    levels = np.zeros(count)
    fresh = random.normal(0, card.wander * np.sqrt(1 - card.memory**2), count)
    for at in range(count):
        levels[at] = fresh[at] + (card.memory * levels[at - 1] if at else 0.0)
    watts = MEAN_W * np.exp(levels - card.wander**2 / 2)
    begins_s = np.arange(count) * (BLOCK_S + card.gap_s) + random.uniform(0, 1)
    edges_s = np.ravel(np.column_stack([begins_s, begins_s + BLOCK_S]))
    powers = np.ravel(np.column_stack([watts, np.full(count, IDLE_W)]))[:-1]
    used_j = np.concatenate([[0.0], np.cumsum(powers * np.diff(edges_s))])
    # the counter shows what had been used when it last moved
    moved_s = np.floor(edges_s / card.update_s) * card.update_s
    shown_j = np.interp(moved_s, edges_s, used_j, left=0.0)
    before = moved_s < edges_s[0]
    shown_j[before] = (moved_s[before] - edges_s[0]) * IDLE_W
    return [
        Block(
            start_s=float(edges_s[at]),
            window_s=BLOCK_S,
            latencies_s=np.full(SAMPLES, BLOCK_S / SAMPLES),
            batch_size=1,
            gpu=on_gpu((edges_s[at], edges_s[at + 1]), (shown_j[at], shown_j[at + 1])),
        )
        for at in range(0, 2 * count, 2)
    ]


def on_gpu(at_s: tuple[float, float], shown_j: tuple[float, float]) -> BlockOnGpu:
    """Say what was read around a block."""
    return BlockOnGpu(
        begin_s=float(at_s[0]),
        end_s=float(at_s[1]),
        begin_j=float(shown_j[0]),
        end_j=float(shown_j[1]),
        load_s=BLOCK_S,
        samples=SAMPLES,
        sm_mhz=(None, None),
        memory_mhz=(None, None),
        temperature_c=None,
        memory_bytes=None,
        reasons=0,
        others=0,
        busy_others=0,
        reading_s=0.0,
    )


def in_runs(blocks: Sequence[Block]) -> Estimate | None:
    """Estimate as the product does."""
    return energy_per_sample(blocks, update_s=UPDATE_S)


def moved_j(block: Block) -> float:
    """Return what the counter moved by within a block."""
    assert block.gpu is not None
    assert block.gpu.begin_j is not None
    assert block.gpu.end_j is not None
    return block.gpu.end_j - block.gpu.begin_j


def in_blocks(blocks: Sequence[Block]) -> Estimate | None:
    """Estimate from what the counter moved by within blocks, ten together: rejected."""
    starts = np.arange(0, len(blocks), TOGETHER)
    joules = np.add.reduceat(np.array([moved_j(block) for block in blocks]), starts)
    samples = np.add.reduceat(np.full(len(blocks), float(SAMPLES)), starts)
    if (joules <= 0).any():
        return None
    return ratio(blocks, joules, samples, confidence=CONFIDENCE, method=METHOD)


ESTIMATORS: dict[str, Callable[[Sequence[Block]], Estimate | None]] = {
    "runs": in_runs,
    "blocks": in_blocks,
}


def row(
    card: Card, name: str, *, count: int, repetitions: int, random: np.random.Generator
) -> tuple[float, float, float, float]:
    """Return coverage, median half-width, bias (relative) and the share without an interval."""
    truth = MEAN_W * BLOCK_S / SAMPLES
    hits, widths, values, missing = 0, [], [], 0
    for _ in range(repetitions):
        blocks = measured(card, count, random)
        found = ESTIMATORS[name](blocks)
        if found is None or found.low is None or found.high is None:
            missing += 1
            continue
        hits += found.low <= truth <= found.high
        widths.append((found.high - found.low) / 2 / truth)
        values.append(found.value / truth - 1)
    told = max(1, repetitions - missing)
    width = float(np.median(widths)) if widths else float("nan")
    bias = float(np.mean(values)) if values else float("nan")
    return hits / told, width, bias, missing / repetitions


def table(repetitions: int, seconds: Sequence[float], seed: int) -> Iterator[str]:
    """Yield the rows of the table, in Markdown."""
    yield "| counter | load | read in | covered | half-width | bias | no interval |"
    yield "|---|---|---|---|---|---|---|"
    for (name, card), length_s, way in product(CARDS.items(), seconds, ESTIMATORS):
        covered, width, bias, missing = row(
            card,
            way,
            count=round(length_s / BLOCK_S),
            repetitions=repetitions,
            random=np.random.default_rng(seed),
        )
        yield (
            f"| {name} | {length_s:g} s | {way} | {covered:.1%} | {width:.2%} "
            f"| {bias:+.2%} | {missing:.0%} |"
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--seconds", type=float, nargs="+", default=[4.0, 8.0])
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    print(f"intervals of version {METHOD}, {chosen.repetitions} repetitions", end="\n\n")
    for line in table(chosen.repetitions, chosen.seconds, chosen.seed):
        print(line)


if __name__ == "__main__":
    main()
