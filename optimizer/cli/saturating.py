"""``trifront saturate``: how far a deployment can be loaded."""

from typing import TYPE_CHECKING, Annotated

import typer

from optimizer.cli.options import (
    WORKSPACE,
    JsonOption,
    PlotOption,
    StorageOption,
    StudyOption,
    TrialArgument,
    WorkspaceOption,
    results_console,
)
from optimizer.cli.values import seconds

if TYPE_CHECKING:
    from optimizer.saturation.result import Saturation

NOTHING_KEPT = 3


def saturate(
    trial: TrialArgument,
    *,
    slo: Annotated[
        list[str] | None,
        typer.Option(
            "--slo",
            help="A latency that is promised, e.g. 'latency_p99_ms <= 10'; may be repeated.",
            metavar="BOUND",
            show_default="the space's bounds",
        ),
    ] = None,
    time: Annotated[
        float,
        typer.Option(
            "--time",
            parser=seconds,
            metavar="DURATION",
            help="About how long it may take, such as 90s or 3m.",
        ),
    ] = "60s",  # type: ignore[assignment] # the parser makes the float
    plot: PlotOption = None,
    study: StudyOption = None,
    workspace: WorkspaceOption = WORKSPACE,
    storage: StorageOption = None,
    json: JsonOption = False,
) -> None:
    """Load a trial's deployment more and more, and find how much it can take.

    Closed loops of rising concurrency show where throughput ends (the knee); open loops of chosen
    rates show up to which rate the promised latency is kept with its whole 95 % interval. The
    result is kept with the trial and replaces an earlier one; `trifront show` and reports tell it.

    Exit codes: 0 some rate keeps the promise, 3 none of those tried does.

    Examples:

      trifront saturate knee --slo "latency_p99_ms <= 10" --plot saturation.png

      trifront saturate 12 --time 3m --json
    """
    from optimizer.front.picking import record_named
    from optimizer.saturation.figure import png_of_saturation
    from optimizer.saturation.saturate import SaturateOrder, saturate
    from optimizer.wiring import place_at, study_at
    from optimizer.workspace import write_atomically

    place = place_at(workspace, storage)
    found = study_at(place, study)
    order = SaturateOrder(slo=tuple(slo or ()), time_s=time)
    result = saturate(record_named(trial, found), found, place, order, on_step=_tell)
    if plot is not None:
        write_atomically(plot, png_of_saturation(result), option="--plot")
        _tell(f"drawn: {plot}")
    _report(result, json=json)


def _tell(step: str) -> None:
    typer.echo(step, err=True)


def _report(found: "Saturation", *, json: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from optimizer.saturation.result import json_from_saturation
    from optimizer.saturation.words import (
        CLOSED_COLUMNS,
        closed_rows,
        lines_of,
        open_columns,
        open_rows,
    )

    if json:
        typer.echo(json_from_saturation(found))
    else:
        console = results_console()
        for columns, rows in (
            (CLOSED_COLUMNS, closed_rows(found)),
            (open_columns(found), open_rows(found)),
        ):
            table = Table(box=None, pad_edge=False)
            for column in columns:
                table.add_column(Text(column), overflow="fold")
            for row in rows:
                table.add_row(*map(Text, row))
            console.print(table)
        for line in lines_of(found):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    if found.kept_rps is None:
        raise typer.Exit(NOTHING_KEPT)
