"""A finite space as numbers: axes, and all the points that may be tried."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.int16]
"""Indices of values on their axes, shape ``(points, axes)``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatticeAxis:
    """One axis of a lattice.

    Attributes:
        name: What people call it.
        values: How many there are, >= 1.
        coordinates: Where each value lies in [0, 1]; empty where values have no order.
        is_shared: Another value needs another engine.
    """

    name: str
    values: int
    coordinates: tuple[float, ...] = ()
    is_shared: bool = False

    @property
    def is_ordinal(self) -> bool:
        """Tell whether neighbouring values are alike."""
        return bool(self.coordinates)
