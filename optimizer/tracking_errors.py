"""What MLflow complains of, turned into one line with the mend and without passwords."""

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import Timeout

from optimizer.errors import TrackingError

LOCK_TIMEOUT_S = 60  # one record takes tens of milliseconds: a minute means that somebody hangs


@contextmanager
def tracking_errors(uri: str) -> Iterator[None]:
    """Map what MLflow, its database, its files and the lock throw to one line.

    Raises:
        TrackingError: MLflow refuses or cannot be reached; the hint says what to do.
    """
    shown = _public(uri)
    try:
        yield
    except Timeout as error:
        raise TrackingError(
            f"MLflow {shown}: another process has been writing for {LOCK_TIMEOUT_S} s",
            hint="end the process that hangs, then run the same command again",
        ) from error
    except _foreign_errors() as error:
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
        cause = cause.replace(uri, shown)
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


def _public(uri: str) -> str:
    """Hide user and password."""
    scheme, separator, rest = uri.partition("://")
    place, slash, path = rest.partition("/")
    return scheme + separator + place.rpartition("@")[2] + slash + path
