"""Two measurements against each other: how much they differ, and what that decides. Pure.

A difference that is smaller than the noise decides nothing, and so does a significant difference
that is too small to matter. So there is a margin, and four verdicts about the ratio new / old:

    equivalent   its 95 % interval lies within [1 / (1 + margin), 1 + margin]
    worse        its interval lies beyond the margin, on the bad side
    better       its interval lies beyond the margin, on the good side
    undecided    neither: measure for longer, or accept a wider margin

**Several metrics.** Whoever looks at six metrics finds a bad one by chance more often than whoever
looks at one. So *worse* and *better* are told with Holm's step-down rule: all of them together are
wrong in at most 5 % of comparisons. *All are equivalent* needs no such care, because a single
metric that is not equivalent refutes it (an intersection-union test).

**What the interval does not hold** is what changes between two sessions and not within one:
another neighbour on the host, another clock, another layout of memory. That is what a margin is
for.

References:
    Zou, G. and Donner, A. (2008), Construction of confidence limits about effect measures: a
        general approach. Statistics in Medicine 27, 1693-1702. The interval of a ratio or
        difference from the intervals of its two parts, which may be lopsided (MOVER).
    Newcombe, R. (1998), Interval estimation for the difference between independent proportions.
        Statistics in Medicine 17, 873-890. The same for two proportions, its method 10.
    Schuirmann, D. (1987), A comparison of the two one-sided tests procedure and the power approach
        for assessing the equivalence of average bioavailability. J. Pharmacokinetics and
        Biopharmaceutics 15, 657-680. Equivalence by an interval within a margin.
    Berger, R. (1982), Multiparameter hypothesis testing and acceptance sampling. Technometrics 24,
        295-300. The intersection-union test.
    Holm, S. (1979), A simple sequentially rejective multiple test procedure. Scandinavian J. of
        Statistics 6, 65-70.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Protocol

from search_spaces.metrics import METRICS, Direction
from trials.measurement import Block, Estimate
from trials.measuring.statistics import CONFIDENCE, mean_latency, quantiles, throughput

_MS_PER_S = 1e3


class Verdict(StrEnum):
    """What a comparison came to."""

    EQUIVALENT = "equivalent"
    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One metric of two measurements.

    Attributes:
        metric: Its name.
        new: What was measured now, in the metric's unit.
        old: What it is held against, likewise.
        ratio: new / old.
    """

    metric: str
    new: Estimate
    old: Estimate
    ratio: Estimate
    verdict: Verdict


class _Reader(Protocol):
    def __call__(self, blocks: Sequence[Block], *, confidence: float) -> Estimate: ...


class RatioAt(Protocol):
    """What estimates the ratio new / old of one metric."""

    def __call__(self, *, confidence: float) -> Estimate:
        """Return the ratio with its interval at a confidence in (0, 1)."""
        ...


def compare_speeds(
    new: Sequence[Block], old: Sequence[Block], metrics: Sequence[str], *, margin: float
) -> tuple[Compared, ...]:
    """Compare two independent sets of blocks, metric by metric.

    Swapping the two inverts every ratio, and turns *better* into *worse*.

    Args:
        new: In order of time.
        old: Likewise.
        metrics: Names out of :data:`SPEEDS`, each once.
        margin: Share of the old value that does not matter, > 0: 0.1 for 10 %.

    Raises:
        ValueError: No block, one without requests or length, or a margin that is not positive.
        KeyError: A metric that blocks do not tell.
    """
    ratio_at = {name: partial(_ratio, SPEEDS[name], new, old) for name in metrics}
    return tuple(
        Compared(
            metric=name,
            new=SPEEDS[name](new, confidence=CONFIDENCE),
            old=SPEEDS[name](old, confidence=CONFIDENCE),
            ratio=ratio,
            verdict=verdict,
        )
        for name, (ratio, verdict) in judged_ratios(ratio_at, margin=margin).items()
    )


def with_doubts(
    compared: Sequence[Compared], *, new_busy: bool, old_busy: bool
) -> tuple[Compared, ...]:
    """Take back verdicts that may be the doing of others on the machine.

    Who was disturbed looks slower than it is: *worse* may be that of the new, *better* that of the
    old, and *equivalent* may hide a difference where either was.

    Args:
        compared: Verdicts as the blocks give them.
        new_busy: Others took the processor while the new was measured.
        old_busy: Likewise of the old.
    """
    doubts = {
        Verdict.WORSE: new_busy,
        Verdict.BETTER: old_busy,
        Verdict.EQUIVALENT: new_busy or old_busy,
        Verdict.UNDECIDED: False,
    }
    return tuple(
        replace(one, verdict=Verdict.UNDECIDED) if doubts[one.verdict] else one for one in compared
    )


