"""Deployment tables as files: one Parquet file, described in docs/formats/deployment-table.md."""

import json
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from optimizer.errors import TableError
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
from optimizer.study.records import json_from_space, space_from_json
from optimizer.workspace import write_atomically
from search_spaces.deployment import Scalar
from search_spaces.metrics import METRICS, Scale
from search_spaces.space import Axis, SearchSpace
from trials.capabilities import wanted_metrics

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1

_METADATA = b"trifront"
_LOW, _HIGH = "_low", "_high"
_AGAIN = "make it again with `trifront record`, or put back a copy of it"


class _Document(BaseModel):
    """What the file's metadata holds besides its format."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: int
    study: str
    id: str
    made_s: float
    space: dict[str, Any]
    space_file: str
    digests: dict[str, str]
    environment: dict[str, str]


def save_table(table: DeploymentTable, path: Path) -> None:
    """Write a table, whole or not at all.

    Raises:
        WorkspaceError: It cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    columns: dict[str, Any] = {
        axis.name: _written_axis(axis, table.positions[:, at])
        for at, axis in enumerate(table.space.axes)
    }
    columns |= {
        "state": _named(STATES, table.states),
        "kind": pa.array(table.kinds),
        "reason": pa.array(table.reasons),
        "model": _named(table.model_names, table.models),
        "engine": _named(table.engine_names, table.engines),
    }
    columns |= {name: getattr(table.prices, name) for name in PRICES}
    for at, name in enumerate(table.metrics.names):
        for ending, block in _ends(table.metrics):
            columns[name + ending] = pa.array(block[:, at], from_pandas=True)  # NaN is no value
    document = _document_of(table).model_dump_json()
    content = pa.table(columns).replace_schema_metadata({_METADATA: document})
    buffer = BytesIO()
    parquet.write_table(content, buffer, compression="zstd", write_page_checksum=True)
    write_atomically(path, buffer.getvalue(), option="--out")


def table_from_parquet(path: Path) -> DeploymentTable:
    """Read a table and check all of it.

    Raises:
        TableError: There is none, it is damaged or of another version, or it says what cannot
            be; one line that names the file, the column and the mend.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        content = parquet.read_table(path, page_checksum_verification=True)
    except FileNotFoundError as error:
        raise TableError(
            f"there is no deployment table {path}",
            hint="`trifront record SPACE --out FILE` measures a space into one",
        ) from error
    except (OSError, pa.ArrowException) as error:
        raise TableError(
            f"{path} is no Parquet file, or is damaged: {str(error).splitlines()[0]}", hint=_AGAIN
        ) from error
    document = _document_in(content.schema.metadata or {}, path)
    try:
        space = space_from_json(json.dumps(document.space))
        return _Reader(content, space, document).table()
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise TableError(f"{path}: metadata: space.{key}: {first['msg']}", hint=_AGAIN) from error
    except ValueError as error:
        raise TableError(f"{path}: {error}", hint=_AGAIN) from error


def _document_of(table: DeploymentTable) -> _Document:
    origin = table.origin
    return _Document(
        format=FORMAT,
        study=origin.study,
        id=origin.identity,
        made_s=origin.made_s,
        space=json.loads(json_from_space(table.space)),
        space_file=origin.space_file,
        digests=dict(origin.digests),
        environment=dict(origin.environment),
    )


def _document_in(metadata: dict[bytes, bytes], path: Path) -> _Document:
    """Read the metadata.

    Raises:
        TableError: There is none, or it is not of this version.
    """
    try:
        raw = json.loads(metadata[_METADATA])
        found = raw["format"]
    except (KeyError, TypeError, ValueError) as error:
        raise TableError(
            f"{path} is no deployment table: its metadata has no document 'trifront'",
            hint="`trifront record SPACE --out FILE` measures a space into one",
        ) from error
    if found != FORMAT or "space" not in raw:  # raw blocks have a document of that name too
        is_other = "space" in raw
        what = f"is of format {found}, this trifront reads {FORMAT}"
        raise TableError(
            f"{path} {what if is_other else 'holds something else than a deployment table'}",
            hint="read it with the trifront that wrote it" if is_other else _AGAIN,
        )
    try:
        return _Document.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise TableError(f"{path}: metadata: {key}: {first['msg']}", hint=_AGAIN) from error


class _Reader:
    """Turns the columns of one file into a table; every method raises ValueError."""

    def __init__(self, content: "pa.Table", space: SearchSpace, document: _Document) -> None:
        self._content = content
        self._space = space
        self._document = document

    def table(self) -> DeploymentTable:
        axes = self._space.axes
        columns = [self._codes(axis.name, _written_values(axis)) for axis in axes]
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
            origin=self._origin(),
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

    def _origin(self) -> Origin:
        document = self._document
        return Origin(
            study=document.study,
            identity=document.id,
            space_file=document.space_file,
            digests=tuple(document.digests.items()),
            environment=tuple(document.environment.items()),
            made_s=document.made_s,
        )

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
            for ending in ("", _LOW, _HIGH)
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


def _ends(metrics: Metrics) -> Iterator[tuple[str, NDArray[np.float64]]]:
    yield "", metrics.values
    yield _LOW, metrics.lows
    yield _HIGH, metrics.highs


def _named(names: Sequence[str], codes: Codes) -> "pa.Array":
    import pyarrow as pa

    return pa.array(names).take(pa.array(codes))


def _written_axis(axis: Axis, positions: Codes) -> "pa.Array":
    import pyarrow as pa

    return pa.array(_written_values(axis)).take(pa.array(positions))


def _written_values(axis: Axis) -> tuple[Scalar, ...]:
    """Return an axis' values of one type, as a column has them: mixed ones are JSON texts."""
    kinds = {type(value) for value in axis.values}
    if len(kinds) == 1:
        return axis.values
    if kinds == {int, float}:
        return tuple(float(value) for value in axis.values)
    return tuple(json.dumps(value) for value in axis.values)
