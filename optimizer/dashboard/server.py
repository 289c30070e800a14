"""Serve the dashboard: on this machine, or to others with a password.

Three things stand between Optuna 5 and a page that tells the truth, all mended in this package:

- the page looks for constraints in one list, Optuna 5 keeps each under its own name; and its list
  of best trials knows no constraints at all. Unmended, a deployment that misses its bounds or
  cannot run is shown as "Best Trial".
- samplers see log10 of latency and throughput. The page shows milliseconds and samples/s.
- a deployment that cannot run is told to the sampler with made-up values. The page shows none.

There are two doors, both shut unless writes are allowed: a gate that lets no writing request in,
and a storage that refuses to write.
"""

import errno
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from socketserver import ThreadingMixIn
from threading import Thread
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from optimizer.dashboard.app import Dashboard
from optimizer.dashboard.artifacts import BlocksProvider, TrialArtifacts
from optimizer.dashboard.gate import Gate, is_loopback
from optimizer.dashboard.layers import InspectionProvider
from optimizer.dashboard.password import VARIABLE, Doorkeeper
from optimizer.errors import OptimizerError, UsageError
from optimizer.study.storage import existing_storage
from optimizer.workspace import Workspace

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_PATIENCE_S = 60.0  # a visitor who sends nothing for so long gives the thread back


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where the dashboard listens, and to whom it opens.

    Attributes:
        host: An address of this machine; one that others reach needs a password.
        port: TCP port; 0 picks a free one.
        password: None for a loopback address that everybody on this machine may use.
        allow_writes: Let notes and preferences through, and studies be made and deleted.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    password: bytes | None = None
    allow_writes: bool = False

    def check(self) -> None:
        """See that nobody else reaches a dashboard that has no password.

        Raises:
            UsageError: The host is not a loopback address, and there is no password.
        """
        if self.password is None and not is_loopback(self.host):
            raise UsageError(
                f"without a password the dashboard is not served on {self.host}",
                hint=f"put one into {VARIABLE} or a file for --password-file; "
                "or use 127.0.0.1, and from elsewhere: ssh -L PORT:127.0.0.1:PORT",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenDashboard:
    """A dashboard that listens.

    Attributes:
        address: Of the page.
        server: Its server; connections wait until :meth:`serve` is called.
        dashboard: What it serves.
    """

    address: str
    server: WSGIServer
    dashboard: Dashboard

    def serve(self) -> None:
        """Answer until SIGINT."""
        Thread(target=self.dashboard.warm_up, daemon=True).start()
        with suppress(KeyboardInterrupt):  # the way to end it
            self.server.serve_forever()


@contextmanager
def opened_dashboard(
    storage_url: str, workspace: Workspace, door: Door
) -> Iterator[OpenDashboard]:
    """Listen for visitors of the dashboard, and stop whatever happens.

    Args:
        storage_url: Optuna storage of the studies; it must exist.
        workspace: Where raw blocks lie.
        door: Where to listen.

    Raises:
        UsageError: Others would reach it without a password.
        StorageError: The storage does not exist or cannot be reached.
        OptimizerError: The port is taken.
    """
    door.check()
    dashboard = Dashboard(
        existing_storage(storage_url),
        TrialArtifacts([BlocksProvider(workspace), InspectionProvider(workspace)]),
        url=storage_url,
        allow_writes=door.allow_writes,
    )
    doorkeeper = None if door.password is None else Doorkeeper(door.password)
    gate = Gate(dashboard, doorkeeper=doorkeeper, allow_writes=door.allow_writes)
    with _listening(gate, door) as server:
        shown = f"[{door.host}]" if ":" in door.host else door.host
        address = f"http://{shown}:{server.server_port}/dashboard/"
        yield OpenDashboard(address=address, server=server, dashboard=dashboard)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True  # a browser that keeps a connection open does not keep us from ending

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of visitors who went away before the answer was sent."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _SixServer(_Server):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    timeout = _PATIENCE_S

    def log_message(self, *_: object) -> None:
        """Log no requests: the page polls, and stderr belongs to the command."""


@contextmanager
def _listening(app: "WSGIApplication", door: Door) -> Iterator[WSGIServer]:
    family = _SixServer if ":" in door.host else _Server
    try:
        server = family((door.host, door.port), _Quiet)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        where = f"{door.host}:{door.port}"
        raise OptimizerError(
            f"port {door.port} on {door.host} is taken" if taken else f"{where}: {error.strerror}",
            hint="choose another one with --port, or --port 0 for any that is free",
        ) from error
    try:
        server.set_app(app)
        yield server
    finally:
        server.server_close()
