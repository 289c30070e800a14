"""Simulate how often 95 % intervals cover the truth, ours beside others'.

Each repetition draws one measurement (blocks of requests) from a process whose true percentiles
and mean are known, and asks every method for its intervals. Printed is the share of repetitions in
which the interval held the truth (nominal 95 %; at 400 repetitions such a share is itself known to
2 points), and its median half-width relative to the truth. MLPerf's early-stopping estimate is an
upper bound at 99 %: its column is how often it lay above the truth.

*Throughput* is that of the same requests in blocks that are ended by the clock, as ours are: with
the first request that comes back after the block's time is over.

    python scripts/simulate_intervals.py [--repetitions 400] [--blocks 20] [--requests 250]

References:
    Korn, E. and Graubard, B. (1998) and others: ours, see ``trials.measuring.statistics``.
    Reddi, V. et al. (2020), MLPerf inference benchmark. ISCA. Its early stopping: the largest
        number of overlatency requests that a run of this length may have (binomial, 99 %).
    Efron, B. and Tibshirani, R. (1993), An introduction to the bootstrap: percentile intervals.
"""

import argparse
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import signal, stats

from trials.measurement import Block, Estimate
from trials.measuring.spread import METHOD
from trials.measuring.statistics import mean_latency, quantiles, throughput
from trials.measuring.steadiness import has_level_shift

Floats = NDArray[np.float64]
Interval = tuple[float, float]

