"""Optuna's storage: opened once and safely, its complaints turned into one line with the mend."""

from collections.abc import Iterator
from contextlib import contextmanager

import optuna
from filelock import FileLock

from optimizer.errors import StorageError
from optimizer.workspace import Workspace, writing

_SQLITE_TIMEOUT_S = 60  # several processes write in turn; SQLite's own 5 s is too short


def open_storage(url: str, workspace: Workspace) -> optuna.storages.BaseStorage:
    """Open a storage, creating its tables once, also when several processes start at a time.

    Raises:
        StorageError: It cannot be reached.
        WorkspaceError: The workspace cannot be written.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it reports every trial; so do we
    connect = {"timeout": _SQLITE_TIMEOUT_S} if url.startswith("sqlite") else {}
    with writing(workspace.root), FileLock(workspace.root / ".storage.lock"), storage_errors(url):
        return optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": connect})


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Map what a database throws to one line.

    Raises:
        StorageError: The storage cannot be reached, is locked, full or read-only.
    """
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, ImportError, optuna.exceptions.StorageInternalError) as error:
        root = error.__cause__ if isinstance(error, optuna.exceptions.OptunaError) else error
        cause = str(getattr(root, "orig", None) or root).splitlines()[0]
        if isinstance(error, ImportError):
            hint = (
                "install the driver of that database, for PostgreSQL: pip install psycopg2-binary"
            )
        elif isinstance(error, ArgumentError):
            hint = "a storage URL looks like sqlite:///studies.db or postgresql://user@host/name"
        else:
            hint = _hint(cause)
        raise StorageError(f"study storage {_public(url)}: {cause}", hint=hint) from error


def _hint(cause: str) -> str:
    if "locked" in cause:
        return "another process holds the database; end it, or share a PostgreSQL server instead"
    if "full" in cause:
        return "free some space; `trifront store prune` drops stored engines"
    if "readonly" in cause or "unable to open" in cause:
        return "choose a folder that you may write with --workspace"
    return "see that the server runs and that user, password and database are right"


def _public(url: str) -> str:
    """Hide the password of a URL."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return "URL"
