"""The workspace: the one folder that holds what trifront remembers.

::

    trifront/
    ├── studies.db    Optuna's storage (unless another URL is given)
    ├── store/        converted models, engines, scores, by content
    ├── blocks/       raw latencies, one Parquet file per measured trial
    ├── spool/        what MLflow is to be told and was not yet
    ├── mlflow.db     MLflow's storage (unless another URI is given)
    └── mlartifacts/  MLflow's files
"""

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from optimizer.errors import WorkspaceError
from trials.measurement import Block, Stamps

BLOCKS_FORMAT = 1
STORE_LIMIT_BYTES = 10 * 1024**3  # beyond it the least recently used entries go

_METADATA = b"trifront"
_STAMPS = ("due_s", "start_s", "end_s", "batch")  # columns and fields alike


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Paths in one workspace folder; nothing is created until it is needed."""

    root: Path

    @property
    def storage_url(self) -> str:
        """Optuna's storage where no other is given."""
        return f"sqlite:///{self.root / 'studies.db'}"

    @property
    def store(self) -> Path:
        """The engine store."""
        return self.root / "store"

    @property
    def spool(self) -> Path:
        """What MLflow is to be told, a folder for each MLflow."""
        return self.root / "spool"

    @property
    def mlflow(self) -> Path:
        """MLflow's database where no other URI is given."""
        return self.root / "mlflow.db"

    def blocks(self, uid: str) -> Path:
        """Where the raw blocks of a trial lie."""
        return self.root / "blocks" / f"{uid}.parquet"

    def create(self) -> None:
        """Make the folder and see that it can be written.

        Raises:
            WorkspaceError: It cannot.
        """
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        self.check_writable()

    def check_writable(self) -> None:
        """See that the folder can be written, or made; nothing is left behind.

        Raises:
            WorkspaceError: It cannot.
        """
        with writing(self.root):
            there = next(one for one in (self.root, *self.root.parents) if one.exists())
            with tempfile.TemporaryFile(dir=there):
                pass


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Map the operating system's refusals to one line with the mend.

    Raises:
        WorkspaceError: The disk is full, the folder read-only, or the like.
    """
    try:
        yield
    except OSError as error:
        hint = {
            errno.ENOSPC: "free some space; `trifront store prune` drops stored engines",
            errno.EDQUOT: "free some of your quota; `trifront store prune` drops stored engines",
            errno.EFBIG: "free some of your quota; `trifront store prune` drops stored engines",
            errno.EROFS: "choose a folder that you may write with --workspace",
            errno.EACCES: "choose a folder that you may write with --workspace",
            errno.EEXIST: "a file is in the way; choose another --workspace",
            errno.ENOTDIR: "a file is in the way; choose another --workspace",
        }.get(error.errno or 0, "")
        raise WorkspaceError(f"cannot write {path}: {error.strerror}", hint=hint) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, whatever dies when.

    Raises:
        WorkspaceError: It cannot be written; nothing is left behind.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), 0o666 & ~_umask())  # mkstemp made it for us alone
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def _umask() -> int:
    current = os.umask(0)  # the only way to read it is to set it
    os.umask(current)
    return current


def save_blocks(blocks: tuple[Block, ...], path: Path) -> None:
    """Write raw blocks as Parquet: a row per request, the blocks' own facts as metadata.

    Columns: ``block`` (index) and ``latency_s``, and of open-loop load ``due_s``, ``start_s``,
    ``end_s`` and ``batch``. The schema's metadata key ``trifront`` is a JSON
    document with ``format`` and, per block, ``start_s``, ``window_s`` and ``batch_size``.

    Raises:
        WorkspaceError: The file cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    facts = [
        {"start_s": one.start_s, "window_s": one.window_s, "batch_size": one.batch_size}
        for one in blocks
    ]
    sizes = [len(one.latencies_s) for one in blocks]
    table = pa.table(
        {
            "block": np.repeat(np.arange(len(blocks), dtype=np.int32), sizes),
            "latency_s": np.concatenate([one.latencies_s for one in blocks]),
            **_stamp_columns(blocks),
        }
    ).replace_schema_metadata({_METADATA: json.dumps({"format": BLOCKS_FORMAT, "blocks": facts})})
    buffer = BytesIO()
    parquet.write_table(table, buffer, compression="zstd")
    write_atomically(path, buffer.getvalue())


def _stamp_columns(blocks: tuple[Block, ...]) -> dict[str, NDArray[np.generic]]:
    """Return the columns that only open-loop load has, by name."""
    stamps = [one.stamps for one in blocks if one.stamps is not None]
    if len(stamps) < len(blocks):
        return {}
    return {name: np.concatenate([getattr(one, name) for one in stamps]) for name in _STAMPS}


def discard_blocks(path: Path) -> None:
    """Remove the raw blocks of a trial that was lost, half-written ones included.

    Raises:
        WorkspaceError: They cannot be removed.
    """
    with writing(path):
        for left in (path, *path.parent.glob(f".{path.name}.*")):
            left.unlink(missing_ok=True)


def load_blocks(path: Path) -> tuple[Block, ...]:
    """Read raw blocks back, to the last digit.

    Raises:
        FileNotFoundError: There are none for this trial.
        WorkspaceError: The file is of another version.
    """
    from pyarrow import parquet

    table = parquet.read_table(path)
    document = json.loads(table.schema.metadata[_METADATA])
    if document["format"] != BLOCKS_FORMAT:
        raise WorkspaceError(
            f"{path} is of format {document['format']}, this version reads {BLOCKS_FORMAT}",
            hint="read it with the trifront that wrote it",
        )
    sizes = np.bincount(table["block"].to_numpy(), minlength=len(document["blocks"]))
    cuts = np.cumsum(sizes)[:-1]
    pieces = np.split(table["latency_s"].to_numpy(), cuts)
    is_open = _STAMPS[0] in table.column_names
    columns = [np.split(table[name].to_numpy(), cuts) for name in _STAMPS] if is_open else []
    stamps = [
        Stamps(**dict(zip(_STAMPS, each, strict=True))) for each in zip(*columns, strict=True)
    ]
    return tuple(
        Block(**facts, latencies_s=piece, stamps=stamps[at] if is_open else None)
        for at, (facts, piece) in enumerate(zip(document["blocks"], pieces, strict=True))
    )
