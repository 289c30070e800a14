"""What observations say of points never measured: a Gaussian process, kept up to date.

Each new observation costs one pass over the points, not a new solution (the rows of a growing
Cholesky factor; Rasmussen & Williams 2006, A.3), so that asking stays quick after many trials.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from scipy.linalg import solve_triangular

from optimizer.sampling.kernel import Kernel, Matrix
from optimizer.sampling.lattice import Points

_LEAST = 1e-12  # variance below which rounding reigns


class Posterior:
    """Mean and variance of one function at the points of a pool.

    Attributes:
        mean: Shape ``(pool,)``; in the targets' own unit, likewise ``variance``.
        variance: Of the function, without noise; shape ``(pool,)``.
    """

    def __init__(self, kernel: Kernel, pool: Points, *, center: float, spread: float) -> None:
        self._kernel = kernel
        self._pool = pool
        self._center, self._spread = center, spread
        self._points = np.empty((0, pool.shape[1]), dtype=pool.dtype)
        self._factor = np.empty((0, 0))
        self._rows = np.empty((0, len(pool)))
        self._scores = np.empty(0)
        self._mean = np.zeros(len(pool))
        self._variance = np.full(len(pool), kernel.scale)

    @property
    def mean(self) -> Matrix:
        """Expected values, shape ``(pool,)``."""
        return self._center + self._spread * self._mean

    @property
    def variance(self) -> Matrix:
        """Variances of the function itself, shape ``(pool,)``."""
        return self._spread**2 * np.maximum(self._variance, _LEAST)

    @property
    def noise(self) -> float:
        """Variance that no axis explains."""
        return self._spread**2 * self._kernel.noise

    def observe(self, points: Points, targets: Matrix) -> None:
        """Learn from observations.

        Args:
            points: Shape ``(n, axes)``.
            targets: Shape ``(n,)``.
        """
        if not len(points):
            return
        scaled = (targets - self._center) / self._spread
        lower, rows = self._extended(points)
        known = len(self._points)
        scores = solve_triangular(
            lower[known:, known:], scaled - lower[known:, :known] @ self._scores, lower=True
        )
        self._points = np.concatenate([self._points, points])
        self._factor = lower
        self._rows = np.concatenate([self._rows, rows])
        self._scores = np.concatenate([self._scores, scores])
        self._mean = self._mean + scores @ rows
        self._variance = self._variance - np.einsum("ij,ij->j", rows, rows)

    @contextmanager
    def assuming(self, points: Points) -> Iterator[None]:
        """Take points for measured, with the values expected there, as long as this lasts."""
        before = self._variance
        try:
            if len(points):
                _, rows = self._extended(points)
                self._variance = before - np.einsum("ij,ij->j", rows, rows)
            yield
        finally:
            self._variance = before

    def _extended(self, points: Points) -> tuple[Matrix, Matrix]:
        """Return the factor with the points in it, and their rows over the pool."""
        kernel, known, more = self._kernel, len(self._points), len(points)
        own = kernel.gram(points, points) + kernel.noise * np.eye(more)
        cross = kernel.gram(self._points, points)
        lower = np.zeros((known + more, known + more))
        lower[:known, :known] = self._factor
        side = solve_triangular(self._factor, cross, lower=True).T if known else cross.T
        lower[known:, :known] = side
        corner = np.linalg.cholesky(own - side @ side.T + 1e-9 * np.eye(more))
        lower[known:, known:] = corner
        over = kernel.gram(points, self._pool)
        if known:
            over -= side @ self._rows
        return lower, solve_triangular(corner, over, lower=True)
