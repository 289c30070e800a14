"""``trifront sync``."""

from typing import TYPE_CHECKING, Annotated

import typer

from optimizer.cli.options import (
    MLFLOW_VARIABLE,
    WORKSPACE,
    JsonOption,
    StorageOption,
    WorkspaceOption,
)

if TYPE_CHECKING:
    from optimizer.study.study import SearchStudy
    from optimizer.tracking.syncing import Synced
    from optimizer.workspace import Workspace

STILL_WAITING = 1


def sync(
    *,
    mlflow: Annotated[
        str | None,
        typer.Option(
            help="Deliver to this MLflow, with these credentials, or to where a server moved.",
            show_default="every one that records wait for",
        ),
    ] = None,
    old: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="URI", help="With --mlflow: send what waits for this one there."
        ),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option("--study", "-s", help="Publish all of a study, searched without MLflow."),
    ] = None,
    workspace: WorkspaceOption = WORKSPACE,
    storage: StorageOption = None,
    json: JsonOption = False,
) -> None:
    """Deliver to MLflow what waits on the disk, and say what came of it.

    A search tells MLflow what it finds as it goes. What MLflow could not hear then, because it was
    down, slow, full or refused, waits in the workspace. Exit code 1 if anything still waits.

    Examples:

      trifront sync

      trifront sync --mlflow http://me:password@host:5000

      trifront sync --study resnet --mlflow http://host:5000
    """
    import os

    from optimizer.errors import UsageError
    from optimizer.tracking.destination import check_uri
    from optimizer.wiring import place_at, study_at

    usual = os.environ.get(MLFLOW_VARIABLE)  # where searches go: lends its credentials, no more
    for uri in (mlflow, usual):
        check_uri(uri)
    if old is not None and mlflow is None:
        raise UsageError("--from needs --mlflow", hint="say where the records are to go")
    place = place_at(workspace, storage)
    published = None if study is None else study_at(place, study)
    synced = _delivered(place.workspace, published, mlflow=mlflow, usual=usual, old=old)
    (_print_json if json else _print)(synced)
    if any(one.waiting for one in synced):
        raise typer.Exit(STILL_WAITING)


def _delivered(
    workspace: "Workspace",
    published: "SearchStudy | None",
    *,
    mlflow: str | None,
    usual: str | None,
    old: str | None,
) -> "tuple[Synced, ...]":
    """Deliver to every destination, or to the one that is named or gets a study published."""
    from rich.console import Console

    from optimizer.tracking.destination import destination_of
    from optimizer.tracking.syncing import Syncing

    syncing = Syncing(workspace, Console(stderr=True))
    if mlflow is None and published is None:
        return syncing.all(destination_of(usual, workspace))
    destination = destination_of(mlflow or usual, workspace)
    if published is not None:
        syncing.publish(published, destination)
    if mlflow is not None:
        syncing.readdress(destination, old=old)
    return (syncing.one(destination),)


def _print_json(synced: "tuple[Synced, ...]") -> None:
    import json
    from dataclasses import asdict

    documents = [
        asdict(one) | {"refused": [{"record": name, "why": why} for name, why in one.refused]}
        for one in synced
    ]
    typer.echo(json.dumps({"mlflow": documents}, indent=2))


def _print(synced: "tuple[Synced, ...]") -> None:
    for one in synced:
        typer.echo(
            f"{one.mlflow}: {one.delivered} delivered, {one.already_there} were there already, "
            f"{one.waiting} waiting"
        )
        for name, why in one.refused:
            typer.echo(f"  {name}: {why}")
        if one.problem:
            typer.echo(f"trifront: {one.problem}", err=True)
            if one.hint:
                typer.echo(f"  {one.hint}", err=True)
    if not synced:
        typer.echo("nothing waits: no search of this workspace has told MLflow anything yet")
