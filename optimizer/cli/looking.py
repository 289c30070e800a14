"""``trifront dashboard`` and ``ui``: look at studies and runs in a browser."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optimizer.cli.options import WORKSPACE, MlflowOption, StorageOption, WorkspaceOption

if TYPE_CHECKING:
    from optimizer.dashboard.server import Door

PortOption = Annotated[
    int, typer.Option(min=0, max=65535, help="Port of the dashboard; 0 takes a free one.")
]
HostOption = Annotated[
    str,
    typer.Option(help="Address to listen on; one that others reach needs a password."),
]
WritesOption = Annotated[
    bool,
    typer.Option(
        "--allow-writes",
        help="Let notes and preferences be written, and studies be made and deleted.",
    ),
]
PasswordOption = Annotated[
    Path | None,
    typer.Option(
        help="A file that holds the password alone; else it is taken from TRIFRONT_PASSWORD.",
        dir_okay=False,
    ),
]


def dashboard(
    *,
    port: PortOption = 8080,
    host: HostOption = "127.0.0.1",
    password_file: PasswordOption = None,
    allow_writes: WritesOption = False,
    workspace: WorkspaceOption = WORKSPACE,
    storage: StorageOption = None,
) -> None:
    """Look at the studies in optuna-dashboard: fronts, notes, latency histograms.

    It is served on this machine alone and changes nothing, unless asked to. The user name that
    goes with a password is of no matter.

    Examples:

      trifront dashboard

      trifront dashboard --port 9000 --allow-writes

      trifront dashboard --host 0.0.0.0 --password-file secret.txt
    """
    from optimizer.dashboard.server import opened_dashboard
    from optimizer.wiring import place_at, study_at

    place = place_at(workspace, storage)
    door = _door(host, port, password_file, allow_writes=allow_writes)
    study_at(place, None)  # an empty page would not say what is missing
    with opened_dashboard(place.url, place.workspace, door) as opened:
        _warn(door)
        typer.echo(f"dashboard at {opened.address}, Ctrl-C ends it", err=True)
        opened.serve()


def ui(
    *,
    port: PortOption = 8080,
    mlflow_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of MLflow's pages; 0 takes a free one.")
    ] = 5000,
    mlflow: MlflowOption = None,
    allow_writes: WritesOption = False,
    workspace: WorkspaceOption = WORKSPACE,
    storage: StorageOption = None,
) -> None:
    """Look at the studies in optuna-dashboard and at the runs in MLflow, side by side.

    Both are served on this machine alone and end with this command.

    Examples:

      trifront ui

      trifront ui --port 0 --mlflow-port 0

      trifront ui --mlflow postgresql://me@host/mlflow
    """
    from optimizer.dashboard.mlflow_ui import mlflow_ui
    from optimizer.dashboard.server import opened_dashboard
    from optimizer.wiring import place_at, study_at

    place = place_at(workspace, storage)
    door = _door("127.0.0.1", port, None, allow_writes=allow_writes)
    study_at(place, None)
    uri = _tracking_uri(mlflow, place.workspace.root)
    with (
        opened_dashboard(place.url, place.workspace, door) as opened,
        mlflow_ui(uri, port=mlflow_port, on_end=_say_ended) as address,
    ):
        typer.echo(f"dashboard at {opened.address}", err=True)
        typer.echo(f"MLflow at {address}, Ctrl-C ends both", err=True)
        opened.serve()


def _door(host: str, port: int, password_file: Path | None, *, allow_writes: bool) -> "Door":
    from optimizer.dashboard.password import password_from
    from optimizer.dashboard.server import Door

    password = password_from(os.environ, password_file)
    door = Door(host=host, port=port, password=password, allow_writes=allow_writes)
    door.check()
    return door


def _warn(door: "Door") -> None:
    from optimizer.dashboard.gate import is_loopback

    if not is_loopback(door.host):
        typer.echo(
            "the password travels readable for everybody in between: "
            "put a proxy that speaks TLS in front, such as nginx or caddy",
            err=True,
        )


def _tracking_uri(mlflow: str | None, root: Path) -> str:
    """Name where MLflow's runs are.

    Raises:
        UsageError: The user said that there are none.
    """
    from optimizer.errors import UsageError
    from optimizer.tracking.destination import NO_MLFLOW

    if mlflow == NO_MLFLOW:
        raise UsageError("there is nothing to show beside the studies", hint="trifront dashboard")
    return mlflow or f"sqlite:///{root / 'mlflow.db'}"


def _say_ended() -> None:
    typer.echo("MLflow's pages have ended; the dashboard is still there", err=True)
