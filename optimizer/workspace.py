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
import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from optimizer.errors import WorkspaceError
from trials.disk import sync, write_new
from trials.measurement import Block, BlockOnGpu, DeviceTimes, Stamps
from trials.store.locks import locked

BLOCKS_FORMAT = 2
_PLAIN_FORMAT = 1  # of blocks that no device and no GPU's meters were part of; still written
STORE_LIMIT_BYTES = 10 * 1024**3  # beyond it the least recently used entries go

_METADATA = b"trifront"
_OURS = "--workspace"  # where we make folders as we need them
_STAMPS = ("due_s", "start_s", "end_s", "batch")  # columns and fields alike, as are the next
_DEVICE_TIMES = ("gpu_s", "enqueue_s", "wall_s")


_Part = TypeVar("_Part", Stamps, DeviceTimes)


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

    @property
    def blocks_folder(self) -> Path:
        """Where the raw blocks of all trials lie."""
        return self.root / "blocks"

    def blocks(self, uid: str) -> Path:
        """Where the raw blocks of a trial lie."""
        return self.blocks_folder / f"{uid}.parquet"

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
def writing(path: Path, *, option: str = "--workspace") -> Iterator[None]:
    """Map the operating system's refusals to one line with the mend.

    Args:
        path: What is written.
        option: Where a user names another place for it.

    Raises:
        WorkspaceError: The disk is full, the folder read-only, or the like.
    """
    try:
        yield
    except OSError as error:
        pruning = "; `trifront store prune` drops stored engines" if option == _OURS else ""
        hint = {
            errno.ENOENT: f"make the folder first, or choose another {option}",
            errno.ENOSPC: f"free some space{pruning}",
            errno.EDQUOT: f"free some of your quota{pruning}",
            errno.EFBIG: f"free some of your quota{pruning}",
            errno.EROFS: f"choose a folder that you may write with {option}",
            errno.EACCES: f"choose a folder that you may write with {option}",
            errno.EEXIST: f"a file is in the way; choose another {option}",
            errno.ENOTDIR: f"a file is in the way; choose another {option}",
            errno.EISDIR: f"a folder is in the way; choose another {option}",
            errno.ENOLCK: f"its file system has no locks; choose a local disk with {option}",
            errno.EOPNOTSUPP: f"its file system has no locks; choose a local disk with {option}",
        }.get(error.errno or 0, "")
        raise WorkspaceError(f"cannot write {path}: {error.strerror}", hint=hint) from error


def write_atomically(path: Path, content: bytes, *, option: str = "--workspace") -> None:
    """Write a file so that it is there whole or not at all, whatever dies when.

    Whoever writes it holds a lock of it, which the kernel ends with the process; so an unfinished
    one beside it was left by the dead, and is replaced.

    Args:
        path: Where to; an existing file is replaced.
        content: All of it.
        option: Where a user names another place for it.

    Raises:
        WorkspaceError: It cannot be written; nothing is left behind.
    """
    with writing(path, option=option):
        if option == _OURS:  # the folder of a file that a user names may be misspelt
            path.parent.mkdir(parents=True, exist_ok=True)
        draft, lock = _draft_of(path), _lock_of(path)
        with locked(lock):
            draft.unlink(missing_ok=True)
            try:
                write_new(draft, content)
                draft.replace(path)
            except BaseException:
                draft.unlink(missing_ok=True)
                raise
            sync(path.parent)


