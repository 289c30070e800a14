"""The centre of symmetric values by their ranks: robust, and exact for any distribution. Pure.

References:
    Hodges, J. and Lehmann, E. (1963), Estimates of location based on rank tests. Ann. Math.
        Statist. 34, 598-611.
    Hollander, M., Wolfe, D. and Chicken, E. (2013), Nonparametric Statistical Methods, 3rd ed.,
        section 3.3. The interval.
"""

import math
from functools import cache

import numpy as np

from trials.measurement import Estimate, Seconds

_MOST_EXACT = 60  # values; from there on the normal approximation is as good to four digits


def signed_rank_centre(values: Seconds, *, confidence: float) -> Estimate:
    """Estimate the centre of symmetric values (Hodges-Lehmann, limits of Wilcoxon's ranks).

    Args:
        values: Shape ``(values,)``, at least one.
        confidence: In (0, 1).

    Returns:
        Limits are None where so few values cannot give them.
    """
    count = values.size
    rows, columns = np.triu_indices(count)
    means = np.sort((values[rows] + values[columns]) / 2)
    left_out = _left_out(count, 1 - confidence)
    value = float(np.median(means))
    if left_out < 1:
        return Estimate(value=value, low=None, high=None)
    return Estimate(value=value, low=float(means[left_out - 1]), high=float(means[-left_out]))


def exponential(logs: Estimate) -> Estimate:
    """Bring an estimate of a logarithm back to its own scale."""
    return Estimate(
        value=math.exp(logs.value),
        low=None if logs.low is None else math.exp(logs.low),
        high=None if logs.high is None else math.exp(logs.high),
    )


@cache
def _left_out(count: int, error: float) -> int:
    """Say how many means of pairs lie outside each limit, plus one; 0 where there is no limit."""
    from scipy.special import ndtri

    if count > _MOST_EXACT:
        mean = count * (count + 1) / 4
        spread = math.sqrt(count * (count + 1) * (2 * count + 1) / 24)
        return max(0, math.floor(mean + float(ndtri(error / 2)) * spread))
    # how many subsets of the ranks 1..count have each sum: the null distribution
    ways = np.ones(1)
    for rank in range(1, count + 1):
        ways = np.pad(ways, (0, rank)) + np.pad(ways, (rank, 0))
    shares = np.cumsum(ways / 2.0**count)
    return int(np.searchsorted(shares, error / 2, side="right"))
