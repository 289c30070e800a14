"""The rows of a deployment table's file, read column by column and held to what they must be."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from optimizer.replaying.table import (
    COMPLETED,
    PRICES,
    STATES,
    Codes,
    Column,
    DeploymentTable,
    Metrics,
    Origin,
    Prices,
    coded,
    flat_positions,
)
from search_spaces.deployment import Scalar
from search_spaces.metrics import METRICS, Scale
from search_spaces.space import Axis, SearchSpace
from trials.capabilities import wanted_metrics

if TYPE_CHECKING:
    import pyarrow as pa

LOW, HIGH = "_low", "_high"  # endings of the columns of a metric's interval


class RowReader:
    """Turns the columns of one file into a table.

    Every method raises ValueError where they say what cannot be, in a line that names the column.
    """

    def __init__(self, content: "pa.Table", space: SearchSpace, origin: Origin) -> None:
        self._content = content
        self._space = space
        self._origin = origin

    def table(self) -> DeploymentTable:
        """Read all columns; rows may lie in any order."""
        axes = self._space.axes
        columns = [self._codes(axis.name, written_values(axis)) for axis in axes]
        positions = np.stack(columns, axis=1)
        flat = flat_positions(positions, self._space)
        order = np.argsort(flat, kind="stable")
        self._content = self._content.take(order)
        flat, positions = flat[order], positions[order]
        twice = np.flatnonzero(np.diff(flat) == 0)
        if twice.size:
            raise ValueError(f"{self._point(positions[twice[0]])} has two rows")
        model_names, models = coded(self._texts("model"))
        engine_names, engines = coded(self._texts("engine"))
        table = DeploymentTable(
            space=self._space,
            origin=self._origin,
            positions=positions,
            states=self._codes("state", STATES),
            kinds=tuple(self._texts("kind")),
            reasons=tuple(self._texts("reason")),
            model_names=model_names,
            models=models,
            engine_names=engine_names,
            engines=engines,
            metrics=self._metrics(),
            prices=Prices(**{name: self._price(name) for name in PRICES}),
            flat=flat,
        )
        self._check_shared(table)
        self._check_wanted(table)
        return table

    def _column(self, name: str) -> list[Any]:
        if name not in self._content.column_names:
            raise ValueError(f"column {name} is missing")
        found: list[Any] = self._content[name].to_pylist()
        return found

    def _texts(self, name: str) -> list[str]:
        texts = self._column(name)
        strange = next((one for one in texts if not isinstance(one, str)), None)
        if strange is not None or None in texts:
            raise ValueError(f"column {name} holds {strange!r}, which is no text")
        return texts

    def _codes(self, name: str, values: Sequence[Scalar]) -> Codes:
        """Return where each value of a column stands among those that it may have."""
        places = {(type(value), value): at for at, value in enumerate(values)}
        found = self._column(name)
        try:
            return np.array([places[type(one), one] for one in found], dtype=np.int64)
        except (KeyError, TypeError):
            odd = next(one for one in found if (type(one), one) not in places)
            known = ", ".join(map(str, values))
            raise ValueError(f"column {name} holds {odd!r}; it may hold {known}") from None

    def _numbers(self, name: str) -> Column:
        """Read numbers, of which some may be missing: NaN."""
        import pyarrow as pa

        if name not in self._content.column_names:
            raise ValueError(f"column {name} is missing")
        column = self._content[name]
        if not (pa.types.is_floating(column.type) or pa.types.is_null(column.type)):
            raise ValueError(f"column {name} is of type {column.type}; it must be double")
        return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)

    def _price(self, name: str) -> Column:
        found = self._numbers(name)
        wrong = np.flatnonzero(~(np.isfinite(found) & (found >= 0)))
        if wrong.size:
            raise ValueError(
                f"column {name}, row {wrong[0]}: {found[wrong[0]]} s; a price is 0 or more"
            )
        return found

    def _metrics(self) -> Metrics:
        names = tuple(name for name in self._content.column_names if name in METRICS)
        blocks = [
            np.stack([self._numbers(name + ending) for name in names], axis=1)
            if names
            else np.empty((len(self._content), 0))
            for ending in ("", LOW, HIGH)
        ]
        return Metrics(names=names, values=blocks[0], lows=blocks[1], highs=blocks[2])

    def _check_shared(self, table: DeploymentTable) -> None:
        """See that what is shared has one price."""
        shared = (
            ("convert_s", "model", table.models, table.model_names),
            ("build_s", "engine", table.engines, table.engine_names),
            ("score_s", "engine", table.engines, table.engine_names),
        )
        for price, what, codes, names in shared:
            seconds = getattr(table.prices, price)
            first = np.zeros(len(names))
            first[codes[::-1]] = seconds[::-1]
            odd = np.flatnonzero(seconds != first[codes])
            if odd.size:
                name = names[codes[odd[0]]]
                raise ValueError(f"column {price}: {what} {name} has more than one price")

    def _check_wanted(self, table: DeploymentTable) -> None:
        """See that what is measured has a value of all that the space wants."""
        space = table.space
        for name in wanted_metrics(space):
            metric = METRICS[name]
            if name not in table.metrics.names:
                raise ValueError(f"column {name} is missing, which the space is about")
            values = table.metrics.column(name)
            least = 0.0 if metric.scale is Scale.LOG else -np.inf
            wrong = np.flatnonzero(table.completed & ~(np.isfinite(values) & (values > least)))
            if wrong.size:
                at = self._point(table.positions[wrong[0]])
                raise ValueError(f"column {name}: {values[wrong[0]]} for {at}, {COMPLETED}")

    def _point(self, positions: NDArray[np.int64]) -> str:
        pairs = zip(self._space.axes, positions.tolist(), strict=True)
        return " ".join(f"{axis.name}={axis.values[at]}" for axis, at in pairs)


def written_values(axis: Axis) -> tuple[Scalar, ...]:
    """Return an axis' values of one type, as a column has them: mixed ones are JSON texts."""
    kinds = {type(value) for value in axis.values}
    if len(kinds) == 1:
        return axis.values
    if kinds == {int, float}:
        return tuple(float(value) for value in axis.values)
    return tuple(json.dumps(value) for value in axis.values)
