"""The Universal Scalability Law: how throughput grows with concurrency, and where that ends. Pure.

    X(C) = λC / (1 + σ(C − 1) + κC(C − 1))

λ is what one worker alone gets through, σ the share that has to queue (contention), κ the price of
keeping each pair of workers consistent (coherency). With κ > 0 throughput has a peak, at
C* = sqrt((1 − σ) / κ); with κ = 0 it approaches λ/σ.

The *knee* is where the two bounds of the curve meet: one worker's rate times C, and the most that
the curve ever reaches. Below it more concurrency buys throughput, beyond it only queueing.

Intervals come from a bootstrap over the blocks of each concurrency. Blocks are drawn as if they
were independent; drift between the points is not in them.

References:
    Gunther, N. (2007), Guerrilla Capacity Planning, ch. 4-6. Springer.
    Lazowska, E. et al. (1984), Quantitative System Performance, ch. 5: asymptotic bounds.
    Efron, B. and Tibshirani, R. (1993), An Introduction to the Bootstrap, ch. 13: percentiles.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray

from trials.measurement import Block, Estimate, Seconds

LEAST_LEVELS = 3  # as many as there are coefficients

_DRAWS = 200
_TAIL = 0.025  # beyond each limit
_REACH = 2.0  # how far beyond the highest level a knee is believed
_NEGLIGIBLE = 1e-9  # a coefficient below it is 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """One curve.

    Attributes:
        alone_sps: λ, samples/s of one worker alone, > 0.
        contention: σ, >= 0; above 1 two workers get less through than one.
        coherency: κ, >= 0.
    """

    alone_sps: float
    contention: float
    coherency: float

    def throughput_sps(self, concurrency: Seconds) -> Seconds:
        """Return the throughput at each concurrency, samples/s."""
        others = concurrency - 1
        slowdown = 1 + self.contention * others + self.coherency * concurrency * others
        return np.asarray(self.alone_sps * concurrency / slowdown, dtype=np.float64)

    @property
    def peak_concurrency(self) -> float:
        """Where throughput is highest; infinite where it always grows."""
        if self.coherency <= _NEGLIGIBLE:
            return inf
        return max(1.0, sqrt(max(0.0, 1 - self.contention) / self.coherency))

    @property
    def peak_sps(self) -> float:
        """The most that the curve reaches or approaches, samples/s; infinite where it grows."""
        if self.peak_concurrency < inf:
            return float(self.throughput_sps(np.array([self.peak_concurrency]))[0])
        if self.contention <= _NEGLIGIBLE:
            return inf
        return self.alone_sps / min(1.0, self.contention)  # above 1 the first worker is the best

    @property
    def knee_concurrency(self) -> float:
        """Where one worker's rate times the concurrency meets the most that there is."""
        return self.peak_sps / self.alone_sps


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalability:
    """The law of a deployment, with 95 % intervals; an infinite limit is None.

    Attributes:
        knee_concurrency: None where it would lie beyond twice what was measured.
        peak_sps: Likewise.
    """

    law: Law
    alone_sps: Estimate
    contention: Estimate
    coherency: Estimate
    knee_concurrency: Estimate | None
    peak_sps: Estimate | None


def fit_scalability(levels: Mapping[int, Sequence[Block]], *, seed: int = 0) -> Scalability:
    """Fit the law to what was measured under closed loops.

    Args:
        levels: Blocks by concurrency, three levels at least, each with blocks.
        seed: Of the bootstrap.

    Raises:
        ValueError: Fewer levels, or one without blocks.
    """
    if len(levels) < LEAST_LEVELS or not all(levels.values()):
        raise ValueError(f"{len(levels)} levels of concurrency: {LEAST_LEVELS} are needed")
    concurrency = np.array(sorted(levels), dtype=np.float64)
    counts = [_counts(levels[level]) for level in sorted(levels)]
    law = _fitted(concurrency, np.array([_rate(each) for each in counts]))
    generator = np.random.default_rng(seed)
    drawn = [
        _fitted(concurrency, np.array([_rate(_redrawn(each, generator)) for each in counts]))
        for _ in range(_DRAWS)
    ]
    knee = _interval(law.knee_concurrency, [one.knee_concurrency for one in drawn])
    is_seen = knee.value <= _REACH * concurrency[-1]
    return Scalability(
        law=law,
        alone_sps=_interval(law.alone_sps, [one.alone_sps for one in drawn]),
        contention=_interval(law.contention, [one.contention for one in drawn]),
        coherency=_interval(law.coherency, [one.coherency for one in drawn]),
        knee_concurrency=knee if is_seen else None,
        peak_sps=_interval(law.peak_sps, [one.peak_sps for one in drawn]) if is_seen else None,
    )


def _counts(blocks: Sequence[Block]) -> NDArray[np.float64]:
    """Return samples and seconds of each block, shape ``(blocks, 2)``."""
    return np.array(
        [(block.latencies_s.size * block.batch_size, block.window_s) for block in blocks]
    )


def _rate(counts: NDArray[np.float64]) -> float:
    samples, seconds = counts.sum(axis=0)
    return float(samples / seconds)


def _redrawn(counts: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    return counts[generator.integers(0, len(counts), len(counts))]


def _fitted(concurrency: Seconds, rates_sps: Seconds) -> Law:
    """Fit by least squares of relative errors, coefficients not below zero.

    C / X is linear in 1/λ, σ/λ and κ/λ, so the best fit is found exactly, also where a coefficient
    is zero.
    """
    from scipy.optimize import nnls

    others = concurrency - 1
    columns = np.stack([np.ones_like(others), others, concurrency * others], axis=1)
    per_worker_s = concurrency / rates_sps
    scale = per_worker_s[0]  # so that all numbers are of order one
    weights = scale / per_worker_s
    found, _ = nnls(columns * weights[:, None], np.ones_like(weights))
    inverse, contention, coherency = (float(each) for each in found)
    if inverse <= 0:  # no rate of one worker explains the points: all of it is contention
        inverse = _NEGLIGIBLE
    return Law(
        alone_sps=1 / (inverse * scale),
        contention=contention / inverse,
        coherency=coherency / inverse,
    )


def _interval(value: float, drawn: Sequence[float]) -> Estimate:
    ordered = np.sort(drawn)  # not np.percentile, which would interpolate towards infinity
    low, high = ordered[int(_TAIL * len(ordered))], ordered[-1 - int(_TAIL * len(ordered))]
    # the fit to the data itself may lie beyond the draws, where a coefficient is at its bound
    return Estimate(value=value, low=min(value, float(low)), high=_limit(max(value, float(high))))


def _limit(value: float) -> float | None:
    return value if value < inf else None
