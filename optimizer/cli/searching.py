"""``trifront search``."""

from typing import TYPE_CHECKING, Annotated

import typer

from optimizer.cli.harvest import print_front
from optimizer.cli.options import (
    WORKSPACE,
    JsonOption,
    MlflowOption,
    SpaceArgument,
    StorageOption,
    WorkspaceOption,
)
from optimizer.cli.values import seconds
from optimizer.search.sampler_name import SamplerName

if TYPE_CHECKING:
    from optimizer.search.search import Finished
    from optimizer.study.study import SearchStudy

TimeOption = Annotated[
    float | None,
    typer.Option(
        "--time",
        "-t",
        parser=seconds,
        metavar="DURATION",
        help="Stop after so long, e.g. 90s, 10m, 2h.",
    ),
]
NewStudyOption = Annotated[
    str | None,
    typer.Option("--study", "-s", help="Name of the study.", show_default="the space's"),
]
SamplerOption = Annotated[
    SamplerName,
    typer.Option(
        help="Who proposes; auto is front, our own, unless all is tried anyway; gp needs torch."
    ),
]

SentinelOption = Annotated[
    bool,
    typer.Option(
        help="Measure one deployment again and again, in 5 % of a long search, to see whether the "
        "machine drifts."
    ),
]

NOTHING_FEASIBLE = 3
INTERRUPTED = 130  # before there was a front; what shells say of a command that Ctrl-C ended


def search(
    space: SpaceArgument,
    *,
    trials: Annotated[
        int | None, typer.Option("--trials", "-n", min=1, help="Stop after so many trials.")
    ] = None,
    time: TimeOption = None,
    study: NewStudyOption = None,
    sampler: SamplerOption = SamplerName.AUTO,
    seed: Annotated[int, typer.Option(help="Seeds the sampler.")] = 0,
    repeat: Annotated[
        bool, typer.Option("--repeat", help="Allow deployments that were measured before.")
    ] = False,
    sentinel: SentinelOption = True,
    workspace: WorkspaceOption = WORKSPACE,
    storage: StorageOption = None,
    mlflow: MlflowOption = None,
    json: JsonOption = False,
) -> None:
    """Search a space: try deployments, measure them, find the front.

    Limits count for the whole study: the same command goes on after an interruption, and does
    nothing once the limit is reached. Without a limit the search ends when the front has stopped
    growing. Ctrl-C ends it after the running trial, a second Ctrl-C at once.

    Examples:

      trifront search fake

      trifront search fashion-mnist --trials 48 --time 2m

      trifront search model.yaml --sampler gp --storage postgresql://me@host/studies
    """
    from rich.console import Console

    from optimizer.search.budget import Budget
    from optimizer.search.session import SearchOrder, searched
    from optimizer.wiring import place_at

    order = SearchOrder(
        space=space,
        study=study,
        budget=Budget(trials=trials, time_s=time),
        sampler=sampler,
        seed=seed,
        repeats=repeat,
        mlflow=mlflow,
        sentinel=sentinel,
    )
    with searched(order, place_at(workspace, storage), Console(stderr=True)) as (finished, found):
        if json:
            _print_json(finished, found)
        else:
            _print_front(finished, found)
    if not finished.front.candidates:
        raise typer.Exit(INTERRUPTED if finished.interrupted else NOTHING_FEASIBLE)


def _print_json(finished: "Finished", study: "SearchStudy") -> None:
    import json

    from optimizer.front.data import data_of_front

    document = {
        "study": study.name,
        "ended": finished.reason,
        "trials": finished.tried,
        **data_of_front(finished.front, study.verdicts()),
    }
    typer.echo(json.dumps(document, indent=2))


def _print_front(finished: "Finished", study: "SearchStudy") -> None:
    typer.echo(f"search ended: {finished.reason}", err=True)
    print_front(finished.front, study.verdicts())
    if finished.front.members:
        typer.echo(
            "next: trifront front --plot front.png, trifront show knee, "
            "trifront export knee --to DIR, trifront dashboard",
            err=True,
        )
