"""Two engines that were measured in turns: their ratio from neighbouring blocks. Pure.

Neighbouring blocks meet the same machine, so what the machine does to both cancels in their ratio,
be it a slow clock, a neighbour or a warm afternoon. A comparison of two sets of blocks that were
measured one after the other takes all of that for a difference of the engines (``comparison``
does so with a margin, where nothing better is to be had).

The unit is the log ratio of a pair. Its centre is the Hodges-Lehmann estimate, the median of the
means of all pairs of units, with the limits of Wilcoxon's signed ranks:

* Where nothing differs, swapping the names of the two changes nothing, so log ratios are symmetric
  around 0 whatever their distribution, and the interval misses 0 as seldom as it says, with six
  units as with a thousand. No t distribution promises that when a neighbour hits one block of 20.
* One pair that was hit by a neighbour moves it hardly at all.

A percentile needs requests above it. Neighbouring pairs are joined until each side of a unit has
twice as many requests as one request above the percentile asks for: 200 for a p99. Of the side
that has more, as with smaller batches or more at once, as many are taken as of the other.

References:
    Kalibera, T. and Jones, R. (2013), Rigorous benchmarking in reasonable time. ISMM, 63-74. Why
        ratios, and why runs that are not one after the other.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from trials.measurement import Block, Estimate
from trials.measuring.comparison import SPEEDS, Compared, judged_ratios
from trials.measuring.ranks import exponential, signed_rank_centre
from trials.measuring.statistics import CONFIDENCE, order_statistic

_LEVELS = {
    "latency_p50_ms": 0.5,
    "latency_p90_ms": 0.9,
    "latency_p99_ms": 0.99,
    "latency_p999_ms": 0.999,
}
_ABOVE = 2.0  # requests above a percentile, of each side of a unit


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPair:
    """Two neighbouring blocks of two engines; which came first changes from pair to pair."""

    new: Block
    old: Block


def compare_pairs(
    pairs: Sequence[BlockPair],
    metrics: Sequence[str],
    *,
    margin: float,
    confidence: float = CONFIDENCE,
) -> tuple[Compared, ...]:
    """Compare two engines that were measured in turns, metric by metric.

    Swapping the two inverts every ratio, and turns *better* into *worse*.

    Args:
        pairs: In order of time.
        metrics: Names of speeds, each once.
        margin: Share of the old value that does not matter, > 0.
        confidence: Of the ratios and of all verdicts together, in (0, 1); whoever looks several
            times asks for more at each look.

    Returns:
        The verdicts; the two sides' own intervals are of 95 %, and wider than what the ratio
        rests on.

    Raises:
        ValueError: No pair, a block without requests or length, or a margin that is not positive.
        KeyError: A metric that blocks do not tell.
    """
    new, old = [pair.new for pair in pairs], [pair.old for pair in pairs]
    ratio_at = {name: partial(paired_ratio, pairs, name) for name in metrics}
    return tuple(
        Compared(
            metric=name,
            new=SPEEDS[name](new, confidence=CONFIDENCE),
            old=SPEEDS[name](old, confidence=CONFIDENCE),
            ratio=ratio,
            verdict=verdict,
        )
        for name, (ratio, verdict) in judged_ratios(
            ratio_at, margin=margin, confidence=confidence
        ).items()
    )


def paired_ratio(pairs: Sequence[BlockPair], metric: str, *, confidence: float) -> Estimate:
    """Estimate new / old of one speed from neighbouring blocks.

    Limits are None where there are too few units: fewer than six at 95 %.

    Args:
        pairs: In order of time, at least one.
        metric: Name of a speed.
        confidence: In (0, 1).

    Raises:
        ValueError: No pair, or a block without requests or length.
        KeyError: A metric that blocks do not tell.
    """
    if not pairs:
        raise ValueError("no pair of blocks, there is no ratio")
    logs = np.array([_log_ratio(unit, metric) for unit in _units(pairs, metric)])
    return exponential(signed_rank_centre(logs, confidence=confidence))


def _units(pairs: Sequence[BlockPair], metric: str) -> Iterator[Sequence[BlockPair]]:
    """Join neighbouring pairs until each side has enough requests; a short rest joins the last."""
    needed = _ABOVE / (1 - _LEVELS.get(metric, 0.0))
    units: list[list[BlockPair]] = [[]]
    for pair in pairs:
        if units[-1] and _requests(units[-1]) >= needed - 1e-9:
            units.append([])
        units[-1].append(pair)
    if len(units) > 1 and _requests(units[-1]) < needed - 1e-9:
        rest = units.pop()
        units[-1] += rest
    yield from units


def _requests(unit: Sequence[BlockPair]) -> int:
    return min(
        sum(pair.new.latencies_s.size for pair in unit),
        sum(pair.old.latencies_s.size for pair in unit),
    )


def _log_ratio(unit: Sequence[BlockPair], metric: str) -> float:
    requests = _requests(unit)
    new = _reading([pair.new for pair in unit], metric, requests=requests)
    old = _reading([pair.old for pair in unit], metric, requests=requests)
    if new <= 0 or old <= 0:
        raise ValueError(f"a block without requests or length has no {metric}")
    return math.log(new / old)


def _reading(blocks: Sequence[Block], metric: str, *, requests: int) -> float:
    """Read one speed off blocks; a unit without meaning, because ratios have none.

    Percentiles are taken of ``requests`` of them, spread evenly: of few requests a percentile is
    biased, which cancels in a ratio only where both sides have equally many.
    """
    pooled = np.concatenate([block.latencies_s for block in blocks])
    if metric == "throughput_sps":
        samples = sum(block.latencies_s.size * block.batch_size for block in blocks)
        window_s = sum(block.window_s for block in blocks)
        return samples / window_s if window_s > 0 else 0.0
    if pooled.size == 0:
        return 0.0
    if metric == "latency_mean_ms":
        return float(pooled.mean())
    chosen = np.arange(requests) * pooled.size // requests
    return order_statistic(np.sort(pooled[chosen]), _LEVELS[metric])
