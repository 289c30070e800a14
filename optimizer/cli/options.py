"""Options that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optimizer.cli.values import png_file

if TYPE_CHECKING:
    from rich.console import Console

MLFLOW_VARIABLE = "TRIFRONT_MLFLOW"

SpaceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SPACE",
        help="A space file, or a shipped space: fashion-mnist, fake, fashion-mnist-torch, "
        "resnet-tensorrt.",
        show_default=False,
    ),
]
WorkspaceOption = Annotated[
    Path,
    typer.Option(
        "--workspace", "-w", envvar="TRIFRONT_WORKSPACE", help="Folder that remembers everything."
    ),
]
StorageOption = Annotated[
    str | None,
    typer.Option(
        "--storage",
        envvar="TRIFRONT_STORAGE",
        help="Optuna storage URL, such as postgresql://user@host/name.",
        show_default="SQLite in the workspace",
    ),
]
StudyOption = Annotated[
    str | None,
    typer.Option("--study", "-s", help="Name of the study.", show_default="the latest"),
]
StudyArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[STUDY]",
        help="Name of the study, also as --study NAME.",
        show_default="the latest",
    ),
]
TrialArgument = Annotated[
    str,
    typer.Argument(
        metavar="TRIAL",
        help="A trial's number, `knee`, or `best:METRIC`.",
        show_default=False,
    ),
]
ObjectivesOption = Annotated[
    str | None,
    typer.Option(
        "--objectives",
        help="Other metrics to trade off, e.g. latency_p50_ms,engine_size_mb.",
        metavar="METRIC,…",
        show_default="the study's",
    ),
]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        help="Only deployments that meet a bound or a condition on axes; may be repeated.",
        metavar="CONDITION",
        show_default=False,
    ),
]
MlflowOption = Annotated[
    str | None,
    typer.Option(
        "--mlflow",
        envvar=MLFLOW_VARIABLE,
        help="MLflow tracking URI; `none` for a search without.",
        show_default="SQLite in the workspace",
    ),
]
PlotOption = Annotated[
    Path | None, typer.Option(help="Draw it into a PNG file.", dir_okay=False, callback=png_file)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]

WORKSPACE = Path("trifront")

_PIPE_WIDTH = 160  # a pipe has no width: wide enough for a front, narrow enough to read


def names_of(text: str | None) -> list[str]:
    """Read names that commas separate."""
    return [] if text is None else [name.strip() for name in text.split(",")]


def study_named(argument: str | None, option: str | None) -> str | None:
    """Return the study that a command is about, named by its argument or by ``--study``.

    Raises:
        UsageError: They name two.
    """
    from optimizer.errors import UsageError

    if argument is not None and option is not None and argument != option:
        raise UsageError(
            f"'{argument}' and --study '{option}' are two studies", hint="name one of them"
        )
    return argument if option is None else option


def results_console() -> "Console":
    """Make the console for results: standard output, wide where it is not a terminal."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=_PIPE_WIDTH)
