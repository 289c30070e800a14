"""Simulate what stopping early saves, and what it does to intervals and decisions.

A measurement is looked at after 8, 10, 13, 17, 20, 22 … blocks of 0.1 s and ends as the product's
does: when its intervals are narrow enough, or after 10 s. Held against it is a fixed window of 10
s, and what somebody needs who knows beforehand how estimates of so many blocks scatter: with this
process, nothing honest ends earlier. Then the same with a bound on the p99: a measurement may end
as soon as the bound is missed for certain.

Printed first: mean time, and coverage of 95 % intervals after stopping and of the fixed window.
Printed then: how often a measurement was called a miss, the mean time, for bounds below and above
the true p99. From 1.0 on every *miss* is wrong; half of 5 % is what all looks together may spend.

    python scripts/simulate_stopping.py [--repetitions 400] [--requests 500]
"""

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from search_spaces.metrics import METRICS
from search_spaces.space import Constraint, MeasuringPlan
from trials.measurement import Block, Estimate
from trials.measuring.statistics import quantiles, throughput
from trials.measuring.stopping import Question, next_look, targets_met

BLOCK_S = 0.1
WINDOW_BLOCKS = 100
PLAN = MeasuringPlan()
FACTORS = (0.5, 0.8, 0.9, 1.0, 1.1)
LEVELS = (0.5, 0.9, 0.99)
NAMES = ("p50", "p90", "p99", "throughput")
TRUTH_BLOCKS = 20_000

Floats = NDArray[np.float64]
Process = Callable[[np.random.Generator, int, int], Floats]
"""Draws latencies of shape ``(blocks, requests)``, seconds."""


def independent(random: np.random.Generator, blocks: int, requests: int) -> Floats:
    """Independent requests, log-normal, 30 %."""
    return random.lognormal(-6.9, 0.3, (blocks, requests))


def autoregressive(random: np.random.Generator, blocks: int, requests: int) -> Floats:
    """Latencies of 10 % that remember about twenty requests, across blocks too."""
    shocks = random.normal(0, 0.1 * math.sqrt(1 - 0.95**2), blocks * requests)
    shocks[0] = random.normal(0, 0.1)
    return np.exp(-6.9 + signal.lfilter([1.0], [1.0, -0.95], shocks)).reshape(blocks, requests)


def wandering(random: np.random.Generator, blocks: int, requests: int) -> Floats:
    """Independent requests of 10 %, and levels of blocks that wander by 2 % with memory 0.5."""
    shocks = random.normal(0, 0.02 * math.sqrt(0.75), blocks)
    levels = signal.lfilter([1.0], [1.0, -0.5], shocks)
    return random.lognormal(-6.9, 0.1, (blocks, requests)) * np.exp(levels)[:, None]


def bursty(random: np.random.Generator, blocks: int, requests: int) -> Floats:
    """Independent requests of 10 %, of which 0.2 % fall into bursts of 50, thrice as slow."""
    slow = np.zeros(blocks * requests, dtype=bool)
    for first in np.flatnonzero(random.random(slow.size) < 0.002 / 50):
        slow[first : first + 50] = True
    latencies = random.lognormal(-6.9, 0.1, slow.size) * np.where(slow, 3.0, 1.0)
    return latencies.reshape(blocks, requests)