def sweep_drafts(folder: Path) -> None:
    """Remove what writers that were killed left in a folder of ours.

    Raises:
        WorkspaceError: It cannot be removed.
    """
    left = (*folder.glob(".*.draft"), *folder.glob(".*.lock"))
    with writing(folder):
        for path in sorted({one.with_name(one.stem.removeprefix(".")) for one in left}):
            with locked(_lock_of(path)):  # not while somebody living writes it
                _draft_of(path).unlink(missing_ok=True)


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.draft")


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def save_blocks(blocks: tuple[Block, ...], path: Path) -> None:
    """Write raw blocks as Parquet: a row per request, the blocks' own facts as metadata.

    Columns: ``block`` (index) and ``latency_s``; of open-loop load ``due_s``, ``start_s``,
    ``end_s`` and ``batch``; of a device ``gpu_s``, ``enqueue_s`` and ``wall_s``. The schema's
    metadata key ``trifront`` is a JSON document with ``format``, per block ``start_s``,
    ``window_s`` and ``batch_size`` (and ``gpu`` where one was read), and ``sha256`` over all of
    it, because Parquet itself notices few changed bytes.

    Raises:
        WorkspaceError: The file cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    facts = [_facts_of(one) for one in blocks]
    sizes = [len(one.latencies_s) for one in blocks]
    columns = {
        "block": np.repeat(np.arange(len(blocks), dtype=np.int32), sizes),
        "latency_s": np.concatenate([one.latencies_s for one in blocks]),
        **_columns(_STAMPS, [one.stamps for one in blocks]),
        **_columns(_DEVICE_TIMES, [one.device for one in blocks]),
    }
    document = {
        "format": _format_of(blocks),
        "blocks": facts,
        "sha256": _digest(facts, columns.values()),
    }
    table = pa.table(columns).replace_schema_metadata({_METADATA: json.dumps(document)})
    buffer = BytesIO()
    parquet.write_table(table, buffer, compression="zstd")
    write_atomically(path, buffer.getvalue())


def _format_of(blocks: Sequence[Block]) -> int:
    """Say what a reader must know; plain blocks are for older ones too."""
    is_plain = all(one.gpu is None and one.device is None for one in blocks)
    return _PLAIN_FORMAT if is_plain else BLOCKS_FORMAT


def _facts_of(block: Block) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "start_s": block.start_s,
        "window_s": block.window_s,
        "batch_size": block.batch_size,
    }
    return facts if block.gpu is None else facts | {"gpu": asdict(block.gpu)}


def _gpu_in(facts: dict[str, Any]) -> BlockOnGpu | None:
    """Read back what JSON made of a GPU's readings: its pairs are lists."""
    if "gpu" not in facts:
        return None
    pairs = {name: tuple(facts["gpu"][name]) for name in ("sm_mhz", "memory_mhz")}
    return BlockOnGpu(**(facts["gpu"] | pairs))


def _columns(
    names: tuple[str, ...], parts: Sequence[Stamps | DeviceTimes | None]
) -> dict[str, NDArray[np.generic]]:
    """Return columns that only some loads have, by name; none where a block lacks them."""
    if None in parts:
        return {}
    return {name: np.concatenate([getattr(one, name) for one in parts]) for name in names}


def discard_blocks(path: Path) -> None:
    """Remove the raw blocks of a trial that was lost.

    Raises:
        WorkspaceError: They cannot be removed.
    """
    with writing(path):
        path.unlink(missing_ok=True)


def load_blocks(path: Path) -> tuple[Block, ...]:
    """Read raw blocks back, to the last digit.

    Raises:
        FileNotFoundError: There are none for this trial.
        WorkspaceError: The file is damaged, or of another version.
    """
    try:
        return _blocks_in(path)
    except FileNotFoundError:
        raise
    # what PyArrow raises descends from these, and so does what JSON and a dataclass make of it
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise WorkspaceError(
            f"{path} holds no raw blocks, or is damaged: {str(error).splitlines()[0]}",
            hint="put back a copy of it; without the file, its trial is judged by its intervals",
        ) from error


def _blocks_in(path: Path) -> tuple[Block, ...]:
    from pyarrow import parquet

    table = parquet.read_table(path)
    document = json.loads((table.schema.metadata or {})[_METADATA])
    found = document["format"]
    if found not in (_PLAIN_FORMAT, BLOCKS_FORMAT):
        raise WorkspaceError(
            f"{path} is of format {found}, this trifront reads up to {BLOCKS_FORMAT}",
            hint="read it with the trifront that wrote it",
        )
    columns = {name: table[name].to_numpy() for name in table.column_names}
    if (columns["block"].dtype, columns["latency_s"].dtype) != (np.int32, np.float64):
        raise ValueError("its columns are of other types")
    # files from before the digest have none
    if document.get("sha256") not in (None, _digest(document["blocks"], columns.values())):
        raise ValueError("its content is not what was written")
    cuts = np.cumsum(np.bincount(columns["block"], minlength=len(document["blocks"])))[:-1]
    pieces = np.split(columns["latency_s"], cuts)
    stamps = _parts(Stamps, _STAMPS, columns, cuts)
    device = _parts(DeviceTimes, _DEVICE_TIMES, columns, cuts)
    return tuple(
        Block(**(facts | {"gpu": _gpu_in(facts)}), latencies_s=piece, stamps=stamped, device=times)
        for facts, piece, stamped, times in zip(
            document["blocks"], pieces, stamps, device, strict=True
        )
    )


def _parts(
    kind: type[_Part],
    names: tuple[str, ...],
    columns: dict[str, NDArray[Any]],
    cuts: NDArray[np.int64],
) -> list[_Part] | list[None]:
    """Cut columns that only some loads have into blocks; None for each where there are none."""
    if names[0] not in columns:
        return [None] * (cuts.size + 1)
    split = [np.split(columns[name], cuts) for name in names]
    return [kind(**dict(zip(names, each, strict=True))) for each in zip(*split, strict=True)]


def _digest(facts: list[dict[str, Any]], columns: Iterable[NDArray[Any]]) -> str:
    """Digest blocks: their facts as JSON with sorted keys, then all columns, little-endian."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for column in columns:
        digest.update(column.astype(column.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
