"""How far stated probabilities can be believed: Brier score, log loss, reliability, ECE.

Chance is needed once, for the null level of the calibration error, and is seeded by a constant.

References:
    Brier, G. (1950), Verification of forecasts. Monthly Weather Review 78, 1-3.
    Nixon, J. et al. (2019), Measuring calibration in deep learning. CVPR workshops. Equal mass.
    Broecker, J. and Smith, L. (2007), Increasing the reliability of reliability diagrams. Weather
        and Forecasting 22, 651-661. The null level, by resampling under perfect calibration.
"""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trials.measurement import Calibration, Estimate, ReliabilityBin
from trials.measuring.statistics import mean_score

Floats: TypeAlias = NDArray[np.float64]

_BINS = 15  # the field's usual number
_NULL_DRAWS = 200  # the mean ECE is then known to about a hundredth of itself
_NULL_SEED = 0
_CHUNK = 2**20  # random numbers drawn at once: 8 MB
_SUM_SLACK = 0.05  # of a row of probabilities; int8 and fp16 round each of them
_NEGATIVE_SLACK = 1e-6
# a probability of 0 would cost infinitely much; 15.9 nats at most, whatever the engine's precision
_LEAST_PROBABILITY = float(np.finfo(np.float32).eps)


def probabilities(scores: NDArray[Any]) -> Floats:
    """Turn class scores into probabilities, shape ``(samples, classes)``; each row adds up to 1.

    Rows that are non-negative and add up to 1, rounding of narrow precisions allowed, are
    probabilities already; else all are logits and go through a softmax.
    """
    values = scores.astype(np.float64)
    sums = values.sum(axis=1, keepdims=True)
    if values.min() >= -_NEGATIVE_SLACK and np.abs(sums - 1).max() <= _SUM_SLACK:
        np.maximum(values, 0, out=values)
        values /= sums
        return values
    values -= values.max(axis=1, keepdims=True)
    np.exp(values, out=values)
    values /= values.sum(axis=1, keepdims=True)
    return values


def calibration(stated: Floats, labels: NDArray[np.int64]) -> Calibration:
    """Say how far stated probabilities can be believed.

    The log loss takes probabilities below 1.2e-7 (float32's epsilon) for that. The ECE is taken
    over 15 bins of equal mass, fewer where there are fewer samples.

    Args:
        stated: Shape ``(samples, classes)``; rows add up to 1.
        labels: Shape ``(samples,)``.
    """
    own = np.take_along_axis(stated, labels[:, None], axis=1)[:, 0]
    confidences = stated.max(axis=1)
    order = np.argsort(confidences, kind="stable")
    confidences = confidences[order]
    hits = (stated.argmax(axis=1) == labels)[order]
    starts = _bin_starts(labels.size)
    sizes = np.diff(starts, append=labels.size)
    stated_sums = np.add.reduceat(confidences, starts)
    hit_sums = np.add.reduceat(hits.astype(np.float64), starts)
    return Calibration(
        brier=_loss(squares(stated, labels)),
        log_loss=_loss(-np.log(np.maximum(own, _LEAST_PROBABILITY))),
        ece=float(np.abs(hit_sums - stated_sums).sum() / labels.size),
        ece_null=_null_ece(confidences, stated_sums, starts),
        bins=tuple(
            ReliabilityBin(confidence=float(mean), accuracy=float(share), samples=int(size))
            for mean, share, size in zip(stated_sums / sizes, hit_sums / sizes, sizes, strict=True)
        ),
    )


def squares(stated: Floats, labels: NDArray[np.int64]) -> Floats:
    """Return the squared distance of each sample's probabilities from the truth."""
    own = np.take_along_axis(stated, labels[:, None], axis=1)[:, 0]
    squares: Floats = np.einsum("sc,sc->s", stated, stated) - 2 * own + 1
    return squares


def _bin_starts(samples: int) -> NDArray[np.intp]:
    bins = min(_BINS, samples)
    return np.arange(bins) * samples // bins


def _loss(values: Floats) -> Estimate:
    """Estimate a mean that cannot be negative."""
    estimate = mean_score(values)
    if estimate.low is None:
        return estimate
    return Estimate(value=estimate.value, low=max(0.0, estimate.low), high=estimate.high)


def _null_ece(confidences: Floats, stated_sums: Floats, starts: NDArray[np.intp]) -> float:
    """Return the mean ECE if every confidence, sorted, were the true probability of a hit."""
    generator = np.random.default_rng(_NULL_SEED)
    at_once = max(1, _CHUNK // confidences.size)
    total = 0.0
    for done in range(0, _NULL_DRAWS, at_once):
        shape = (min(at_once, _NULL_DRAWS - done), confidences.size)
        hits = (generator.random(shape) < confidences).astype(np.float64)
        total += float(np.abs(np.add.reduceat(hits, starts, axis=1) - stated_sums).sum())
    return total / (_NULL_DRAWS * confidences.size)
