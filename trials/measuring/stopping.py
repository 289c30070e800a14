"""When a deployment has been measured well enough.

Looking after every block and stopping at the first narrow interval would stop on lucky ones, so
the blocks are looked at seldom, at counts that grow by a quarter. Everything here is pure.
"""

from collections.abc import Sequence

from search_spaces.space import MeasuringPlan
from trials.measurement import Block, Estimate
from trials.measuring.spread import METHOD
from trials.measuring.statistics import quantiles, throughput

# with fewer blocks, and drift, the 95 % interval of a p99 covered the truth in 67-70 % of cases
P99_BLOCKS = 20


def next_look(blocks: int) -> int:
    """Return the count of the look after ``blocks``: 8, 10, 13, 17, 22 and so on."""
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


def _within(estimate: Estimate, target: float) -> bool:
    if estimate.low is None or estimate.high is None:
        return False
    return estimate.high - estimate.low <= 2 * target * estimate.value