LEVELS = (0.5, 0.9, 0.99)
NAMES = ("p50", "p90", "p99", "mean", "throughput")
SIGMA = 0.3  # of log latency
TRUTH_REQUESTS = 4_000_000
BOOTSTRAP_DRAWS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How a measurement is cut into blocks."""

    blocks: int
    requests: int


Process = Callable[[np.random.Generator, Shape], Floats]
"""Draws latencies of shape ``(blocks, requests)``, seconds."""


def independent(random: np.random.Generator, shape: Shape) -> Floats:
    """Independent requests, log-normal."""
    return random.lognormal(-6.9, SIGMA, (shape.blocks, shape.requests))


def autoregressive(random: np.random.Generator, shape: Shape) -> Floats:
    """Log latencies that remember about twenty requests, across blocks too."""
    memory = 0.95
    shocks = random.normal(0, SIGMA * math.sqrt(1 - memory**2), shape.blocks * shape.requests)
    shocks[0] = random.normal(0, SIGMA)
    series = signal.lfilter([1.0], [1.0, -memory], shocks)
    return np.exp(-6.9 + series).reshape(shape.blocks, shape.requests)


def wandering(random: np.random.Generator, shape: Shape) -> Floats:
    """Levels of whole blocks that wander by 5 % and remember a block or two."""
    memory, spread = 0.5, 0.05
    shocks = random.normal(0, spread * math.sqrt(1 - memory**2), shape.blocks)
    shocks[0] = random.normal(0, spread)
    levels = signal.lfilter([1.0], [1.0, -memory], shocks)
    return independent(random, shape) * np.exp(levels)[:, None]


def bursty(random: np.random.Generator, shape: Shape) -> Floats:
    """Five in a hundred requests fall into bursts of about fifty, three times as slow."""
    count = shape.blocks * shape.requests
    slow, length = 0.05, 50
    leave, enter = 1 / length, slow / (1 - slow) / length
    states, at, is_slow = np.empty(count, dtype=bool), 0, bool(random.random() < slow)
    while at < count:
        stay = int(random.geometric(leave if is_slow else enter))
        states[at : at + stay] = is_slow
        at, is_slow = at + stay, not is_slow
    latencies = random.lognormal(-6.9, 0.1, count) * np.where(states, 3.0, 1.0)
    return latencies.reshape(shape.blocks, shape.requests)


def drifting(random: np.random.Generator, shape: Shape) -> Floats:
    """Requests that become 10 % slower from begin to end, as a machine that warms up."""
    levels = np.linspace(1.0, 1.1, shape.blocks * shape.requests)
    return independent(random, shape) * levels.reshape(shape.blocks, shape.requests)


def switching(random: np.random.Generator, shape: Shape) -> Floats:
    """Two levels, 10 % apart, that the machine switches between every five blocks or so."""
    switches = random.random(shape.blocks) < 0.2  # noqa: PLR2004 - one block in five
    levels = np.where(np.cumsum(switches) % 2 == int(random.integers(2)), 1.0, 1.1)
    return independent(random, shape) * levels[:, None]


def heavy(random: np.random.Generator, shape: Shape) -> Floats:
    """Two in a hundred requests wait by a Pareto law without a variance."""
    latencies = independent(random, shape)
    waits = 1e-3 * (1 + random.pareto(1.8, latencies.shape))
    return latencies + np.where(random.random(latencies.shape) < 0.02, waits, 0.0)  # noqa: PLR2004


def stepping(random: np.random.Generator, shape: Shape, *, begin: float, end: float) -> Floats:
    """Independent requests, 10 % slower in one part of the measurement."""
    at = np.arange(shape.blocks) / shape.blocks
    return independent(random, shape) * np.where((at >= begin) & (at < end), 1.1, 1.0)[:, None]


STEPS: dict[str, Process] = {
    "10 % in the middle": partial(stepping, begin=0.5, end=1.0),
    "10 % in the last fifth": partial(stepping, begin=0.8, end=1.0),
    "10 % for three tenths": partial(stepping, begin=0.4, end=0.7),
}
PROCESSES: dict[str, Process] = {
    "iid": independent,
    "AR(1)": autoregressive,
    "wandering": wandering,
    "bursts": bursty,
    "drift": drifting,
    "two levels": switching,
    "heavy tail": heavy,
}


Method = Callable[[Floats, np.random.Generator], list[Interval | None]]
"""Tells an interval for each of ``NAMES``; None where the method has none."""


def ours(latencies: Floats, random: np.random.Generator) -> list[Interval | None]:
    """Cluster Korn-Graubard-Woodruff and log rates, as trifront prints them."""
    return by_version(latencies, random, version=METHOD)


def by_version(
    latencies: Floats, random: np.random.Generator, *, version: int
) -> list[Interval | None]:
    """Do as a version of ours does, or did."""
    del random
    blocks = blocks_of(latencies)
    found = (
        *quantiles(blocks, LEVELS, method=version),
        mean_latency(blocks, method=version),
        throughput(timed_blocks(latencies), method=version),
    )
    return [ends_of(estimate) for estimate in found]


def order_statistics(latencies: Floats, random: np.random.Generator) -> list[Interval | None]:
    """Take requests for independent: binomial ranks, and t for the mean."""
    del random
    ordered = np.sort(latencies, axis=None)
    intervals: list[Interval | None] = []
    for level in LEVELS:
        low, high = (int(stats.binom.ppf(end, ordered.size, level)) for end in (0.025, 0.975))
        intervals.append((ordered[max(0, low - 1)], ordered[min(ordered.size - 1, high)]))
    return [*intervals, t_interval(ordered), None]


def bootstrap(latencies: Floats, random: np.random.Generator) -> list[Interval | None]:
    """Resample requests; percentile intervals."""
    flat = latencies.ravel()
    drawn = random.choice(flat, (BOOTSTRAP_DRAWS, flat.size))
    found = [*np.quantile(drawn, LEVELS, axis=1), drawn.mean(axis=1)]
    ends = [np.quantile(values, (0.025, 0.975)) for values in found]
    return [*((low, high) for low, high in ends), None]


def t_of_blocks(latencies: Floats, random: np.random.Generator) -> list[Interval | None]:
    """Take the mean of the blocks' percentiles, means and rates, and t over the blocks."""
    del random
    rates = [block.latencies_s.size / block.window_s for block in timed_blocks(latencies)]
    each = [*np.quantile(latencies, LEVELS, axis=1), latencies.mean(axis=1), np.array(rates)]
    return [t_interval(values) for values in each]


def early_stopping(latencies: Floats, random: np.random.Generator) -> list[Interval | None]:
    """MLPerf: the smallest order statistic that binomial counts put above the percentile."""
    del random
    ordered = np.sort(latencies, axis=None)
    highs = []
    for level in LEVELS:
        # as many requests above it as n independent ones stay below with a chance of 1 %
        above = int(stats.binom.ppf(0.01, ordered.size, 1 - level)) - 1
        highs.append(math.inf if above < 0 else ordered[ordered.size - 1 - above])
    return [*((-math.inf, high) for high in highs), None, None]


def t_interval(values: Floats) -> Interval:
    """Take values for independent and normal."""
    half = stats.t.ppf(0.975, values.size - 1) * values.std(ddof=1) / math.sqrt(values.size)
    return values.mean() - half, values.mean() + half


