"""Turns: of the searches that share one study, one decides what to try while the others wait.

Two processes that ask a study at once would propose the same deployment, because neither sees the
other's proposal. A turn is a lock that the kernel or the database ends with its process, so that a
kill leaves none behind:

- SQLite: a file beside the database, for the processes of one machine, as SQLite itself is;
- PostgreSQL: an advisory lock of the transaction, for all machines;
- any other database: none, so one search at a time.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import optuna

from optimizer.workspace import writing
from trials.store.locks import locked

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

Turn = Callable[[], AbstractContextManager[None]]


def turn_of(storage: optuna.storages.BaseStorage, study: str) -> Turn | None:
    """Return what holds the turn of a study; None where the database has no such thing.

    The turn waits for the others, is not re-entrant, and raises WorkspaceError where the lock
    file cannot be made and SQLAlchemy's errors where the server is out of reach.
    """
    if not isinstance(storage, optuna.storages.RDBStorage):
        return None
    engine = storage.engine
    if engine.dialect.name == "postgresql":
        return lambda: _postgresql_turn(engine, study)
    if engine.dialect.name == "sqlite" and engine.url.database:
        return lambda: _sqlite_turn(Path(str(engine.url.database)))
    return None


@contextmanager
def turn_to_open(url: str) -> Iterator[None]:
    """Hold the turn to make a server's tables, which two processes cannot do at once.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: The server is out of reach.
    """
    from sqlalchemy import create_engine, make_url

    if make_url(url).get_backend_name() != "postgresql":
        yield
        return
    engine = create_engine(url)
    try:
        with _postgresql_turn(engine, study=""):
            yield
    finally:
        engine.dispose()


@contextmanager
def _sqlite_turn(database: Path) -> Iterator[None]:
    lock = database.with_name(f".{database.name}.turn").absolute()
    with writing(lock), locked(lock):
        yield


@contextmanager
def _postgresql_turn(engine: "Engine", study: str) -> Iterator[None]:
    from sqlalchemy import text

    key = int.from_bytes(sha256(f"trifront {study}".encode()).digest()[:8], signed=True)
    with engine.begin() as connection:  # the lock ends with the transaction, however that ends
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
        yield
