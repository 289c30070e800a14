"""MLflow's own pages beside the dashboard: one small server on this machine, which ends with us.

By default MLflow starts fifteen processes that hold 3 GB. With one worker and without jobs they
are two with 0.5 GB, and they serve one person just as well.
"""

import errno
import http.client
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep
from typing import IO

from optimizer.addresses import without_secrets
from optimizer.errors import OptimizerError, TrackingError, UsageError
from optimizer.study.storage import public_url
from optimizer.tracking.destination import check_uri

_HOST = "127.0.0.1"
_PATIENCE_S = 90.0  # it imports for seconds, for longer on a busy machine
_LOOK_S = 0.2
_BURIAL_S = 10.0
_LAST_WORDS_BYTES = 2_000
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


@contextmanager
def mlflow_ui(uri: str, *, port: int, on_end: Callable[[], None]) -> Iterator[str]:
    """Serve MLflow's pages on this machine for as long as the context lasts; give their address.

    An address of a tracking server that runs already is given back as it is.

    Args:
        uri: MLflow's tracking URI.
        port: TCP port; 0 picks a free one.
        on_end: Called from another thread where MLflow ends by itself.

    Raises:
        UsageError: The URI means nothing, or there is no such database.
        OptimizerError: The port is taken.
        TrackingError: The database cannot be reached, or MLflow does not start.
    """
    if uri.startswith(("http://", "https://")):
        yield uri
        return
    _check_database(uri)
    port = _free(port)
    with tempfile.TemporaryFile() as words:
        server = _started(uri, port, words)
        leaving = Event()
        try:
            _wait_until_ready(server, port, uri=uri, words=words)
            Thread(target=_watch, args=(server, leaving, on_end), daemon=True).start()
            yield f"http://{_HOST}:{port}"
        finally:
            leaving.set()
            _end(server)


def _check_database(uri: str) -> None:
    """See that there is a database: MLflow would make one, or try for minutes to reach it."""
    from sqlalchemy import create_engine, inspect, make_url

    check_uri(uri)
    with _database_errors(uri):
        address = make_url(uri)
        if address.get_backend_name() == "sqlite" and not Path(str(address.database)).is_file():
            raise UsageError(
                f"there is no MLflow database {address.database}",
                hint="a search makes one; `trifront dashboard` shows the studies alone",
            )
        engine = create_engine(uri)
        try:
            is_filled = inspect(engine).has_table("experiments")
        finally:
            engine.dispose()
    if not is_filled:
        raise UsageError(
            f"there are no MLflow runs in {public_url(uri)}",
            hint="a search with this --mlflow makes them",
        )


@contextmanager
def _database_errors(uri: str) -> Iterator[None]:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, ImportError) as error:
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise TrackingError(
            f"MLflow {without_secrets(uri)}: {cause}",
            hint="see that the server runs and the URI is right",
        ) from error


def _started(uri: str, port: int, words: IO[bytes]) -> "subprocess.Popen[bytes]":
    mlflow = (sys.executable, "-m", "mlflow", "server", "--host", _HOST, "--port", str(port))
    return subprocess.Popen(
        # -P: a folder called optimizer in the working directory is not ours
        [sys.executable, "-P", "-m", "optimizer.dashboard.guard", *mlflow, "--workers", "1"],
        # the URI may have a password, and command lines can be read by everybody
        env=os.environ | _QUIET | {"MLFLOW_BACKEND_STORE_URI": uri},
        stdin=subprocess.PIPE,
        stdout=words,
        stderr=words,
        process_group=0,  # Ctrl-C is ours; the guard ends the group
    )


def _end(server: "subprocess.Popen[bytes]") -> None:
    assert server.stdin is not None
    server.stdin.close()  # which the guard waits for
    with suppress(subprocess.TimeoutExpired):
        server.wait(_BURIAL_S)


def _watch(server: "subprocess.Popen[bytes]", leaving: Event, on_end: Callable[[], None]) -> None:
    server.wait()
    if not leaving.is_set():
        on_end()


def _wait_until_ready(
    server: "subprocess.Popen[bytes]", port: int, *, uri: str, words: IO[bytes]
) -> None:
    ends_s = monotonic() + _PATIENCE_S
    while monotonic() < ends_s:
        if server.poll() is not None:
            raise TrackingError(
                f"MLflow's pages of {public_url(uri)} did not start: {_last_line(words)}",
                hint="see that --mlflow names a database that this MLflow can read; "
                "`trifront dashboard` alone needs none",
            )
        if _answers(port):
            return
        sleep(_LOOK_S)
    raise TrackingError(
        f"MLflow's pages of {public_url(uri)} did not answer within {_PATIENCE_S:.0f} s",
        hint="try again when the machine is less busy; `trifront dashboard` alone needs no MLflow",
    )


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(_HOST, port, timeout=_PATIENCE_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


def _last_line(words: IO[bytes]) -> str:
    """Return the last thing that MLflow said, which names the cause."""
    words.seek(max(0, words.seek(0, os.SEEK_END) - _LAST_WORDS_BYTES))
    lines = words.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def _free(port: int) -> int:
    """Return the port, or a free one for 0, while nobody listens there.

    Raises:
        OptimizerError: Somebody does.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            raise OptimizerError(
                f"port {port} on {_HOST} is taken"
                if taken
                else f"{_HOST}:{port}: {error.strerror}",
                hint="choose another one for MLflow with --mlflow-port, or 0 for any that is free",
            ) from error
        return int(probe.getsockname()[1])
