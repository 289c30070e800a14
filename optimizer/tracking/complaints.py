"""What MLflow complains of, turned into one line with the mend and without passwords."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points

from filelock import Timeout

from optimizer.errors import TrackingError, UsageError

LOCK_TIMEOUT_S = 60  # one record takes tens of milliseconds: a minute means that somebody hangs

_SERVERS = ("http", "https", "databricks", "databricks-uc", "uc")
_FOLDERS_ALLOWED = "MLFLOW_ALLOW_FILE_STORE"  # MLflow's own word
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_REFUSED = re.compile(r"\[Errno -?\d+\] ([^\"')\]]+)|(timed out)")  # deep in what requests says


def check_uri(uri: str | None) -> None:
    """See that a tracking URI means something, without asking MLflow, which takes seconds.

    Raises:
        UsageError: MLflow knows no such scheme.
    """
    if not uri:
        return
    scheme = uri.partition(":")[0].partition("+")[0]
    plugins = entry_points(group="mlflow.tracking_store").names
    if scheme in (*_SERVERS, *_DATABASES, *plugins):
        return
    if scheme == "file" or "://" not in uri:
        if os.environ.get(_FOLDERS_ALLOWED, "").lower() in ("true", "1"):
            return
        problem = f"MLflow keeps runs in folders only where {_FOLDERS_ALLOWED}=true is set"
    else:
        problem = f"there is no tracking by {scheme!r}"
    raise UsageError(
        f"MLflow {public_uri(uri)}: {problem}",
        hint="write http://host:port, sqlite:///mlflow.db, or none",
    )


@contextmanager
def tracking_errors(uri: str) -> Iterator[None]:
    """Map what MLflow, its database, its files and the lock throw to one line.

    Raises:
        TrackingError: MLflow refuses or cannot be reached; the hint says what to do.
    """
    shown = public_uri(uri)
    try:
        yield
    except Timeout as error:
        raise TrackingError(
            f"MLflow {shown}: another process has been writing for {LOCK_TIMEOUT_S} s",
            hint="end the process that hangs, then run the same command again",
        ) from error
    except _foreign_errors() as error:
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
        refused = _REFUSED.search(cause)
        cause = cause.replace(uri, shown) if refused is None else refused[1] or refused[2]
        raise TrackingError(f"MLflow {shown}: {cause}", hint=_hint(cause)) from error
    except OSError as error:
        cause = ": ".join(str(part) for part in (error.strerror or error, error.filename) if part)
        raise TrackingError(f"MLflow {shown}: {cause}", hint=_hint(cause)) from error


def _foreign_errors() -> tuple[type[Exception], ...]:
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, RequestException, SQLAlchemyError


def _hint(cause: str) -> str:
    told = cause.lower()
    if "no space" in told or "full" in told:
        return "free some space; what is missing is written when the search is resumed"
    if any(word in told for word in ("readonly", "read-only", "unable to open", "permission")):
        return "choose a folder that you may write with --workspace"
    if "out-of-date" in told:
        return "another version of MLflow made this database: mlflow db upgrade URI"
    return "see that the server runs and the URI is right; a resumed search writes what is missing"


def public_uri(uri: str) -> str:
    """Hide user and password."""
    scheme, separator, rest = uri.partition("://")
    place, slash, path = rest.partition("/")
    return scheme + separator + place.rpartition("@")[2] + slash + path