PROCESSES: dict[str, Process] = {
    "iid": independent,
    "AR(1)": autoregressive,
    "wandering": wandering,
    "bursts": bursty,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """Where a measurement ended, and whether because of the bound."""

    blocks: int
    is_decided: bool


def stopped(blocks: list[Block], question: Question | None) -> Stopped:
    """Look as the product does."""
    count, looks = PLAN.min_blocks, 0
    while count < len(blocks):
        looks += 1
        if targets_met(blocks[:count], PLAN):
            return Stopped(blocks=count, is_decided=False)
        if question is not None and question.answered(blocks[:count], looks):
            return Stopped(blocks=count, is_decided=True)
        count = next_look(count)
    return Stopped(blocks=len(blocks), is_decided=False)


def covered(blocks: list[Block], truths: list[float]) -> list[bool]:
    """Tell of each of ``NAMES`` whether its interval holds the truth."""
    found = (*quantiles(blocks, LEVELS), throughput(blocks))
    return [holds(one, truth) for one, truth in zip(found, truths, strict=True)]


def holds(estimate: Estimate, truth: float) -> bool:
    """Tell whether an interval holds the truth; a limit that is unknown excludes nothing."""
    low, high = estimate.low, estimate.high
    return (low is None or low <= truth) and (high is None or truth <= high)


def blocks_of(latencies: Floats) -> list[Block]:
    """Make blocks of one worker's closed loop."""
    return [
        Block(start_s=0.0, window_s=float(one.sum()), latencies_s=one, batch_size=1)
        for one in latencies
    ]


def needed(pooled: Floats) -> int:
    """Say after how many blocks estimates scatter as little as the targets ask.

    Args:
        pooled: Very many blocks of the process, in order of time.
    """
    for count in range(PLAN.min_blocks, WINDOW_BLOCKS):
        groups = pooled[: len(pooled) // count * count].reshape(-1, count * pooled.shape[1])
        p50, p99 = np.quantile(groups, (0.5, 0.99), axis=1)
        scatters = [
            1.96 * each.std() / each.mean() for each in (p50, p99, 1 / groups.mean(axis=1))
        ]
        targets = (PLAN.target_p50, PLAN.target_p99, PLAN.target_throughput)
        if all(one <= target for one, target in zip(scatters, targets, strict=True)):
            return count
    return WINDOW_BLOCKS


def question_of(p99_s: float) -> Question:
    """Ask for a p99 of at most ``p99_s``."""
    bound = Constraint(metric=METRICS["latency_p99_ms"], upper=True, bound=1e3 * p99_s)
    return Question(bounds=(bound,), is_out=False)


def lines(name: str, process: Process, repetitions: int, requests: int) -> Iterator[str]:
    """Simulate one process."""
    pooled = process(np.random.default_rng(2**32), TRUTH_BLOCKS, requests)
    truths = [*np.quantile(pooled, LEVELS), 1 / pooled.mean()]
    p99_s = truths[2]
    number = list(PROCESSES).index(name)
    runs = [
        blocks_of(process(np.random.default_rng((number, repetition)), WINDOW_BLOCKS, requests))
        for repetition in range(repetitions)
    ]
    ends = [stopped(blocks, None) for blocks in runs]
    early = [covered(blocks[: end.blocks], truths) for blocks, end in zip(runs, ends, strict=True)]
    fixed = np.mean([covered(blocks, truths) for blocks in runs], axis=0)
    time_s = BLOCK_S * np.mean([end.blocks for end in ends])
    cells = "  ".join(
        f"{each} {one:.1%} / {other:.1%}"
        for each, one, other in zip(NAMES, np.mean(early, axis=0), fixed, strict=True)
    )
    yield (
        f"{name:10s} {time_s:4.1f} s of 10 ({1 - time_s / 10:.0%} less; at best "
        f"{BLOCK_S * needed(pooled):.1f} s)  {cells}"
    )
    for factor in FACTORS:
        asked = [stopped(blocks, question_of(factor * p99_s)) for blocks in runs]
        share = np.mean([end.is_decided for end in asked])
        asked_s = BLOCK_S * np.mean([end.blocks for end in asked])
        yield f"{'':10s} p99 <= {factor} × truth: {share:6.1%} called a miss, {asked_s:4.1f} s"


def main() -> None:
    """Print all processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--requests", type=int, default=500, help="of a block")
    arguments = parser.parse_args()
    for name, process in PROCESSES.items():
        for line in lines(name, process, arguments.repetitions, arguments.requests):
            print(line, flush=True)


if __name__ == "__main__":
    main()
