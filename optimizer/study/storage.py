"""Optuna's storage: opened once and safely, its complaints turned into one line with the mend.

SQLite lets one process write at a time; the others wait for a minute at most before they say that
the database is locked. A URL may ask for another patience: ``sqlite:///studies.db?timeout=5``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from filelock import FileLock, Timeout

from optimizer.addresses import without_secrets
from optimizer.errors import StorageError
from optimizer.study.turns import turn_to_open
from optimizer.workspace import Workspace, writing

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

_SQLITE_TIMEOUT_S = 60.0  # several processes write in turn; SQLite's own 5 s is too short
_HINTS = (
    (
        "locked",
        "another process holds the database; end it, or share a PostgreSQL server instead",
    ),
    ("full", "free some space; `trifront store prune` drops stored engines"),
    ("disk I/O", "see that the disk is sound, not full, and that no quota is used up"),
    ("readonly", "choose a folder that you may write with --workspace"),
    ("unable to open", "choose a folder that you may write with --workspace"),
    ("no such table", "it holds no study yet; a search with this --storage makes its tables"),
    ('relation "', "it holds no study yet; a search with this --storage makes its tables"),
    ("not a database", "the file is something else; name another one"),
    (
        "malformed",
        "put back a copy of the file, or save what is left with `sqlite3 studies.db .recover`",
    ),
)


def open_storage(url: str, workspace: Workspace) -> optuna.storages.BaseStorage:
    """Open a storage, creating its tables once, also when several processes start at a time.

    Raises:
        StorageError: It cannot be reached.
        WorkspaceError: The workspace cannot be written.
    """
    _calm()
    workspace.create()
    with writing(workspace.root), storage_errors(url):
        patience_s = _patience_s(url)
        lock = FileLock(workspace.root / ".storage.lock", timeout=patience_s)
        with lock, turn_to_open(url):
            return _opened(url)


def existing_storage(url: str) -> optuna.storages.RDBStorage:
    """Open a storage that exists, to read it; nothing is created, and nothing need be writable.

    Raises:
        StorageError: It does not exist or cannot be reached.
    """
    _calm()
    with storage_errors(url):
        file = _sqlite_file(url)
        if file is None:
            say_hello(url)
        elif not file.is_file():
            raise StorageError(
                f"there is no study storage {file}",
                hint="begin a search first, or choose its folder with --workspace",
            )
        return _opened(url, skip_table_creation=True)


def _opened(url: str, *, skip_table_creation: bool = False) -> optuna.storages.RDBStorage:
    try:
        return optuna.storages.RDBStorage(
            url, engine_kwargs=_engine_options(url), skip_table_creation=skip_table_creation
        )
    except RuntimeError as error:  # what Optuna says of tables that it does not know
        raise StorageError(
            f"study storage {public_url(url)} is of another version of Optuna: {error}",
            hint="read it where that version is installed, or choose another --storage",
        ) from error


def check_reachable(url: str) -> None:
    """Find out whether there is a database to be had, before anything is begun or written.

    Raises:
        StorageError: No such URL, driver, folder or server.
    """
    with storage_errors(url):
        file = _sqlite_file(url)
        if file is None:
            say_hello(url)
            return
        _patience_s(url)
        if not file.parent.is_dir():
            raise StorageError(
                f"study storage {public_url(url)}: there is no folder {file.parent}",
                hint="make the folder, or correct the URL",
            )


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Map what a database throws to one line.

    Raises:
        StorageError: The storage cannot be reached, is locked, full or read-only.
    """
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    try:
        yield
    except Timeout as error:
        raise StorageError(
            f"study storage {public_url(url)}: another process has been opening it all the while",
            hint=f"end the process that hangs; it holds {error.lock_file}",
        ) from error
    except (SQLAlchemyError, ImportError, optuna.exceptions.StorageInternalError) as error:
        root = error.__cause__ if isinstance(error, optuna.exceptions.OptunaError) else error
        cause = str(getattr(root, "orig", None) or root).splitlines()[0]
        if isinstance(error, ImportError):
            hint = "install its driver, for PostgreSQL: pip install 'trifront[postgresql]'"
        elif isinstance(error, ArgumentError):
            hint = "a storage URL looks like sqlite:///studies.db or postgresql://user@host/name"
        else:
            hint = _hint(cause)
        raise StorageError(f"study storage {public_url(url)}: {cause}", hint=hint) from error


def _calm() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it reports every trial; so do we


def _address(url: str) -> "URL":
    """Read a URL.

    Raises:
        StorageError: It is not what its writer meant.
        sqlalchemy.exc.ArgumentError: It is none.
    """
    from sqlalchemy.engine import make_url

    try:
        address = make_url(url)
    except ValueError as error:
        raise StorageError(
            f"study storage {public_url(url)}: the port is no number",
            hint="a storage URL looks like postgresql://user:password@host:5432/name",
        ) from error
    if "@" in (address.host or ""):
        raise StorageError(
            f"study storage {public_url(url)}: there is an @ in the user or the password",
            hint="write it as %40",
        )
    return address


def _sqlite_file(url: str) -> Path | None:
    """Return the file of an SQLite storage, None for any other database.

    Raises:
        StorageError: An SQLite database in memory, which would forget everything.
    """
    address = _address(url)
    if address.get_backend_name() != "sqlite":
        return None
    if address.database in (None, "", ":memory:"):
        raise StorageError(
            f"study storage {url}: a database in memory keeps nothing",
            hint="name a file, for example sqlite:///studies.db",
        )
    return Path(str(address.database))


def _patience_s(url: str) -> float:
    asked = _address(url).query.get("timeout")
    try:
        return _SQLITE_TIMEOUT_S if asked is None else float(str(asked))
    except ValueError as error:
        raise StorageError(
            f"study storage {public_url(url)}: timeout={asked} is no number",
            hint="write seconds, for example ?timeout=60",
        ) from error


def _engine_options(url: str) -> dict[str, Any]:
    if _sqlite_file(url) is None:
        return {}
    return {"connect_args": {"timeout": _patience_s(url)}}


def say_hello(url: str) -> None:
    """Connect to a database server and leave it again.

    Raises:
        SQLAlchemyError: It does not answer, or refuses.
    """
    from sqlalchemy import create_engine

    engine = create_engine(url)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def _hint(cause: str) -> str:
    otherwise = "see that the server runs and that user, password and database are right"
    return next((hint for word, hint in _HINTS if word in cause), otherwise)


def public_url(url: str) -> str:
    """Hide the password of a URL, and what may be one in a URL that is wrong."""
    shown = without_secrets(url, shows_user=True)
    return shown if "://" in url else repr(shown)
