"""From raw samples to numbers with 95 % intervals. Pure: no clock, no state, no chance.

The atom is the block, not the request: requests of one block share the state of the machine, and
intervals that take them for independent cover the truth in as little as 5-45 % of cases. So every
interval of a speed here rests on the spread *between* blocks, widened by the autocorrelation time
of the blocks. Percentiles are taken over all raw samples, never of percentiles.

When to stop measuring is decided in ``stopping``; who produces blocks is ``load``.

References:
    Korn, E. and Graubard, B. (1998), Confidence intervals for proportions with small expected
        number of positive counts estimated from survey data. Survey Methodology 24, 193-201.
    Woodruff, R. (1952), Confidence intervals for medians. JASA 47, 635-646.
    Geyer, C. (1992), Practical Markov chain Monte Carlo. Statistical Science 7, 473-483.
    Wilson, E. (1927), Probable inference. JASA 22, 209-212.
    White, K., Cobb, M. and Spratt, S. (2000), MSER-5. Proc. Winter Simulation Conference, 755-761.
"""

import math
from collections.abc import Sequence

import numpy as np

from trials.measurement import Block, Estimate, Seconds, Speed

MIN_BLOCKS = 3  # with fewer, a spread between blocks is no more than a guess

CONFIDENCE = 0.95  # of every interval, unless a comparison of several asks for more

_Z = 1.959963984540054  # normal quantile at 0.975
# log-rates closer than 1e-10 are equal: a nanosecond clock resolves 1e-8 of a 0.1-s block
_EQUAL_VARIANCE = 1e-20
_FURTHEST = math.log(1e3)  # a limit more than a thousandfold away is no limit
_MSER_BATCH = 5
_MSER_MIN_BATCHES = 4  # fewer means cannot show a transient


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
    blocks: Sequence[Block], levels: Sequence[float], *, confidence: float = CONFIDENCE
) -> tuple[Estimate, ...]:
    """Estimate several quantiles as :func:`quantile` does, sorting the samples once.

    Args:
        blocks: In order of time.
        levels: Each in (0, 1).
        confidence: Of the intervals, in (0, 1).

    Raises:
        ValueError: As for :func:`quantile`.
    """
    _refuse_empty(blocks)
    if not all(0 < p < 1 for p in levels):
        raise ValueError(f"quantile levels {tuple(levels)} are not all inside (0, 1)")
    pooled = np.sort(np.concatenate([block.latencies_s for block in blocks]))
    return tuple(_quantile(blocks, pooled, p, confidence=confidence) for p in levels)


def mean_latency(blocks: Sequence[Block], *, confidence: float = CONFIDENCE) -> Estimate:
    """Estimate the mean latency of all requests, in seconds.

    Args:
        blocks: In order of time.
        confidence: Of the interval, in (0, 1).

    Raises:
        ValueError: No block, a block without requests, or one without length.
    """
    _refuse_empty(blocks)
    requests = np.array([block.latencies_s.size for block in blocks], dtype=np.float64)
    totals_s = np.array([block.latencies_s.sum() for block in blocks])
    return _ratio(blocks, totals_s, requests, confidence=confidence)


def throughput(blocks: Sequence[Block], *, confidence: float = CONFIDENCE) -> Estimate:
    """Estimate the rate of work over all blocks, in samples/s.

    Args:
        blocks: In order of time.
        confidence: Of the interval, in (0, 1).

    Raises:
        ValueError: No block, a block without requests, or one without length.
    """
    _refuse_empty(blocks)
    samples = np.array(
        [block.latencies_s.size * block.batch_size for block in blocks], dtype=np.float64
    )
    windows_s = np.array([block.window_s for block in blocks])
    return _ratio(blocks, samples, windows_s, confidence=confidence)


