"""How far the mean of the blocks' values may be from the truth: the versions of our formulas.

Every interval of a speed rests on the spread between blocks. What that spread means for their mean
is said here, once for quantiles, means and rates. A record names the version that made its numbers
(``Speed.method``), and every version stays callable, so that old numbers can be computed again to
the last digit. A version is never changed; what is found better becomes the next one.

1. Geyer's autocorrelation time, and as many degrees of freedom as independent blocks are left.
2. Twenty blocks show a slow wandering only in part: the autocorrelation time is at least that of
   an AR(1) whose coefficient is rid of its bias. Where a few blocks carry the spread, as in
   bursts, the spread itself is uncertain (kurtosis: fewer degrees of freedom), and a sample that
   happened to hold few bursts looks both too fast and too sure (skewness: the limit on that side
   moves out).
3. A state that shows in one block, or in two, may as well have shown in four more (rule of three):
   the limit on the side of the outermost block moves out by as much as that would move the mean.
   Only what makes this block stand out counts: of twenty normal ones, too, one is outermost.

Sums here are exactly rounded (``fsum``): the last digit of those of a linear-algebra library
depends on the kernels that it picks for a processor, and so it did under the first version until
there was a second.

What each version covers is simulated in ``scripts/simulate_intervals.py`` and told in
``docs/measuring.md``.

References:
    Geyer, C. (1992), Practical Markov chain Monte Carlo. Statistical Science 7, 473-483.
    Marriott, F. and Pope, J. (1954), Bias in the estimation of autocorrelations. Biometrika 41,
        390-402; Kendall, M. (1954), note on it, 403-404.
    Satterthwaite, F. (1946), An approximate distribution of estimates of variance components.
        Biometrics Bulletin 2, 110-114; the variance of a variance by the kurtosis: O'Neill, B.
        (2014), Some useful moment results in sampling problems. Am. Statistician 68, 282-296.
    Johnson, N. (1978), Modified t tests and confidence intervals for asymmetrical populations.
        JASA 73, 536-544; Hall, P. (1992), On the removal of skewness by transformation. J. R.
        Statist. Soc. B 54, 221-228.
    Hanley, J. and Lippman-Hand, A. (1983), If nothing goes wrong, is everything all right? JAMA
        249, 1743-1745: the rule of three; Blom, G. (1958), Statistical estimates and transformed
        beta-variables: how far the outermost of some normal values lies.
    Joanes, D. and Gill, C. (1998), Comparing measures of sample skewness and kurtosis. The
        Statistician 47, 183-189: G1 and G2.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TypeAlias

from trials.measurement import Seconds

# log-rates closer than 1e-10 are equal: a nanosecond clock resolves 1e-8 of a 0.1-s block
EQUAL_VARIANCE = 1e-20

_LEAST_DEGREES = 3.0  # below, t reaches so far that an interval says nothing
_BLOCKS_FOR_BIAS = 9  # with fewer, the correction itself is wilder than what it corrects
_HIGHEST_MEMORY = 0.95  # of the AR(1); more cannot be told from a drift
# of the blocks: without it one interval in ten was thrice as wide as the median, for 0.2 points
_LONGEST_SHARE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """What the values of the blocks tell of the error of their weighted mean.

    Attributes:
        variance: Of the mean, dependence between blocks included.
        degrees: Degrees of freedom of that variance, which may come out as low as 0.
        skewness: Of the mean; above 0 where it is more often far too low than far too high.
        rare: What one more block like the outermost, on the side of the long tail, would add to
            the distance of the mean from the others, >= 0.
    """

    variance: float
    degrees: float
    skewness: float
    rare: float = 0.0


Spreading: TypeAlias = Callable[[Seconds, Seconds], Spread]
"""Takes the values of at least three blocks, in order of time, and their weights of sum 1."""


def autocorrelation_time(values: Seconds) -> float:
    """Say how many successive values count as one independent value; >= 1.

    Sum of the autocorrelations over Geyer's initial positive sequence. The same read backwards.

    Args:
        values: Shape ``(values,)`` in order of time.
    """
    deviations = values - _mean(values)
    power = _dot(deviations, deviations)
    if power <= EQUAL_VARIANCE * values.size:
        return 1.0
    positive = 0.0
    for lag in range(0, values.size - 1, 2):
        even = _dot(deviations[: values.size - lag], deviations[lag:])
        odd = _dot(deviations[: values.size - lag - 1], deviations[lag + 1 :])
        if even + odd <= 0:
            break
        positive += (even + odd) / power
    return max(1.0, 2.0 * positive - 1.0)


def remembered_time(values: Seconds) -> float:
    """Say the same by an AR(1), whose coefficient is rid of its bias (Kendall); >= 1.

    Args:
        values: Shape ``(values,)`` in order of time.
    """
    deviations = values - _mean(values)
    power = _dot(deviations, deviations)
    if power <= EQUAL_VARIANCE * values.size:
        return 1.0
    memory = _dot(deviations[:-1], deviations[1:]) / power
    if values.size >= _BLOCKS_FOR_BIAS:
        memory = (values.size * memory + 1) / (values.size - 4)
    memory = min(_HIGHEST_MEMORY, memory)
    return max(1.0, (1 + memory) / (1 - memory))


def _spread_1(values: Seconds, weights: Seconds) -> Spread:
    tau = autocorrelation_time(values)
    variance = _variance(values, weights, tau)
    return Spread(variance=variance, degrees=values.size / tau - 1, skewness=0.0)


def _spread_2(values: Seconds, weights: Seconds) -> Spread:
    remembered = min(remembered_time(values), _LONGEST_SHARE * values.size)
    tau = max(autocorrelation_time(values), remembered)
    independent = values.size / tau
    skewness, kurtosis = _shape(values)
    doubt = 2 / max(1.0, independent - 1) + max(0.0, kurtosis) / independent
    return Spread(
        variance=_variance(values, weights, tau),
        degrees=max(_LEAST_DEGREES, 2 / doubt),
        skewness=skewness / math.sqrt(independent),
    )


def _spread_3(values: Seconds, weights: Seconds) -> Spread:
    spread = _spread_2(values, weights)
    return replace(spread, rare=_rare(values, weights, upwards=spread.skewness > 0))


METHODS: Mapping[int, Spreading] = {1: _spread_1, 2: _spread_2, 3: _spread_3}
"""Every version of the formulas that a record may name."""

METHOD = 3
"""The version that new records are made with."""


def _variance(values: Seconds, weights: Seconds, tau: float) -> float:
    """Return the variance of the weighted mean of values that remember each other."""
    count = values.size
    deviations = weights * (values - _dot(weights, values))
    spread = count / (count - 1) * _dot(deviations, deviations)
    # the denominator mends the bias of a variance around the mean of dependent values
    return spread * tau / (1 - min(0.5, tau / count))


def _rare(values: Seconds, weights: Seconds, *, upwards: bool) -> float:
    """Return what the outermost block on one side stands out by, times its weight."""
    count = values.size
    deviations = values - _dot(weights, values)
    outermost = int(deviations.argmax() if upwards else deviations.argmin())
    scatter = math.sqrt(_dot(deviations, deviations) / (count - 1))
    usual = NormalDist().inv_cdf((count - 0.375) / (count + 0.25)) * scatter
    return float(weights[outermost]) * max(0.0, abs(float(deviations[outermost])) - usual)


def _shape(values: Seconds) -> tuple[float, float]:
    """Return the skewness G1 and the excess kurtosis G2; 0 where there is none to be told."""
    count = values.size
    deviations = values - _mean(values)
    squares = deviations * deviations
    second = _mean(squares)
    if second <= EQUAL_VARIANCE:
        return 0.0, 0.0
    skewness = _mean(squares * deviations) / (second * math.sqrt(second))
    skewness *= math.sqrt(count * (count - 1)) / (count - 2)
    if count == 3:  # noqa: PLR2004 - G2 divides by count - 3
        return skewness, 0.0
    excess = _mean(squares * squares) / (second * second) - 3
    factor = (count - 1) / ((count - 2) * (count - 3))
    return skewness, factor * ((count + 1) * excess + 6)


def _mean(values: Seconds) -> float:
    return math.fsum(values.tolist()) / values.size


def _dot(left: Seconds, right: Seconds) -> float:
    return math.fsum((left * right).tolist())
