"""A deployment table: every deployment of a space with what came of it and what that cost.

Rows lie in the order of the axes, as :meth:`SearchSpace.deployments` yields them. The price of a
row has two parts: what is shared (the converted model, the built and scored engine) is paid by
whoever needs it first, what is its own (loading, measuring, the rest) each time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from optimizer.errors import TableError, UsageError
from search_spaces.bounds import constraints_from_texts
from search_spaces.deployment import Deployment, deployment_from_axes
from search_spaces.space import SearchSpace

Column: TypeAlias = NDArray[np.float64]
"""Shape ``(rows,)``."""
Codes: TypeAlias = NDArray[np.int64]
"""Shape ``(rows,)``; positions in a tuple of names."""

COMPLETED, INFEASIBLE, FAILED = "completed", "infeasible", "failed"
STATES = (COMPLETED, INFEASIBLE, FAILED)
PRICES = ("convert_s", "build_s", "score_s", "load_s", "measure_s", "other_s")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Metrics:
    """Every metric of every row, in the units of space files; NaN where there is none.

    Attributes:
        names: Of the columns.
        values: Shape ``(rows, metrics)``; likewise ``lows`` and ``highs``, the 95 % interval, NaN
            where it has no such end.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]
    lows: NDArray[np.float64]
    highs: NDArray[np.float64]

    def column(self, name: str) -> Column:
        """Return the values of one metric, shape ``(rows,)``.

        Raises:
            KeyError: The table has no such metric.
        """
        if name not in self.names:
            raise KeyError(name)
        found: Column = self.values[:, self.names.index(name)]
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prices:
    """Seconds that each row costs where nothing is stored, each shape ``(rows,)`` and >= 0.

    Attributes:
        convert_s: Converting its model; the same in all rows of one model.
        build_s: Building its engine; the same in all rows of one engine, as ``score_s`` is.
        other_s: What is neither of these nor loading nor measuring: memory, processes, storage.
    """

    convert_s: Column
    build_s: Column
    score_s: Column
    load_s: Column
    measure_s: Column
    other_s: Column

    @property
    def engine_s(self) -> Column:
        """What an engine costs once, shape ``(rows,)``."""
        return self.build_s + self.score_s

    @property
    def own_s(self) -> Column:
        """What a row costs each time, shape ``(rows,)``."""
        return self.load_s + self.measure_s + self.other_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a table comes from.

    Attributes:
        study: Name of the study that measured it, or of what generated it.
        identity: The study's id.
        space_file: Text of the space file.
        digests: (what, SHA-256) of variants and data.
        environment: (name, value) of versions and device facts.
        made_s: When the table was made, seconds since the epoch.
    """

    study: str
    identity: str
    space_file: str
    digests: tuple[tuple[str, str], ...]
    environment: tuple[tuple[str, str], ...]
    made_s: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeploymentTable:
    """A fully measured space.

    Attributes:
        space: What was measured, with its objectives and constraints.
        positions: Shape ``(rows, axes)``; where each row stands on each axis. Rows ascend.
        states: Shape ``(rows,)``; position in ``STATES``.
        kinds: One per row: why it is infeasible or failed, in a word; empty where it completed.
        reasons: Likewise, in a line for people.
        models: Shape ``(rows,)``; which of ``model_names`` each row needs, likewise ``engines``.
        flat: Shape ``(rows,)``; the rows' numbers on the whole lattice, by which they are found.
    """

    space: SearchSpace
    origin: Origin
    positions: NDArray[np.int64]
    states: Codes
    kinds: tuple[str, ...]
    reasons: tuple[str, ...]
    model_names: tuple[str, ...]
    models: Codes
    engine_names: tuple[str, ...]
    engines: Codes
    metrics: Metrics
    prices: Prices
    flat: Codes

    def __len__(self) -> int:
        return len(self.flat)

    @property
    def completed(self) -> NDArray[np.bool_]:
        """Tell which rows were measured, shape ``(rows,)``."""
        found: NDArray[np.bool_] = self.states == STATES.index(COMPLETED)
        return found

    @property
    def total_s(self) -> float:
        """What all rows together cost, each once, nothing being stored: seconds."""
        shared_s = once(self.prices.convert_s, self.models)
        shared_s += once(self.prices.engine_s, self.engines)
        return shared_s + float(self.prices.own_s.sum())

    def row(self, indices: Sequence[int]) -> int:
        """Find the row at a position of the lattice.

        Args:
            indices: One for each axis, as :meth:`Encoding.indices` returns.

        Raises:
            KeyError: The table has no such deployment.
        """
        flat = int(np.ravel_multi_index(tuple(indices), sizes_of(self.space)))
        at = int(np.searchsorted(self.flat, flat))
        if at == len(self.flat) or self.flat[at] != flat:
            raise KeyError(f"no row at {tuple(indices)}")
        return at

    def row_of(self, deployment: Deployment) -> int:
        """Find the row of a deployment.

        Raises:
            KeyError: The table has no such deployment.
        """
        values = dict(deployment.axes())
        try:
            return self.row([axis.values.index(values[axis.name]) for axis in self.space.axes])
        except ValueError as error:
            raise KeyError(str(deployment)) from error

    def deployment(self, row: int) -> Deployment:
        """Return the deployment of a row."""
        return deployment_from_axes(
            {
                axis.name: axis.values[int(at)]
                for axis, at in zip(self.space.axes, self.positions[row], strict=True)
            }
        )


def check_whole(table: DeploymentTable, allowed: int | None) -> None:
    """See that a table has every deployment that its space allows.

    Args:
        table: What was measured.
        allowed: The number of these; None where it is not known.

    Raises:
        TableError: It does not.
    """
    if allowed is not None and len(table) < allowed:
        raise TableError(
            f"the table of '{table.space.name}' has {len(table):,} of the {allowed:,} deployments "
            "of its space, so nobody knows what is to be found",
            hint="go on with the `trifront record` that made it",
        )


def bounded(table: DeploymentTable, bounds: Sequence[str]) -> DeploymentTable:
    """Give a table other bounds than its space's, such as ``accuracy >= 0.9``.

    Raises:
        SpaceError: Not a bound, or one that makes no sense.
        UsageError: It is of a metric that the table does not have.
    """
    constraints = constraints_from_texts(bounds, kind=table.space.task.kind)
    for one in constraints:
        if one.metric.name not in table.metrics.names:
            raise UsageError(
                f"the table of '{table.space.name}' has no {one.metric.name}",
                hint=f"it has: {', '.join(table.metrics.names)}",
            )
    return replace(table, space=replace(table.space, constraints=constraints))


def sizes_of(space: SearchSpace) -> tuple[int, ...]:
    """Return the number of values of each axis."""
    return tuple(len(axis.values) for axis in space.axes)


def flat_positions(positions: NDArray[np.int64], space: SearchSpace) -> Codes:
    """Number lattice positions, shape ``(rows, axes)``, in the axes' order."""
    return np.asarray(np.ravel_multi_index(tuple(positions.T), sizes_of(space)), dtype=np.int64)


def coded(names: Sequence[str]) -> tuple[tuple[str, ...], Codes]:
    """Number names in the order in which they appear; the codes have shape ``(rows,)``."""
    places: dict[str, int] = {}
    codes = [places.setdefault(name, len(places)) for name in names]
    return tuple(places), np.array(codes, dtype=np.int64)


def once(seconds: Column, codes: Codes) -> float:
    """Sum what is shared: one amount for each code, shapes ``(rows,)``."""
    _, first = np.unique(codes, return_index=True)
    return float(seconds[first].sum())
