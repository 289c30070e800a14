"""From raw samples to numbers with 95 % intervals. Pure: no clock, no state, no chance.

The atom is the block, not the request: requests of one block share the state of the machine, and
intervals that take them for independent cover the truth in as little as 5-45 % of cases. So every
interval of a speed here rests on the spread *between* blocks, as ``spread`` reads it. Percentiles
are taken over all raw samples, never of percentiles.

When to stop measuring is decided in ``stopping``, what is steady in ``steadiness``; who produces
blocks is ``load``.

References:
    Korn, E. and Graubard, B. (1998), Confidence intervals for proportions with small expected
        number of positive counts estimated from survey data. Survey Methodology 24, 193-201.
    Woodruff, R. (1952), Confidence intervals for medians. JASA 47, 635-646.
    Johnson, N. (1978), Modified t tests and confidence intervals for asymmetrical populations.
        JASA 73, 536-544.
    Wilson, E. (1927), Probable inference. JASA 22, 209-212.
"""

import math
from collections.abc import Sequence

import numpy as np

from trials.measurement import Block, Estimate, Seconds, Speed
from trials.measuring.spread import EQUAL_VARIANCE, METHOD, METHODS, Spread, Spreading

MIN_BLOCKS = 3  # with fewer, a spread between blocks is no more than a guess

CONFIDENCE = 0.95  # of every interval, unless a comparison of several asks for more

_Z = 1.959963984540054  # normal quantile at 0.975
_FURTHEST = math.log(1e3)  # a limit more than a thousandfold away is no limit
# beyond, the last few samples decide, and a limit moved outwards is mostly no limit
_BODY = (0.05, 0.95)
_TAIL = 0.99


def quantile(blocks: Sequence[Block], p: float) -> Estimate:
    """Estimate the latency, in seconds, that a share ``p`` of requests does not exceed.

    Cluster Korn-Graubard-Woodruff; the blocks are the clusters.

    Args:
        blocks: In order of time; with fewer than three there are no limits.
        p: In (0, 1).

    Returns:
        An order statistic of all samples. The upper limit is None where it would lie beyond the
        last sample but one ("unbounded: not enough data"), the lower one where it would lie before
        the first.

    Raises:
        ValueError: No block, a block without requests, or ``p`` outside (0, 1).
    """
    return quantiles(blocks, (p,))[0]


def quantiles(
    blocks: Sequence[Block],
    levels: Sequence[float],
    *,
    confidence: float = CONFIDENCE,
    method: int = METHOD,
) -> tuple[Estimate, ...]:
    """Estimate several quantiles as :func:`quantile` does, sorting the samples once.

    Args:
        blocks: In order of time.
        levels: Each in (0, 1).
        confidence: Of the intervals, in (0, 1).
        method: Version of the formulas, out of ``spread.METHODS``.

    Raises:
        ValueError: As for :func:`quantile`.
    """
    _refuse_empty(blocks)
    if not all(0 < p < 1 for p in levels):
        raise ValueError(f"quantile levels {tuple(levels)} are not all inside (0, 1)")
    pooled = np.sort(np.concatenate([block.latencies_s for block in blocks]))
    spreading = METHODS[method]
    return tuple(
        _quantile(blocks, pooled, p, confidence=confidence, spreading=spreading) for p in levels
    )


def order_statistic(ordered: Seconds, p: float) -> float:
    """Return the least value that a share ``p`` of all does not exceed: rank ⌈np⌉.

    Args:
        ordered: Ascending, shape ``(values,)``, at least one.
        p: In (0, 1).
    """
    # 1e-9: 0.07 * 100 is 7.000000000000001, whose ceiling is not meant
    rank = min(ordered.size, max(1, math.ceil(ordered.size * p - 1e-9)))
    return float(ordered[rank - 1])


def mean_latency(
    blocks: Sequence[Block], *, confidence: float = CONFIDENCE, method: int = METHOD
) -> Estimate:
    """Estimate the mean latency of all requests, in seconds.

    Args:
        blocks: In order of time.
        confidence: Of the interval, in (0, 1).
        method: Version of the formulas, out of ``spread.METHODS``.

    Raises:
        ValueError: No block, a block without requests, or one without length.
    """
    _refuse_empty(blocks)
    requests = np.array([block.latencies_s.size for block in blocks], dtype=np.float64)
    totals_s = np.array([block.latencies_s.sum() for block in blocks])
    return _ratio(blocks, totals_s, requests, confidence=confidence, spreading=METHODS[method])


