"""How alike two points of a lattice are taken to be: a covariance that knows axes.

The covariance is a product over the axes of ``1 + w R``, ``R`` the likeness of two values of one
axis, which is the sum of all main effects and all interactions of an analysis of variance (Gunn &
Kandola 2002, "Structural modelling with sparse kernels"; Durrande et al. 2013, "ANOVA kernels and
RKHS of zero mean functions"). Logarithms of times are close to sums of effects (engine × batch ×
concurrency), so few points teach much about all the others.
"""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from optimizer.sampling.lattice import Points

Matrix: TypeAlias = NDArray[np.float64]

_SQRT5 = math.sqrt(5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """One axis as a kernel sees it.

    Attributes:
        place: Its column in a point.
        coordinates: Where each value lies in [0, 1]; empty for categories.
    """

    place: int
    coordinates: tuple[float, ...] = ()

    @property
    def is_ordinal(self) -> bool:
        """Tell whether neighbouring values are alike."""
        return bool(self.coordinates)

    def likeness(self, left: Points, right: Points, length: float) -> tuple[Matrix, Matrix]:
        """Return how alike values are, and the slope of that over the log of the length.

        Matérn 5/2 over the coordinates of an ordinal axis; other categories have nothing in
        common.

        Returns:
            Each of shape ``(left, right)``.
        """
        here, there = left[:, self.place][:, None], right[:, self.place][None, :]
        if not self.is_ordinal:
            same = (here == there).astype(float)
            return same, np.zeros_like(same)
        like, slope = self._tables(length)
        return like[here, there], slope[here, there]

    def _tables(self, length: float) -> tuple[Matrix, Matrix]:
        at = np.array(self.coordinates)
        apart = _SQRT5 * np.abs(at[:, None] - at[None, :]) / length
        decay = np.exp(-apart)
        return (1 + apart + apart**2 / 3) * decay, apart**2 * (1 + apart) / 3 * decay


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A covariance of points on a lattice, for targets of variance 1.

    Attributes:
        factors: The axes that matter.
        scale: Variance of the function, > 0.
        noise: Variance that no axis explains, > 0.
        weights: How much each axis matters, > 0; one per factor.
        lengths: Over which part of an ordinal axis values are alike; 0 for categories.
    """

    factors: tuple[Factor, ...]
    scale: float
    noise: float
    weights: tuple[float, ...]
    lengths: tuple[float, ...]

    def gram(self, left: Points, right: Points) -> Matrix:
        """Return the covariances of two sets of points, shape ``(left, right)``, without noise."""
        result = np.full((len(left), len(right)), self.scale)
        for factor, weight, length in zip(self.factors, self.weights, self.lengths, strict=True):
            result *= (1 + weight * factor.likeness(left, right, length)[0]) / (1 + weight)
        return result
