"""When a deployment has been measured well enough.

Looking after every block and stopping at the first narrow interval would stop on lucky ones, so
the blocks are looked at seldom: at counts that grow by a quarter while little is known, and by a
twelfth from block 20 on, where a longer step would be time spent for nothing. Everything here is
pure.

A measurement may also end because there is nothing left to decide: its deployment misses a bound
for certain, so that no narrower interval would bring it back. Whoever looks k times has k chances
to be wrong, so the k-th look spends 5 % / (k (k + 1)) of error and no more: all looks together, be
they ever so many, spend the 5 % of a single interval, and half of that on the side on which a miss
is called (``scripts/simulate_stopping.py``). While others take the processor nothing is decided by
speed.

References:
    Pocock, S. (1977), Group sequential methods in the design and analysis of clinical trials.
        Biometrika 64, 191-199; Lan, K. and DeMets, D. (1983), Discrete sequential boundaries for
        clinical trials. Biometrika 70, 659-663: spending an error over looks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from search_spaces.space import Constraint, MeasuringPlan
from trials.measurement import Block, Estimate
from trials.measuring.comparison import SPEEDS
from trials.measuring.spread import METHOD
from trials.measuring.statistics import CONFIDENCE, quantiles, throughput

# with fewer blocks, and drift, the 95 % interval of a p99 covered the truth in 67-70 % of cases
P99_BLOCKS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a search wants to know of a deployment: whether it may be chosen at all.

    Attributes:
        bounds: What it must meet.
        is_out: It misses one for certain by what was known before it was driven.
    """

    bounds: tuple[Constraint, ...]
    is_out: bool

    def answered(self, blocks: Sequence[Block], look: int, *, disturbed: bool = False) -> bool:
        """Tell at the ``look``-th look whether more blocks would change nothing.

        Args:
            blocks: In order of time.
            look: How often this was asked of this measurement, this time included.
            disturbed: Others took the processor, so that it looks slower than it is.
        """
        if self.is_out or disturbed:
            return self.is_out
        return is_decided(blocks, self.bounds, look=look)


def next_look(blocks: int) -> int:
    """Return the count of the look after ``blocks``: 8, 10, 13, 17, 20, 22, 24 and so on."""
    if blocks < P99_BLOCKS:
        return min(P99_BLOCKS, quarter_more(blocks))
    return -(-blocks * 13 // 12)


def quarter_more(blocks: int) -> int:
    """Return the count of the look after ``blocks`` where looks are dear: 20, 25, 32 and so on."""
    return -(-blocks * 5 // 4)


def targets_met(blocks: Sequence[Block], plan: MeasuringPlan, *, method: int = METHOD) -> bool:
    """Tell whether every interval is as narrow as the plan asks.

    A p99 is not believed before block 20, however narrow its interval.

    Args:
        blocks: In order of time.
        plan: What it asks.
        method: Version of the formulas of the intervals.

    Raises:
        ValueError: No block, or one without requests or length.
    """
    if len(blocks) < P99_BLOCKS:
        return False
    p50, p99 = quantiles(blocks, (0.5, 0.99), method=method)
    return (
        _within(p50, plan.target_p50)
        and _within(p99, plan.target_p99)
        and _within(throughput(blocks, method=method), plan.target_throughput)
    )


def misses(estimate: Estimate, bound: Constraint) -> bool:
    """Tell whether a metric misses a bound with the better end of its interval too."""
    best = estimate.low if bound.upper else estimate.high
    return best is not None and bound.violation(best) > 0


def confidence_at(look: int) -> float:
    """Return the confidence of the intervals that the ``look``-th look decides by; from 1."""
    return 1 - (1 - CONFIDENCE) / (look * (look + 1))


def is_decided(blocks: Sequence[Block], bounds: Iterable[Constraint], *, look: int) -> bool:
    """Tell whether a bound of speed is missed for certain, so that more blocks change nothing.

    Args:
        blocks: In order of time.
        bounds: What a deployment must meet; those of other things than speed are passed over.
        look: How often this was asked of this measurement, this time included.

    Raises:
        ValueError: No block, or one without requests or length.
    """
    confidence = confidence_at(look)
    return any(
        misses(SPEEDS[bound.metric.name](blocks, confidence=confidence), bound)
        for bound in bounds
        if bound.metric.name in SPEEDS
    )


def _within(estimate: Estimate, target: float) -> bool:
    if estimate.low is None or estimate.high is None:
        return False
    return estimate.high - estimate.low <= 2 * target * estimate.value