def throughput(
    blocks: Sequence[Block], *, confidence: float = CONFIDENCE, method: int = METHOD
) -> Estimate:
    """Estimate the rate of work over all blocks, in samples/s.

    Args:
        blocks: In order of time.
        confidence: Of the interval, in (0, 1).
        method: Version of the formulas, out of ``spread.METHODS``.

    Raises:
        ValueError: No block, a block without requests, or one without length.
    """
    _refuse_empty(blocks)
    samples = np.array(
        [block.latencies_s.size * block.batch_size for block in blocks], dtype=np.float64
    )
    windows_s = np.array([block.window_s for block in blocks])
    return _ratio(blocks, samples, windows_s, confidence=confidence, spreading=METHODS[method])


def summarize(blocks: Sequence[Block], *, target_met: bool, method: int = METHOD) -> Speed:
    """Reduce the blocks of one deployment to the numbers that are optimized.

    Args:
        blocks: In order of time.
        target_met: Whether the intervals became as narrow as was asked for.
        method: Version of the formulas, out of ``spread.METHODS``.

    Raises:
        ValueError: No block, a block without requests, or one without length.
        KeyError: A version that there is not.
    """
    p50, p90, p99, p999 = quantiles(blocks, (0.5, 0.9, 0.99, 0.999), method=method)
    return Speed(
        latency_mean_s=mean_latency(blocks, method=method),
        latency_p50_s=p50,
        latency_p90_s=p90,
        latency_p99_s=p99,
        latency_p999_s=p999,
        throughput_sps=throughput(blocks, method=method),
        requests=sum(block.latencies_s.size for block in blocks),
        blocks=len(blocks),
        target_met=target_met,
        method=method,
    )