def summarize(blocks: Sequence[Block], *, target_met: bool) -> Speed:
    """Reduce the blocks of one deployment to the numbers that are optimized.

    Args:
        blocks: In order of time.
        target_met: Whether the intervals became as narrow as was asked for.

    Raises:
        ValueError: No block, a block without requests, or one without length.
    """
    p50, p90, p99, p999 = quantiles(blocks, (0.5, 0.9, 0.99, 0.999))
    return Speed(
        latency_mean_s=mean_latency(blocks),
        latency_p50_s=p50,
        latency_p90_s=p90,
        latency_p99_s=p99,
        latency_p999_s=p999,
        throughput_sps=throughput(blocks),
        requests=sum(block.latencies_s.size for block in blocks),
        blocks=len(blocks),
        target_met=target_met,
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


def truncate_warmup(latencies: Seconds) -> int:
    """Say how many of the first requests belong to a transient (MSER-5).

    The cut is the one that makes the standard error of what remains smallest, over means of five;
    it is sought in the first half only, so half of the requests or more means "still drifting".

    Args:
        latencies: Shape ``(requests,)`` in order of time; fewer than 20 cannot tell and give 0.
    """
    batches = latencies.size // _MSER_BATCH
    if batches < _MSER_MIN_BATCHES:
        return 0
    means = latencies[: batches * _MSER_BATCH].reshape(batches, _MSER_BATCH).mean(axis=1)
    cuts = np.arange(batches // 2 + 1)
    left = batches - cuts
    # sums over what remains after each cut; centred first, or large latencies would cancel
    centred = means - means.mean()
    sums = np.cumsum(centred[::-1])[::-1][cuts]
    squares = np.cumsum(centred[::-1] ** 2)[::-1][cuts]
    scores = (squares - sums**2 / left) / left.astype(np.float64) ** 2
    cut = int(np.argmin(scores))
    if 2 * cut >= batches - 1:  # the last cut on offer, rounding included
        return -(-latencies.size // 2)
    return cut * _MSER_BATCH


def autocorrelation_time(values: Seconds) -> float:
    """Say how many successive values count as one independent value; >= 1.

    Sum of the autocorrelations over Geyer's initial positive sequence. The same read backwards.

    Args:
        values: Shape ``(values,)`` in order of time.
    """
    deviations = values - values.mean()
    power = float(deviations @ deviations)
    if power <= _EQUAL_VARIANCE * values.size:
        return 1.0
    positive = 0.0
    for lag in range(0, values.size - 1, 2):
        even = float(deviations[: values.size - lag] @ deviations[lag:])
        odd = float(deviations[: values.size - lag - 1] @ deviations[lag + 1 :])
        if even + odd <= 0:
            break
        positive += (even + odd) / power
    return max(1.0, 2.0 * positive - 1.0)


def _quantile(
    blocks: Sequence[Block], pooled: Seconds, p: float, *, confidence: float
) -> Estimate:
    from scipy.special import betaincinv

    n = pooled.size
    # 1e-9: 0.07 * 100 is 7.000000000000001, whose ceiling is not meant
    rank = min(n, max(1, math.ceil(n * p - 1e-9)))
    value = float(pooled[rank - 1])
    if len(blocks) < MIN_BLOCKS:
        return Estimate(value=value, low=None, high=None)
    sizes = np.array([block.latencies_s.size for block in blocks])
    below = np.array([np.count_nonzero(block.latencies_s <= value) for block in blocks])
    variance, tau = _variance(below / sizes, sizes / n)
    # equal blocks say nothing against independent requests, of which there are n and no more
    effective = n if variance == 0 else min(n, p * (1 - p) / variance)
    degrees = max(3.0, len(blocks) / tau - 1)
    effective *= min(1.0, (_t(n - 1, confidence) / _t(degrees, confidence)) ** 2)
    failures = effective * (1 - p)
    tail = (1 - confidence) / 2
    low = math.floor(n * float(betaincinv(effective * p, failures + 1, tail)))
    high = n * float(betaincinv(effective * p + 1, failures, 1 - tail))
    return Estimate(
        value=value,
        low=float(pooled[low - 1]) if low >= 1 else None,
        high=float(pooled[math.ceil(high) - 1]) if high <= n - 1 else None,
    )


def _ratio(
    blocks: Sequence[Block], totals: Seconds, bases: Seconds, *, confidence: float
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
    variance, tau = _variance(np.log(totals / bases), bases / bases.sum())
    if variance <= _EQUAL_VARIANCE:
        # equal blocks cannot tell their spread; their requests can, if they are independent
        pooled = np.concatenate([block.latencies_s for block in blocks])
        variance = float((pooled.std() / pooled.mean()) ** 2) / pooled.size
    reach = _t(max(1.0, len(blocks) / tau - 1), confidence) * math.sqrt(variance)
    if reach > _FURTHEST:
        return Estimate(value=value, low=None, high=None)
    return Estimate(value=value, low=value * math.exp(-reach), high=value * math.exp(reach))


def _variance(values: Seconds, weights: Seconds) -> tuple[float, float]:
    """Return the variance of the weighted mean of the blocks' values, and their tau."""
    count = values.size
    tau = autocorrelation_time(values)
    deviations = weights * (values - weights @ values)
    spread = count / (count - 1) * float(deviations @ deviations)
    # the denominator mends the bias of a variance around the mean of dependent values
    return spread * tau / (1 - min(0.5, tau / count)), tau


def _t(degrees: float, confidence: float) -> float:
    # scipy.special holds the same function as scipy.stats and loads ten times faster
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + confidence) / 2))


def _refuse_empty(blocks: Sequence[Block]) -> None:
    if not blocks or any(block.latencies_s.size == 0 for block in blocks):
        raise ValueError(f"{len(blocks)} blocks, each must hold a request")
