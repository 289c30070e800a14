"""Find the kernel that explains observations."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from optimizer.sampling.kernel import Factor, Kernel, Matrix
from optimizer.sampling.lattice import Points

_ITERATIONS = 40  # of the optimizer: the last ones change no proposal
_JITTER = 1e-9

# (mean, standard deviation, lowest, highest) of the logarithms' normal priors; targets have
# variance 1 and the coordinates of an axis span [0, 1]. Small weights on a large scale say that
# effects mostly add up. Chosen on generated tables: docs/decisions/0020.
_SCALE = (math.log(10.0), 1.0, math.log(0.05), math.log(300.0))
_NOISE = (math.log(1e-3), 1.5, math.log(1e-6), math.log(0.5))
_WEIGHT = (math.log(0.1), 0.5, math.log(1e-4), math.log(100.0))
_LENGTH = (math.log(0.7), 0.7, math.log(0.1), math.log(5.0))


def usual(factors: Sequence[Factor]) -> Kernel:
    """Return the kernel that is taken where nothing was observed."""
    problem = _Fit(tuple(factors), np.zeros((0, 1), dtype=np.int32), np.zeros(0))
    return problem.kernel(problem.start)


def fitted(factors: Sequence[Factor], points: Points, targets: Matrix) -> Kernel:
    """Find the kernel that makes observations likely, given what is usual.

    The maximum of the posterior of all hyperparameters (Rasmussen & Williams 2006, 5.4.1), from
    the same start for the same observations.

    Args:
        factors: The axes that matter.
        points: Shape ``(n, axes)``.
        targets: Shape ``(n,)``, of mean 0 and variance 1.
    """
    problem = _Fit(tuple(factors), points, targets)
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
    def __init__(self, factors: tuple[Factor, ...], points: Points, targets: Matrix) -> None:
        self._factors = factors
        self._points = points
        self._targets = targets
        priors = [_SCALE, _NOISE, *(_WEIGHT for _ in factors)]
        priors += [_LENGTH for factor in factors if factor.is_ordinal]
        self._prior = np.array(priors)
        self.start = self._prior[:, 0].copy()
        self.bounds = [(low, high) for _, _, low, high in priors]

    def kernel(self, logs: Matrix) -> Kernel:
        scale, noise, *rest = map(float, np.exp(logs))
        count = len(self._factors)
        lengths = iter(rest[count:])
        return Kernel(
            factors=self._factors,
            scale=scale,
            noise=noise,
            weights=tuple(rest[:count]),
            lengths=tuple(next(lengths) if factor.is_ordinal else 0.0 for factor in self._factors),
        )

    def loss(self, logs: Matrix) -> tuple[float, Matrix]:
        """Return the negative log posterior and its gradient."""
        kernel = self.kernel(logs)
        gram, slopes = self._gram(kernel)
        noise = kernel.noise + _JITTER
        factor = cho_factor(gram + noise * np.eye(len(gram)), lower=True)
        weights = cho_solve(factor, self._targets)
        # d(log likelihood)/dK, times 2
        outer = np.outer(weights, weights) - cho_solve(factor, np.eye(len(gram)))
        weighted = outer * gram
        gradient = [weighted.sum(), kernel.noise * np.trace(outer)]
        gradient += [np.sum(weighted * slope) for slope in slopes]
        likelihood = -0.5 * self._targets @ weights - np.log(np.diag(factor[0])).sum()
        apart = (logs - self._prior[:, 0]) / self._prior[:, 1]
        loss = -likelihood + 0.5 * apart @ apart
        return float(loss), -0.5 * np.array(gradient) + apart / self._prior[:, 1]

    def _gram(self, kernel: Kernel) -> tuple[Matrix, list[Matrix]]:
        """Return the covariances, and their slopes over the log of each weight and length."""
        points = self._points
        gram = np.full((len(points), len(points)), kernel.scale)
        by_weight, by_length = [], []
        for factor, weight, length in zip(
            self._factors, kernel.weights, kernel.lengths, strict=True
        ):
            like, slope = factor.likeness(points, points, length)
            sum_ = 1 + weight * like
            gram *= sum_ / (1 + weight)
            by_weight.append(weight * like / sum_ - weight / (1 + weight))
            if factor.is_ordinal:
                by_length.append(weight * slope / sum_)
        return gram, [*by_weight, *by_length]