def proportion(successes: int, n: int) -> Estimate:
    """Estimate a probability from independent yes-or-no samples (Wilson).

    Raises:
        ValueError: ``n`` < 1, or ``successes`` outside 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} samples are no proportion")
    value = successes / n
    shrink = 1 / (1 + _Z**2 / n)
    centre = (value + _Z**2 / (2 * n)) * shrink
    half = _Z * math.sqrt(value * (1 - value) / n + _Z**2 / (4 * n**2)) * shrink
    # where all or none succeed a limit equals the value, up to rounding
    return Estimate(
        value=value,
        low=max(0.0, min(value, centre - half)),
        high=min(1.0, max(value, centre + half)),
    )


def mean_score(values: Sequence[float] | Seconds) -> Estimate:
    """Estimate the mean of independent per-sample scores.

    Scores that are all exactly 0 or 1 are counted (Wilson); others get a t interval, which a
    single score or scores that do not vary cannot give.

    Args:
        values: Shape ``(samples,)``, at least one, finite.

    Raises:
        ValueError: No score, or one that is not finite.
    """
    scores = np.asarray(values, dtype=np.float64)
    if scores.size == 0 or not np.isfinite(scores).all():
        raise ValueError(f"{scores.size} scores, not all of them finite: there is no mean")
    if np.isin(scores, (0.0, 1.0)).all():
        return proportion(int(scores.sum()), scores.size)
    value = float(scores.mean())
    if scores.size == 1 or np.ptp(scores) == 0:
        return Estimate(value=value, low=None, high=None)
    half = _t(scores.size - 1, CONFIDENCE) * float(scores.std(ddof=1)) / math.sqrt(scores.size)
    return Estimate(value=value, low=value - half, high=value + half)


def _quantile(
    blocks: Sequence[Block],
    pooled: Seconds,
    p: float,
    *,
    confidence: float,
    spreading: Spreading,
) -> Estimate:
    n = pooled.size
    value = order_statistic(pooled, p)
    if len(blocks) < MIN_BLOCKS:
        return Estimate(value=value, low=None, high=None)
    spread = _spread_below(blocks, value, spreading)
    share_low, share_high = _shares(spread, p, requests=n, confidence=confidence)
    if spread.skewness < 0 and _BODY[0] <= p <= _BODY[1]:
        # moved outwards it may lie beyond any sample; it need not lie beyond that of a p99
        tail = _spread_below(blocks, order_statistic(pooled, _TAIL), spreading)
        share_high = min(share_high, _shares(tail, _TAIL, requests=n, confidence=confidence)[1])
    low, high = math.floor(n * share_low), n * share_high
    return Estimate(
        value=value,
        low=float(pooled[low - 1]) if low >= 1 else None,
        high=float(pooled[math.ceil(high) - 1]) if high <= n - 1 else None,
    )


def _spread_below(blocks: Sequence[Block], value: float, spreading: Spreading) -> Spread:
    """Read the spread between blocks of the share of requests that do not exceed a latency."""
    sizes = np.array([block.latencies_s.size for block in blocks])
    below = np.array([np.count_nonzero(block.latencies_s <= value) for block in blocks])
    return spreading(below / sizes, sizes / sizes.sum())


def _shares(spread: Spread, p: float, *, requests: int, confidence: float) -> tuple[float, float]:
    """Return the shares of samples below which the limits of a quantile lie (Woodruff).

    They are those of a binomial proportion of as many independent requests as would spread like
    the blocks do (Korn and Graubard).
    """
    from scipy.special import betaincinv

    # equal blocks say nothing against independent requests, of which there are n and no more
    effective = requests if spread.variance == 0 else min(requests, p * (1 - p) / spread.variance)
    reach = _t(max(3.0, spread.degrees), confidence)
    effective *= min(1.0, (_t(requests - 1, confidence) / reach) ** 2)
    failures = effective * (1 - p)
    tail = (1 - confidence) / 2
    low = float(betaincinv(effective * p, failures + 1, tail))
    high = float(betaincinv(effective * p + 1, failures, 1 - tail))
    if not _BODY[0] <= p <= _BODY[1]:
        return low, high
    # a sample that lacks slow requests has too large a share below the true quantile: mirrored
    unseen = spread.rare * _unseen(confidence)
    if spread.skewness > 0:
        low = max(0.0, p - (p - low) * _stretch(spread, reach) - unseen)
    if spread.skewness < 0:
        high = min(1.0, p + (high - p) * _stretch(spread, reach) + unseen)
    return low, high


def _ratio(
    blocks: Sequence[Block],
    totals: Seconds,
    bases: Seconds,
    *,
    confidence: float,
    spreading: Spreading,
) -> Estimate:
    """Estimate sum(totals) / sum(bases) with a t interval on the log rates of the blocks.

    Pooling weighs a block by its base: a mean of the blocks' own rates would be biased where
    blocks are short (see ``closed_loop`` on Wald's identity).
    """
    if not (np.all(totals > 0) and np.all(bases > 0)):
        raise ValueError("a block of no length, or with latencies of zero, has no rate")
    value = float(totals.sum() / bases.sum())
    if len(blocks) < MIN_BLOCKS:
        return Estimate(value=value, low=None, high=None)
    # numpy's logarithm has other last digits on other processors
    rates = np.array([math.log(rate) for rate in (totals / bases).tolist()])
    spread = spreading(rates, bases / bases.sum())
    variance = spread.variance
    if variance <= EQUAL_VARIANCE:
        # equal blocks cannot tell their spread; their requests can, if they are independent
        pooled = np.concatenate([block.latencies_s for block in blocks])
        variance = float((pooled.std() / pooled.mean()) ** 2) / pooled.size
    reach = _t(max(1.0, spread.degrees), confidence)
    below = above = reach * math.sqrt(variance)
    unseen = spread.rare * _unseen(confidence)
    if spread.skewness > 0:
        above = above * _stretch(spread, reach) + unseen
    if spread.skewness < 0:
        below = below * _stretch(spread, reach) + unseen
    if max(below, above) > _FURTHEST:
        return Estimate(value=value, low=None, high=None)
    return Estimate(value=value, low=value * math.exp(-below), high=value * math.exp(above))


def _stretch(spread: Spread, reach: float) -> float:
    """Say how much further the limit on the side of the long tail lies (Johnson); >= 1.

    Johnson moves the other limit inwards by as much. It stays here: the skewness of twenty blocks
    is itself a guess, and should not make an interval narrower.
    """
    return 1 + abs(spread.skewness) * (2 * reach**2 + 1) / (6 * reach)


def _unseen(confidence: float) -> float:
    """Say how many events may be expected where none was seen (rule of three); 3.7 for 95 %."""
    return -math.log((1 - confidence) / 2)


def _t(degrees: float, confidence: float) -> float:
    # scipy.special holds the same function as scipy.stats and loads ten times faster
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + confidence) / 2))


def _refuse_empty(blocks: Sequence[Block]) -> None:
    if not blocks or any(block.latencies_s.size == 0 for block in blocks):
        raise ValueError(f"{len(blocks)} blocks, each must hold a request")
