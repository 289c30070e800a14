"""Deployment tables as files: one Parquet file, described in docs/formats/deployment-table.md."""

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from optimizer.errors import TableError
from optimizer.replaying.table import PRICES, STATES, Codes, DeploymentTable, Origin
from optimizer.replaying.table_rows import HIGH, LOW, RowReader, written_values
from optimizer.study.records import json_from_space, space_from_json
from optimizer.workspace import write_atomically
from search_spaces.space import Axis

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1

_METADATA = b"trifront"
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
    metrics = table.metrics
    ends = (("", metrics.values), (LOW, metrics.lows), (HIGH, metrics.highs))
    for at, name in enumerate(metrics.names):
        for ending, block in ends:
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
        return RowReader(content, space, _origin(document)).table()
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


def _origin(document: _Document) -> Origin:
    return Origin(
        study=document.study,
        identity=document.id,
        space_file=document.space_file,
        digests=tuple(document.digests.items()),
        environment=tuple(document.environment.items()),
        made_s=document.made_s,
    )


def _named(names: Sequence[str], codes: Codes) -> "pa.Array":
    import pyarrow as pa

    return pa.array(names).take(pa.array(codes))


def _written_axis(axis: Axis, positions: Codes) -> "pa.Array":
    import pyarrow as pa

    return pa.array(written_values(axis)).take(pa.array(positions))
