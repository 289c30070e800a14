"""What MLflow complains of, turned into one line with the mend and without passwords.

What counts is whose fault it is. An MLflow that does not answer, or refuses whoever asks, is tried
again later, and its records wait together. What it says of one record is that record's, and the
others are delivered.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from optimizer.errors import TrackingError, UnavailableError
from optimizer.tracking.destination import Destination

# deep in what requests says
_REFUSED = re.compile(r"\[Errno -?\d+\] ([^\"')\]]+)|(timed out)|(too many \d+ error responses)")
_CODE = re.compile(r"too many (\d+) error responses")
_OF_ALL = {401, 429, 503}  # not logged in, too many requests, out of service
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_NOT_LOGGED_IN = ("401", "403", "unauthorized", "unauthenticated", "not authorized", "permission")
_LENGTH = 300  # a complaint is one line; a server's page is not


@contextmanager
def tracking_errors(destination: Destination) -> Iterator[None]:
    """Map what MLflow, its server, database and files throw to one line.

    Raises:
        UnavailableError: It cannot be reached, or refuses everything.
        TrackingError: It refuses this.
    """
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError) as error:
        cause = _cause(error, destination)
        kind = UnavailableError if _is_of_all(error) else TrackingError
        raise kind(f"MLflow {destination.name}: {cause}", hint=_hint(cause)) from error
    except OSError as error:
        cause = ": ".join(str(part) for part in (error.strerror or error, error.filename) if part)
        kind = UnavailableError if error.errno in _DISK else TrackingError
        raise kind(f"MLflow {destination.name}: {cause}", hint=_hint(cause)) from error


def _is_of_all(error: Exception) -> bool:
    from mlflow.exceptions import MlflowException
    from requests import HTTPError, RequestException

    if isinstance(error, HTTPError) and error.response is not None:
        return error.response.status_code in _OF_ALL
    if isinstance(error, MlflowException):
        hidden = error.__cause__ or error.__context__  # MLflow wraps what requests throws
        if not isinstance(hidden, RequestException):
            code: int = error.get_http_status_code()  # type: ignore[no-untyped-call]
            return code in _OF_ALL
        error = hidden
    answered = _CODE.search(
        str(error)
    )  # a server that answers does not refuse all that it is told
    return answered is None or int(answered[1]) in _OF_ALL


def _cause(error: Exception, destination: Destination) -> str:
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    refused = _REFUSED.search(said)
    if refused is not None:
        return str(refused[1] or refused[2] or refused[3])
    return said.replace(destination.uri, destination.name)[:_LENGTH]


def _hint(cause: str) -> str:
    told = cause.lower()
    if "no space" in told or "full" in told:
        return "free some space there"
    if any(
        word in told for word in ("401", "403", "unauthorized", "not authorized", "permission")
    ):
        return (
            "log in: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "trifront sync --mlflow http://user:password@host"
        )
    if any(word in told for word in ("readonly", "read-only", "unable to open")):
        return "choose a folder that you may write with --workspace"
    if "out-of-date" in told:
        return "another version of MLflow made this database: mlflow db upgrade URI"
    return "see that the server runs and the URI is right"
