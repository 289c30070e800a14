"""How alike two points of a lattice are taken to be: a covariance that knows axes.

The covariance is a product over the axes of ``1 + w R``, ``R`` the likeness of two values of one
axis, which is the sum of all main effects and all interactions of an analysis of variance (Gunn &
Kandola 2002, "Structural modelling with sparse kernels"; Durrande et al. 2013, "ANOVA kernels and
RKHS of zero mean functions"). Logarithms of times are close to sums of effects (engine × batch ×
concurrency), so few points teach much about all the others.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from optimizer.sampling.lattice import LatticeAxis, Points

Matrix = NDArray[np.float64]

_SQRT5 = math.sqrt(5)
_ITERATIONS = 40  # of the optimizer: the last ones change no proposal
_JITTER = 1e-9

# (mean, standard deviation, lowest, highest) of the logarithms' normal priors; targets have
# variance 1 and the coordinates of an axis span [0, 1]
_SCALE = (math.log(1.0), 1.0, math.log(0.05), math.log(50.0))
_NOISE = (math.log(1e-3), 1.5, math.log(1e-6), math.log(0.5))
_WEIGHT = (math.log(0.3), 1.5, math.log(1e-4), math.log(100.0))
_LENGTH = (math.log(0.7), 0.7, math.log(0.1), math.log(5.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A covariance of points on a lattice, for targets of variance 1.

    Attributes:
        axes: The axes that matter, each with its place in a point.
        scale: Variance of the function, > 0.
        noise: Variance that no axis explains, > 0.
        weights: How much each axis matters, > 0; shape ``(axes,)``.
        lengths: Over which part of an ordinal axis values are alike; 0 for categories.
    """

    axes: tuple[tuple[int, LatticeAxis], ...]
    scale: float
    noise: float
    weights: tuple[float, ...]
    lengths: tuple[float, ...]

    def tables(self) -> list[Matrix]:
        """Return for each axis the factor of two of its values, shape ``(values, values)``."""
        found = []
        for (_, axis), weight, length in zip(self.axes, self.weights, self.lengths, strict=True):
            found.append((1 + weight * _likeness(axis, length)[0]) / (1 + weight))
        return found

    def gram(self, left: Points, right: Points) -> Matrix:
        """Return the covariances of two sets of points, shape ``(left, right)``, without noise."""
        result = np.full((len(left), len(right)), self.scale)
        for (place, _), table in zip(self.axes, self.tables(), strict=True):
            result *= table[left[:, place][:, None], right[:, place][None, :]]
        return result


def fitted(axes: Sequence[tuple[int, LatticeAxis]], points: Points, targets: Matrix) -> Kernel:
    """Find the kernel that makes observations likely, given what is usual.

    The maximum of the posterior of all hyperparameters (Rasmussen & Williams 2006, 5.4.1), from
    the same start for the same observations.

    Args:
        axes: (place in a point, axis) of the axes that matter.
        points: Shape ``(n, all axes)``.
        targets: Shape ``(n,)``, of mean 0 and variance 1.
    """
    problem = _Fit(tuple(axes), points, targets)
    found = minimize(
        problem.loss,
        problem.start,
        jac=True,
        method="L-BFGS-B",
        bounds=problem.bounds,
        options={"maxiter": _ITERATIONS},
    )
    return problem.kernel(found.x)


class _Fit:
    def __init__(
        self, axes: tuple[tuple[int, LatticeAxis], ...], points: Points, targets: Matrix
    ) -> None:
        self._axes = axes
        self._targets = targets
        self._places = [(points[:, place][:, None], points[:, place][None, :]) for place, _ in axes]
        priors = [_SCALE, _NOISE, *(_WEIGHT for _ in axes)]
        priors += [_LENGTH for _, axis in axes if axis.is_ordinal]
        self._prior = np.array(priors)
        self.start = self._prior[:, 0].copy()
        self.bounds = [(low, high) for _, _, low, high in priors]

    def kernel(self, logs: Matrix) -> Kernel:
        values = np.exp(logs)
        count = len(self._axes)
        lengths = iter(values[2 + count :])
        return Kernel(
            axes=self._axes,
            scale=float(values[0]),
            noise=float(values[1]),
            weights=tuple(map(float, values[2 : 2 + count])),
            lengths=tuple(
                float(next(lengths)) if axis.is_ordinal else 0.0 for _, axis in self._axes
            ),
        )

    def loss(self, logs: Matrix) -> tuple[float, Matrix]:
        """Return the negative log posterior and its gradient."""
        kernel = self.kernel(logs)
        count = len(self._targets)
        gram = np.full((count, count), kernel.scale)
        slopes = []
        length_slopes = []
        for at, (_, axis) in enumerate(self._axes):
            weight, length = kernel.weights[at], kernel.lengths[at]
            like, slope = _likeness(axis, length)
            factor = 1 + weight * like
            gram *= (factor / (1 + weight))[self._places[at]]
            slopes.append((weight * like / factor - weight / (1 + weight))[self._places[at]])
            if axis.is_ordinal:
                length_slopes.append((weight * slope / factor)[self._places[at]])
        noisy = gram + (kernel.noise + _JITTER) * np.eye(count)
        factors = cho_factor(noisy, lower=True)
        weights = cho_solve(factors, self._targets)
        inverse = cho_solve(factors, np.eye(count))
        outer = np.outer(weights, weights) - inverse  # d(log likelihood)/dK, times 2
        weighted = outer * gram
        gradient = [weighted.sum(), kernel.noise * np.trace(outer)]
        gradient += [np.sum(weighted * slope) for slope in (*slopes, *length_slopes)]
        likelihood = -0.5 * self._targets @ weights - np.log(np.diag(factors[0])).sum()
        apart = (logs - self._prior[:, 0]) / self._prior[:, 1]
        loss = -likelihood + 0.5 * apart @ apart
        return float(loss), -0.5 * np.array(gradient) + apart / self._prior[:, 1]


def _likeness(axis: LatticeAxis, length: float) -> tuple[Matrix, Matrix]:
    """Return the likeness of the values of an axis, and its slope over the log of the length.

    Matérn 5/2 over the coordinates of an ordinal axis; other categories have nothing in common.
    """
    if not axis.is_ordinal:
        same = np.eye(axis.values)
        return same, np.zeros_like(same)
    coordinates = np.array(axis.coordinates)
    apart = _SQRT5 * np.abs(coordinates[:, None] - coordinates[None, :]) / length
    decay = np.exp(-apart)
    return (1 + apart + apart**2 / 3) * decay, apart**2 * (1 + apart) / 3 * decay
