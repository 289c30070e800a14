"""The command line: ``trifront``. Results go to stdout, everything else to stderr.

Exit codes: 0 done, 1 an expected error (one line and a hint), 2 wrong usage, 3 nothing feasible or
a gate that failed.
Heavy libraries are imported inside the commands that need them, so that ``--help`` is instant.
"""

import inspect
import os
import sys
from typing import Annotated

import typer

from optimizer.cli import (
    authoring,
    building,
    certifying,
    comparing,
    effects,
    explaining,
    exporting,
    harvest,
    health,
    looking,
    recomputing,
    replaying,
    reporting,
    saturating,
    searching,
    sensitivity,
    storekeeping,
    tracking,
)

app = typer.Typer(
    name="trifront",
    help="Of all the ways to deploy this model, which one?\n\n"
    "Search a deployment space, measure real engines, find the Pareto front, export the choice.",
    epilog="Start with: trifront search fake, or trifront init model.onnx --data data.npz",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(searching.search)
app.command()(building.build)
app.command("precision-report")(sensitivity.precision_report)
app.command()(harvest.front)
app.command()(harvest.show)
app.command()(effects.effect)
app.command()(explaining.explain)
app.command()(certifying.certify)
app.command()(reporting.report)
app.command()(saturating.saturate)
app.command()(exporting.export)
app.command()(exporting.verify)
app.command()(exporting.register)
app.command()(exporting.reproduce)
app.command()(comparing.compare)
app.command()(looking.dashboard)
app.command()(looking.ui)
app.command()(recomputing.recompute)
app.command()(replaying.record)
app.command()(replaying.replay)
app.command()(harvest.studies)
app.command()(tracking.sync)
app.command()(authoring.init)
app.command()(authoring.check)
app.command()(authoring.schema)
app.command()(health.doctor)
app.add_typer(storekeeping.app, name="store")


def _in_paragraphs(text: str) -> str:
    """Join the lines of each paragraph, so that a terminal breaks them where it ends."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(
        one if one.startswith(" ") else " ".join(one.splitlines()) for one in paragraphs
    )


for _command in (*app.registered_commands, *storekeeping.app.registered_commands):
    assert _command.callback is not None
    _command.help = _in_paragraphs(_command.callback.__doc__ or "")


def _version(*, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("trifront"))
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version.",
            callback=lambda value: _version(wanted=value),
            is_eager=True,
        ),
    ] = False,
) -> None:
    del version


def main() -> None:
    """Run the command line; expected errors become one line and a hint."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when ONNX Runtime is imported
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # the one broad catch: what is not expected is raised again
        if not _explain(error):
            raise
        sys.exit(1)


def _explain(error: Exception) -> bool:
    """Print an expected error; tell whether it was one."""
    from optimizer.errors import OptimizerError
    from search_spaces.errors import SpaceError
    from trials.errors import TrialError

    if not isinstance(error, OptimizerError | SpaceError | TrialError):
        return False
    typer.echo(f"trifront: {error}", err=True)
    hint = getattr(error, "hint", "")
    if hint:
        typer.echo(f"  {hint}", err=True)
    return True
