"""optuna-dashboard over a study, for looking only, in the units that people read.

Three things stand between Optuna 5 and a page that tells the truth, and all are mended here and
in ``study_view``:

- the page looks for constraints in one list, Optuna 5 keeps each under its own name; and its list
  of best trials knows no constraints at all. Unmended, a deployment that misses its bounds or
  cannot run is shown as "Best Trial".
- samplers see log10 of latency and throughput. The page shows milliseconds and samples/s.
- a deployment that cannot run is told to the sampler with made-up values. The page shows none.

optuna-dashboard has no read-only mode: an anonymous DELETE removes a study. So there are two
doors, both shut: a gate that lets no writing request in, and a storage that refuses to write.
"""

import errno
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from optuna.storages import BaseStorage

from optimizer.dashboard.study_view import StudyView, feasible_front
from optimizer.errors import OptimizerError, UsageError
from optimizer.study.storage import existing_storage

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_READING = ("GET", "HEAD")  # the page needs nothing else to render: all its POSTs write
# The contour page pairs values with the parameters of other trials as soon as one trial has no
# values (every failed one): it counts those with values, but looks up in all. Code of 0.21.
CONTOUR_FAULT = b"const s=hb(a,r),l=hb(a,n),"
_CONTOUR_MEND = b"const s=hb(o,r),l=hb(o,n),"
_SCRIPT = "/static/bundle.js"


def serve_dashboard(
    storage_url: str, *, host: str, port: int, on_ready: Callable[[str], None]
) -> None:
    """Serve the dashboard until SIGINT.

    Args:
        storage_url: Optuna storage of the studies; it must exist.
        host: A loopback address, for there is no password.
        port: TCP port; 0 picks a free one.
        on_ready: Called with the page's address once requests are answered.

    Raises:
        UsageError: The host is not a loopback address.
        StorageError: The storage does not exist or cannot be reached.
        OptimizerError: The port is taken.
    """
    from optuna.storages import _CachedStorage

    if not _is_loopback(host):
        raise UsageError(
            f"the dashboard has no password and is not served on {host}",
            hint="use 127.0.0.1, and from elsewhere: ssh -L PORT:127.0.0.1:PORT",
        )
    app = dashboard_app(_CachedStorage(existing_storage(storage_url)))
    with _listening(app, host=host, port=port) as server:
        shown = f"[{host}]" if ":" in host else host
        on_ready(f"http://{shown}:{server.server_port}/dashboard/")
        with suppress(KeyboardInterrupt):  # the way to end it
            server.serve_forever()


def dashboard_app(storage: BaseStorage) -> "WSGIApplication":
    """Make the page of all studies in a storage, which nobody can change through it."""
    from optuna_dashboard import _app

    # the one place where optuna-dashboard is adapted: both functions know no constraints, and the
    # first costs seconds per poll from 2,000 trials on
    _app.get_pareto_front_trials = feasible_front
    _app.get_param_importance_from_trials_cache = _importances
    return _Gate(_app.create_app(StudyView(storage)), script=_mended_script())


class _Gate:
    """WSGI middleware that lets reading requests through, and no others."""

    def __init__(self, app: "WSGIApplication", *, script: bytes) -> None:
        self._app = app
        self._script = script

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if method == "GET" and environ["PATH_INFO"] == _SCRIPT:
            return _answer(start_response, "200 OK", "text/javascript", self._script)
        if method in _READING:
            return self._app(environ, start_response)
        refusal = b"this dashboard only looks; a study is changed by trifront itself\n"
        return _answer(start_response, "405 Method Not Allowed", "text/plain", refusal)


def _answer(
    start_response: "StartResponse", status: str, content_type: str, body: bytes
) -> Iterable[bytes]:
    start_response(
        status,
        [
            ("Allow", ", ".join(_READING)),
            ("Content-Type", f"{content_type}; charset=utf-8"),
            ("Content-Length", str(len(body))),
        ],
    )
    return [body]


def _mended_script() -> bytes:
    from optuna_dashboard._app import STATIC_DIR

    return (Path(STATIC_DIR) / "bundle.js").read_bytes().replace(CONTOUR_FAULT, _CONTOUR_MEND)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True  # a browser that keeps a connection open does not keep us from ending


class _SixServer(_Server):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Log no requests: the page polls, and stderr belongs to the command."""


def _importances(*arguments: Any) -> Any:
    """Compute importances from what the sampler was told.

    They rest on ranks, so units do not matter, and a parameter that makes a deployment impossible
    should count. The original would fail on completed trials without values.
    """
    from optuna_dashboard._importance import get_param_importance_from_trials_cache as original

    cache, view, study_id, objective, _ = arguments
    told = view.told.get_all_trials(study_id, deepcopy=False)
    return original(cache, view.told, study_id, objective, told)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def _listening(app: "WSGIApplication", *, host: str, port: int) -> Iterator[WSGIServer]:
    family = _SixServer if ":" in host else _Server
    try:
        server = family((host, port), _Quiet)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        raise OptimizerError(
            f"port {port} on {host} is taken" if taken else f"{host}:{port}: {error.strerror}",
            hint="choose another one with --port, or --port 0 for any that is free",
        ) from error
    try:
        server.set_app(app)
        yield server
    finally:
        server.server_close()
