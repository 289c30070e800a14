"""MLflow's SQLite database, made so that it is there whole or not at all.

MLflow fills a fresh database in dozens of steps that cannot be repeated: killed between two of
them, it refuses the database ever after (``duplicate column name``). So it is filled under another
name, and named when it is done.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trials.store.locks import locked

_SQLITE = "sqlite:///"


def make_sqlite(uri: str) -> None:
    """Make the SQLite database of a tracking URI where there is none; leave any other alone.

    Raises:
        OSError: The folder cannot be written.
    """
    file = Path(uri.removeprefix(_SQLITE).partition("?")[0])
    if not uri.startswith(_SQLITE) or file.exists() or not file.parent.is_dir():
        return
    with locked(file.with_name(f".{file.name}.making")):
        draft = file.with_name(f".{file.name}.draft")
        for left in draft, draft.with_name(f"{draft.name}-journal"):
            left.unlink(missing_ok=True)
        if not file.exists():
            _fill(draft)
            draft.rename(file)


@contextmanager
def legacy_tables() -> Iterator[None]:
    """Bear that MLflow's own tables use what SQLAlchemy 2.1 deprecates."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The ``noload`` loader", DeprecationWarning)
        yield


def _fill(file: Path) -> None:
    with legacy_tables():
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        artifacts = (file.parent.resolve() / "mlartifacts").as_uri()
        store = SqlAlchemyStore(f"{_SQLITE}{file}", artifacts)  # type: ignore[no-untyped-call]
        store.engine.dispose()  # a connection to the old name would spoil the new one's locks
