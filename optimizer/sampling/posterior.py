"""What observations say of points never measured: a Gaussian process, kept up to date.

Each new observation costs one pass over the points, not a new solution (the rows of a growing
Cholesky factor; Rasmussen & Williams 2006, A.3), so that asking stays quick after many trials.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from optimizer.sampling.kernel import Kernel, Matrix
from optimizer.sampling.lattice import Points

_LEAST = 1e-12  # variance below which rounding reigns
_JITTER = 1e-9


class Posterior:
    """Mean and variance of one function at the points of a pool.

    Args:
        kernel: For targets of variance 1.
        pool: Points, shape ``(pool, axes)``.
        center: Mean of the targets.
        spread: Standard deviation of the targets.
    """

    def __init__(self, kernel: Kernel, pool: Points, *, center: float, spread: float) -> None:
        self._kernel = kernel
        self._pool = pool
        self._center, self._spread = center, spread
        self._points = pool[:0]
        # both with room for more observations than there are
        self._factor = np.zeros((0, 0))
        self._rows = np.zeros((0, len(pool)))
        self._scores = np.zeros(0)
        self._mean = np.zeros(len(pool))
        self._variance = np.full(len(pool), kernel.scale)

    @property
    def mean(self) -> Matrix:
        """Expected values, shape ``(pool,)``."""
        return self._center + self._spread * self._mean

    @property
    def variance(self) -> Matrix:
        """Variances of the function itself, shape ``(pool,)``."""
        return np.asarray(self._spread**2 * np.maximum(self._variance, _LEAST))

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
        side, corner, rows = self._extended(points)
        scaled = (targets - self._center) / self._spread
        scores = solve_triangular(corner, scaled - side @ self._scores, lower=True)
        known, count = len(self._points), len(self._points) + len(points)
        self._make_room(count)
        self._factor[known:count, :known] = side
        self._factor[known:count, known:count] = corner
        self._rows[known:count] = rows
        self._points = np.concatenate([self._points, points])
        self._scores = np.concatenate([self._scores, scores])
        self._mean = self._mean + scores @ rows
        self._variance = self._variance - np.einsum("ij,ij->j", rows, rows)

    @contextmanager
    def assuming(self, points: Points) -> Iterator[None]:
        """Take points for measured, with the values expected there, as long as this lasts."""
        before = self._variance
        try:
            if len(points):
                _, _, rows = self._extended(points)
                self._variance = before - np.einsum("ij,ij->j", rows, rows)
            yield
        finally:
            self._variance = before

    def _extended(self, points: Points) -> tuple[Matrix, Matrix, Matrix]:
        """Return what points add to the factor, left of and in its corner, and to the rows.

        Returns:
            Shapes ``(n, known)``, ``(n, n)`` and ``(n, pool)``.
        """
        kernel, known, more = self._kernel, len(self._points), len(points)
        own = kernel.gram(points, points) + (kernel.noise + _JITTER) * np.eye(more)
        over = kernel.gram(points, self._pool)
        if not known:
            corner = cholesky(own, lower=True)
            return np.zeros((more, 0)), corner, solve_triangular(corner, over, lower=True)
        cross = kernel.gram(self._points, points)
        side = solve_triangular(self._factor[:known, :known], cross, lower=True).T
        corner = cholesky(own - side @ side.T, lower=True)
        over -= side @ self._rows[:known]
        return side, corner, solve_triangular(corner, over, lower=True)

    def _make_room(self, count: int) -> None:
        """Grow by half, so that the arrays are rarely copied."""
        size = len(self._factor)
        if count <= size:
            return
        size = max(count, size * 3 // 2)
        factor, rows = np.zeros((size, size)), np.empty((size, len(self._pool)))
        known = len(self._points)
        factor[:known, :known] = self._factor[:known, :known]
        rows[:known] = self._rows[:known]
        self._factor, self._rows = factor, rows
