"""MLflow's client, opened calmly: quiet, with little patience, and with passwords out of sight.

No search opens it itself, for MLflow takes a second and a half to import. MLflow reads its
settings from the environment alone, some of them when it is imported; what the user has set stays.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from optimizer.front.histogram import png_of_latencies
from optimizer.study.storage import say_hello
from optimizer.tracking.complaints import tracking_errors
from optimizer.tracking.database import legacy_tables, make_sqlite, move_artifacts
from optimizer.tracking.destination import Destination, is_server_database
from optimizer.tracking.engines import Engines
from optimizer.tracking.logged_models import LoggedModels
from optimizer.tracking.publisher import Publisher
from optimizer.tracking.registry import Registry
from optimizer.tracking.runs import Runs, Step
from optimizer.workspace import load_blocks

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # MLflow's own patience is four minutes a call; records that wait are tried again anyway
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


def open_client(destination: Destination) -> "MlflowClient":
    """Open MLflow, making the workspace's own database where there is none.

    Raises:
        TrackingError: The URI is wrong, or the database or folder refuses.
    """
    for variable, value in _SETTINGS.items():
        os.environ.setdefault(variable, value)
    plain = _without_password(destination)
    with legacy_tables(), tracking_errors(plain):
        if is_server_database(plain.uri):
            say_hello(plain.uri)  # MLflow itself tries for most of a minute
        make_sqlite(plain.uri)
        if plain.own:
            move_artifacts(plain.uri)
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=plain.uri)


def open_publisher(destination: Destination, gate: Step) -> Publisher:
    """Open MLflow to publish to it.

    Args:
        destination: Which MLflow.
        gate: Entered around each call and each piece of work.

    Raises:
        TrackingError: The URI is wrong, or the database or folder refuses.
    """
    client = open_client(destination)

    @contextmanager
    def step() -> Iterator[None]:
        with gate(), tracking_errors(destination):
            yield

    runs = Runs(client, step=step, artifacts=destination.artifacts)
    engines = Engines(LoggedModels(client, step=step), runs)
    return Publisher(runs, engines, step=step, draw=_drawn)


def open_registry(destination: Destination) -> Registry:
    """Open MLflow's model registry.

    Args:
        destination: Which MLflow.

    Raises:
        TrackingError: The URI is wrong, or the database or folder refuses.
    """
    client = open_client(destination)
    step = partial(tracking_errors, destination)
    runs = Runs(client, step=step, artifacts=destination.artifacts)
    return Registry(client, runs, LoggedModels(client, step=step), step=step)


def _drawn(blocks: Path, title: str) -> bytes:
    return png_of_latencies(load_blocks(blocks), title)


def _without_password(destination: Destination) -> Destination:
    """Move user and password of a server to where MLflow's complaints do not repeat them."""
    scheme, _, place = destination.uri.partition("://")
    user, at, _ = place.rpartition("@")
    if scheme not in ("http", "https") or not at:
        return destination
    name, _, password = user.partition(":")
    os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(name)
    os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(password)
    return replace(destination, uri=destination.name)