def ends_of(estimate: Estimate) -> Interval:
    """Return the ends of an interval, infinite where there are none."""
    low = -math.inf if estimate.low is None else estimate.low
    return low, math.inf if estimate.high is None else estimate.high


METHODS: dict[str, Method] = {
    "ours": ours,
    "ours, version 2": partial(by_version, version=2),
    "ours, version 1": partial(by_version, version=1),
    "order statistics": order_statistics,
    "bootstrap": bootstrap,
    "t of block percentiles": t_of_blocks,
    "MLPerf (upper, 99 %)": early_stopping,
}


def blocks_of(latencies: Floats) -> list[Block]:
    """Make blocks of one worker's closed loop."""
    return [
        Block(start_s=0.0, window_s=float(one.sum()), latencies_s=one, batch_size=1)
        for one in latencies
    ]


def timed_blocks(latencies: Floats) -> list[Block]:
    """Cut the same requests into blocks by the clock."""
    flat = latencies.ravel()
    ends_s = np.cumsum(flat)
    wanted_s = np.arange(1, len(latencies)) * ends_s[-1] / len(latencies)
    cuts = np.searchsorted(ends_s, wanted_s) + 1
    pieces = [piece for piece in np.split(flat, np.unique(cuts)) if piece.size]
    return [
        Block(start_s=0.0, window_s=float(one.sum()), latencies_s=one, batch_size=1)
        for one in pieces
    ]


def truths_of(process: Process, shape: Shape) -> list[float]:
    """Return what ``NAMES`` name for very many requests."""
    random = np.random.default_rng(2**32)
    rounds = math.ceil(TRUTH_REQUESTS / (shape.blocks * shape.requests))
    pooled = np.concatenate([process(random, shape).ravel() for _ in range(rounds)])
    mean = float(pooled.mean())
    return [*np.quantile(pooled, LEVELS), mean, 1 / mean]


def lines(repetitions: int, shape: Shape) -> Iterator[str]:
    """Run everything and write a line a process and percentile."""
    names = "  ".join(f"{name:>24s}" for name in METHODS)
    yield f"{'process':12s} {'':10s} {names}"
    for number, (process_name, process) in enumerate(PROCESSES.items()):
        found: dict[str, list[list[Interval | None]]] = {method: [] for method in METHODS}
        for repetition in range(repetitions):
            random = np.random.default_rng((number, repetition))
            latencies = process(random, shape)
            for method, intervals in METHODS.items():
                found[method].append(intervals(latencies, random))
        for at, truth in enumerate(truths_of(process, shape)):
            cells = (cell([each[at] for each in found[method]], truth) for method in METHODS)
            yield f"{process_name:12s} {NAMES[at]:10s} {'  '.join(cells)}"


def jumps(repetitions: int, shape: Shape) -> Iterator[str]:
    """Write how often a measurement is flagged as one whose level jumped."""
    for number, (name, process) in enumerate((PROCESSES | STEPS).items()):
        flagged = [
            has_level_shift(blocks_of(process(np.random.default_rng((number, each)), shape)))
            for each in range(repetitions)
        ]
        yield f"{name:24s} {np.mean(flagged):6.1%}"


def cell(found: list[Interval | None], truth: float) -> str:
    """Write coverage and relative width."""
    intervals = [interval for interval in found if interval is not None]
    if not intervals:
        return f"{'':24s}"
    covered = np.mean([low <= truth <= high for low, high in intervals])
    width = np.median([(high - low) / truth for low, high in intervals])
    text = f"{covered:6.1%}"
    return f"{f'{text} (±{width / 2:.1%})' if math.isfinite(width) else text:>24s}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--requests", type=int, default=250, help="of a block")
    arguments = parser.parse_args()
    shape = Shape(blocks=arguments.blocks, requests=arguments.requests)
    print(
        f"{arguments.repetitions} repetitions of {shape.blocks} blocks of {shape.requests} "
        f"requests; coverage of 95 % intervals (median half-width); load {os.getloadavg()[0]:.1f}"
    )
    for line in lines(arguments.repetitions, shape):
        print(line, flush=True)
    print("flagged as a jump of the level:")
    for line in jumps(arguments.repetitions, shape):
        print(line, flush=True)


if __name__ == "__main__":
    main()
