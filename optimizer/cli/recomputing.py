"""``trifront recompute``."""

from typing import TYPE_CHECKING

import typer

from optimizer.cli.options import (
    WORKSPACE,
    JsonOption,
    StorageOption,
    StudyOption,
    TrialArgument,
    WorkspaceOption,
    results_console,
)
from optimizer.cli.values import GATE_FAILED

if TYPE_CHECKING:
    from rich.table import Table

    from optimizer.verification.recompute import Recomputed, Statistic


def recompute(
    trial: TrialArgument,
    *,
    study: StudyOption = None,
    workspace: WorkspaceOption = WORKSPACE,
    storage: StorageOption = None,
    json: JsonOption = False,
) -> None:
    """Compute every statistic of a trial again from its raw blocks, by the formulas of its time.

    Ends with code 3 where a number comes out otherwise, be it in the last digit.

    Examples:

      trifront recompute 12

      trifront recompute knee --json
    """
    from optimizer.front.of_study import blocks_in
    from optimizer.front.picking import record_named
    from optimizer.verification.recompute import recompute as again
    from optimizer.wiring import place_at, study_at

    place = place_at(workspace, storage)
    found = study_at(place, study)
    record = record_named(trial, found)
    recomputed = again(record, blocks_in(place.workspace)(record.uid), found.space.plan)
    if json:
        _echo_json(recomputed)
    else:
        console = results_console()
        console.print(_table(recomputed))
        console.print(_verdict(recomputed), highlight=False, markup=False, soft_wrap=True)
    if recomputed.differing:
        raise typer.Exit(GATE_FAILED)


def _echo_json(recomputed: "Recomputed") -> None:
    import json
    from dataclasses import asdict

    document = asdict(recomputed) | {"differing": list(recomputed.differing)}
    typer.echo(json.dumps(document, indent=2))


def _table(recomputed: "Recomputed") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("statistic")
    for name in ("recorded", "computed again"):
        table.add_column(name, justify="right")
    table.add_column("")
    for one in recomputed.statistics:
        sameness = "same" if one.is_same else "differs"
        cells = (one.name, _text(one.recorded), _text(one.computed), sameness)
        table.add_row(*map(Text, cells))
    return table


def _text(statistic: "Statistic") -> str:
    """Write a statistic with all its digits, because they are what is compared."""
    from trials.measurement import Estimate

    if not isinstance(statistic, Estimate):
        return str(statistic)
    low = "0" if statistic.low is None else repr(statistic.low)  # of speeds, which are not below
    high = "∞" if statistic.high is None else repr(statistic.high)
    return f"{statistic.value!r}\n[{low}, {high}]"


def _verdict(recomputed: "Recomputed") -> str:
    whose = f"trial {recomputed.trial}, formulas of version {recomputed.method}"
    if recomputed.differing:
        names = ", ".join(recomputed.differing)
        return f"{whose}: differing: {names}; the record, its raw blocks or a formula was changed"
    same = f"all {len(recomputed.statistics)} statistics are the same"
    return f"{whose}: {same} to {recomputed.last_digit}"