def judged_ratios(
    ratio_at: Mapping[str, RatioAt], *, margin: float, confidence: float = CONFIDENCE
) -> dict[str, tuple[Estimate, Verdict]]:
    """Judge the ratios of several metrics together, by Holm's rule.

    Args:
        ratio_at: By metric, what estimates new / old at a confidence.
        margin: Share of the old value that does not matter, > 0.
        confidence: Of all verdicts together, in (0, 1).

    Returns:
        By metric, in the same order, the ratio with its interval at ``confidence``, and what is
        decided of it.

    Raises:
        ValueError: A margin that is not positive.
    """
    if margin <= 0:
        raise ValueError(f"a margin of {margin} leaves nothing that could be equivalent")
    decided = _decided(ratio_at, margin, error=1 - confidence)
    judged = {}
    for name, read in ratio_at.items():
        ratio = read(confidence=confidence)
        equivalent = lies_within(ratio, 1 / (1 + margin), 1 + margin)
        verdict = Verdict.EQUIVALENT if equivalent else decided.get(name, Verdict.UNDECIDED)
        judged[name] = ratio, verdict
    return judged


def ratio_of(new: Estimate, old: Estimate) -> Estimate:
    """Estimate new / old of two independent positive estimates (MOVER on their logarithms).

    A limit is None where the limit that it rests on is.
    """
    below = above = None
    if new.low is not None and old.high is not None:
        below = math.hypot(math.log(new.value / new.low), math.log(old.high / old.value))
    if new.high is not None and old.low is not None:
        above = math.hypot(math.log(new.high / new.value), math.log(old.value / old.low))
    ratio = new.value / old.value
    return Estimate(
        value=ratio,
        low=None if below is None else ratio * math.exp(-below),
        high=None if above is None else ratio * math.exp(above),
    )


def difference_of(new: Estimate, old: Estimate) -> Estimate:
    """Estimate new - old of two independent estimates (MOVER; Newcombe's for proportions).

    A limit is None where the limit that it rests on is.
    """
    below = above = None
    if new.low is not None and old.high is not None:
        below = math.hypot(new.value - new.low, old.high - old.value)
    if new.high is not None and old.low is not None:
        above = math.hypot(new.high - new.value, old.value - old.low)
    difference = new.value - old.value
    return Estimate(
        value=difference,
        low=None if below is None else difference - below,
        high=None if above is None else difference + above,
    )


def verdict_on_difference(difference: Estimate, direction: Direction, *, margin: float) -> Verdict:
    """Say what the interval of a single difference new - old decides.

    Args:
        difference: Of a metric on a linear scale.
        direction: Which way that metric is better.
        margin: Difference that does not matter, > 0.
    """
    if lies_within(difference, -margin, margin):
        return Verdict.EQUIVALENT
    return _beyond(difference, -margin, margin, direction) or Verdict.UNDECIDED


def lies_within(estimate: Estimate, low: float, high: float) -> bool:
    """Tell whether the whole interval lies within the two limits."""
    if estimate.low is None or estimate.high is None:
        return False
    return low <= estimate.low and estimate.high <= high


def _quantile_ms(blocks: Sequence[Block], *, confidence: float, p: float) -> Estimate:
    return quantiles(blocks, (p,), confidence=confidence)[0].scaled(_MS_PER_S)


def _mean_ms(blocks: Sequence[Block], *, confidence: float) -> Estimate:
    return mean_latency(blocks, confidence=confidence).scaled(_MS_PER_S)


SPEEDS: Mapping[str, _Reader] = {
    "latency_mean_ms": _mean_ms,
    "latency_p50_ms": partial(_quantile_ms, p=0.5),
    "latency_p90_ms": partial(_quantile_ms, p=0.9),
    "latency_p99_ms": partial(_quantile_ms, p=0.99),
    "latency_p999_ms": partial(_quantile_ms, p=0.999),
    "throughput_sps": throughput,
}
"""The metrics that blocks tell, and what reads them, in the metric's unit."""


def _ratio(
    read: _Reader, new: Sequence[Block], old: Sequence[Block], *, confidence: float
) -> Estimate:
    return ratio_of(read(new, confidence=confidence), read(old, confidence=confidence))


def _decided(
    ratio_at: Mapping[str, RatioAt], margin: float, *, error: float
) -> dict[str, Verdict]:
    """Find the metrics that are beyond the margin, by Holm's rule.

    With k metrics left, each is held against an interval of 1 - error / k. Those that are beyond
    the margin are decided, and the fewer that are left have narrower intervals.
    """
    left = set(ratio_at)
    decided: dict[str, Verdict] = {}
    while left:
        confidence = 1 - error / len(left)
        found = {
            name: _beyond(
                ratio_at[name](confidence=confidence),
                1 / (1 + margin),
                1 + margin,
                METRICS[name].direction,
            )
            for name in left
        }
        news = {name: verdict for name, verdict in found.items() if verdict is not None}
        if not news:
            break
        decided |= news
        left -= news.keys()
    return decided


def _beyond(estimate: Estimate, low: float, high: float, direction: Direction) -> Verdict | None:
    """Say on which side of both limits the whole interval lies; None where it does not."""
    higher = estimate.low is not None and estimate.low > high
    lower = estimate.high is not None and estimate.high < low
    if not higher and not lower:
        return None
    return Verdict.BETTER if higher == (direction is Direction.MAXIMIZE) else Verdict.WORSE
