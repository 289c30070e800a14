"""A finite space as numbers: axes, and all the points that may be tried."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

Points: TypeAlias = NDArray[np.int32]
"""Indices of values on their axes, shape ``(points, axes)``."""
Rows: TypeAlias = NDArray[np.int64]
"""Numbers of points, shape ``(n,)``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatticeAxis:
    """One axis of a lattice.

    Attributes:
        name: The parameter's.
        distribution: The parameter's.
        codes: Its values as Optuna knows them.
        coordinates: Where each value lies in [0, 1]; empty where values have no order.
        is_shared: Another value needs another engine.
    """

    name: str
    distribution: BaseDistribution
    codes: tuple[Any, ...]
    coordinates: tuple[float, ...] = ()
    is_shared: bool = False

    @property
    def is_ordinal(self) -> bool:
        """Tell whether neighbouring values are alike."""
        return bool(self.coordinates)

    def index(self, value: Any) -> int:
        """Find a value; a float where it lies but for rounding.

        Raises:
            ValueError: There is no such value.
        """
        if isinstance(self.distribution, FloatDistribution):
            step = self.distribution.step or 1.0
            at = round((float(value) - self.distribution.low) / step)
            if 0 <= at < len(self.codes) and math.isclose(value, self.codes[at], abs_tol=1e-9):
                return at
        return self.codes.index(value)


@dataclass(frozen=True, kw_only=True, eq=False)
class Lattice:
    """All the points of a finite space, in the axes' order.

    Attributes:
        axes: What a point chooses from.
        points: Those that may be tried.
        engines: Number of the engine that each point needs, from 0 on; shape ``(points,)``.
    """

    axes: tuple[LatticeAxis, ...]
    points: Points
    engines: Rows

    def __len__(self) -> int:
        return len(self.points)

    @cached_property
    def with_engines(self) -> Points:
        """The points with a last column that numbers their engines."""
        engines = self.engines[:, None].astype(self.points.dtype)
        return np.concatenate([self.points, engines], axis=1)

    @cached_property
    def _flat(self) -> Rows:
        return self.flat(self.points)

    def flat(self, points: Points) -> Rows:
        """Number points on the whole lattice; those of the lattice itself ascend."""
        sizes = [len(axis.codes) for axis in self.axes]
        return np.asarray(np.ravel_multi_index(tuple(points.T), sizes), dtype=np.int64)

    def rows(self, points: Points) -> Rows:
        """Find points; -1 for one that may not be tried."""
        wanted = self.flat(points)
        at = np.minimum(np.searchsorted(self._flat, wanted), len(self._flat) - 1)
        return np.where(self._flat[at] == wanted, at, -1)

    def row(self, params: Mapping[str, Any]) -> int | None:
        """Find the point of Optuna's parameters; None where there is none."""
        try:
            point = [axis.index(params[axis.name]) for axis in self.axes]
        except (KeyError, ValueError):
            return None
        found = int(self.rows(np.array([point], dtype=np.int32))[0])
        return None if found < 0 else found

    def params(self, row: int) -> dict[str, Any]:
        """Return Optuna's parameters of a point."""
        point = self.points[row]
        return {axis.name: axis.codes[at] for axis, at in zip(self.axes, point, strict=True)}


def lattice_of(
    distributions: Mapping[str, BaseDistribution],
    *,
    shared: Sequence[str] = (),
    allows: Callable[[Points], NDArray[np.bool_]] | None = None,
    engines: Callable[[Points], Rows] | None = None,
) -> Lattice:
    """Enumerate a finite space.

    Args:
        distributions: Integers, categories, and floats with a step; by name.
        shared: Parameters that need another engine where they differ.
        allows: Tells which points may be tried, for all at once, shape ``(points, axes)``; None
            for all.
        engines: Tells for all points at once which share an engine, by equal numbers; None where
            it is those that differ in nothing ``shared``.

    Raises:
        ValueError: A parameter without end of values, or nothing may be tried.
    """
    axes = tuple(_axis(name, one, is_shared=name in shared) for name, one in distributions.items())
    sizes = [len(axis.codes) for axis in axes]
    points = np.indices(sizes, dtype=np.int32).reshape(len(axes), -1).T
    if allows is not None:
        points = points[allows(points)]
    if not len(points):
        raise ValueError("the space has no point that may be tried")
    points = np.ascontiguousarray(points)
    numbers = _by_shared(axes, points) if engines is None else engines(points)
    numbers = np.unique(numbers, return_inverse=True)[1].astype(np.int64).ravel()
    return Lattice(axes=axes, points=points, engines=numbers)


def _by_shared(axes: tuple[LatticeAxis, ...], points: Points) -> Rows:
    places = [at for at, axis in enumerate(axes) if axis.is_shared]
    if not places:
        return np.zeros(len(points), dtype=np.int64)
    sizes = [len(axes[at].codes) for at in places]
    return np.asarray(np.ravel_multi_index(tuple(points[:, places].T), sizes), dtype=np.int64)


def _axis(name: str, distribution: BaseDistribution, *, is_shared: bool) -> LatticeAxis:
    match distribution:
        case CategoricalDistribution():
            choices = tuple(distribution.choices)
            return LatticeAxis(
                name=name, distribution=distribution, codes=choices, is_shared=is_shared
            )
        case IntDistribution():
            codes: tuple[float, ...] = tuple(
                range(distribution.low, distribution.high + 1, distribution.step)
            )
        case FloatDistribution(step=float(step)):
            steps = round((distribution.high - distribution.low) / step) + 1
            codes = tuple(distribution.low + step * at for at in range(steps))
        case _:
            raise ValueError(f"{name} has values without end; give it a step, or categories")
    scale = np.log(codes) if getattr(distribution, "log", False) else np.array(codes, dtype=float)
    span = scale[-1] - scale[0]
    coordinates = (scale - scale[0]) / span if span else np.zeros(len(codes))
    return LatticeAxis(
        name=name,
        distribution=distribution,
        codes=codes,
        coordinates=tuple(coordinates.tolist()),
        is_shared=is_shared,
    )
