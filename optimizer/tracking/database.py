"""MLflow's SQLite database, made so that it is there whole or not at all.

MLflow fills a fresh database in dozens of steps that cannot be repeated: killed between two of
them, it refuses the database ever after (``duplicate column name``). So it is filled under another
name, and named when it is done.
"""

import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from trials.store.locks import locked

_SQLITE = "sqlite:///"
_LOCATIONS = (  # every column in which MLflow keeps where files are
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def make_sqlite(uri: str) -> None:
    """Make the SQLite database of a tracking URI where there is none; leave any other alone.

    Raises:
        OSError: The folder cannot be written.
    """
    file = _file(uri)
    if not uri.startswith(_SQLITE) or file.exists() or not file.parent.is_dir():
        return
    with locked(file.with_name(f".{file.name}.making")):
        draft = file.with_name(f".{file.name}.draft")
        for left in draft, draft.with_name(f"{draft.name}-journal"):
            left.unlink(missing_ok=True)
        if not file.exists():
            _fill(draft)
            draft.rename(file)


def move_artifacts(uri: str) -> None:
    """Let a workspace's own database find its files again where the workspace was moved.

    MLflow keeps whole paths, so that a moved workspace would be read from, and written to, its
    former place. All or nothing, in one transaction.

    Raises:
        OSError: The database refuses.
    """
    file = _file(uri)
    now = artifacts_beside(file)
    try:
        with closing(sqlite3.connect(file)) as database, database:
            query = "SELECT artifact_location FROM experiments WHERE experiment_id = 0"
            (first,) = database.execute(query).fetchone() or ("",)
            before = first.removesuffix("/0")
            if not first.endswith("/mlartifacts/0") or before == now:
                return
            for table, column in _LOCATIONS:
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608 - our words
                    f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (now, len(before) + 1, before, len(before) + 1, f"{before}/"),
                )
    except sqlite3.Error as error:
        raise OSError(0, str(error), str(file)) from error


def artifacts_beside(file: Path) -> str:
    """Name the folder of artifacts beside a database, as MLflow writes it."""
    return (file.parent.resolve() / "mlartifacts").as_uri()


@contextmanager
def legacy_tables() -> Iterator[None]:
    """Bear that MLflow's own tables use what SQLAlchemy 2.1 deprecates."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The ``noload`` loader", DeprecationWarning)
        yield


def _file(uri: str) -> Path:
    return Path(uri.removeprefix(_SQLITE).partition("?")[0])


def _fill(file: Path) -> None:
    with legacy_tables():
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        store = SqlAlchemyStore(f"{_SQLITE}{file}", artifacts_beside(file))  # type: ignore[no-untyped-call]
        store.engine.dispose()  # a connection to the old name would spoil the new one's locks
