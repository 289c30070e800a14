"""``trifront front``, ``show``, ``export`` and ``studies``."""

from pathlib import Path
from typing import Annotated

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

NOTHING_FEASIBLE = 3


def front(
    *,
    study: StudyOption = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the front into a PNG file.", dir_okay=False)
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write every trial into a CSV file.", dir_okay=False)
    ] = None,
    workspace: WorkspaceOption = WORKSPACE,
    storage: StorageOption = None,
    json: JsonOption = False,
) -> None:
    """Show the Pareto front of a study, with 95 % intervals and the knee.

    Examples:

      trifront front

      trifront front --study resnet --plot front.png --csv trials.csv
    """
    from optimizer.front.front import front_of
    from optimizer.front.plot import png_of_front
    from optimizer.front.tables import (
        csv_of_records,
        data_of_front,
        summary_of_front,
        table_of_front,
    )
    from optimizer.wiring import place_at, study_at
    from optimizer.workspace import write_atomically

    found = study_at(place_at(workspace, storage), study)
    records = found.records()
    the_front = front_of(records, found.space.objectives, found.space.constraints)
    if plot is not None:
        write_atomically(plot, png_of_front(the_front, f"{found.name}: {len(records)} trials"))
    if csv is not None:
        write_atomically(csv, csv_of_records(records).encode())
    if json:
        _echo_json({"study": found.name, **data_of_front(the_front, found.verdicts())})
    else:
        console = results_console()
        if the_front.members:
            console.print(table_of_front(the_front, found.verdicts(), width=console.width))
        for line in summary_of_front(the_front):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    if not the_front.members:
        raise typer.Exit(NOTHING_FEASIBLE)


def show(
    trial: TrialArgument,
    *,
    study: StudyOption = None,
    workspace: WorkspaceOption = WORKSPACE,
    storage: StorageOption = None,
    json: JsonOption = False,
) -> None:
    """Show everything about one trial.

    Examples:

      trifront show 12

      trifront show knee --json
    """
    from optimizer.front.picking import record_named
    from optimizer.front.tables import data_of_trial, tables_of_trial
    from optimizer.wiring import place_at, study_at

    found = study_at(place_at(workspace, storage), study)
    record = record_named(trial, found)
    verdict = found.verdicts().get(record.number)
    if json:
        _echo_json(data_of_trial(record, verdict))
        return
    console = results_console()
    for heading, table in tables_of_trial(record, verdict):
        console.print(heading)
        console.print(table)


def export(
    trial: TrialArgument,
    *,
    to: Annotated[Path, typer.Option(help="A new folder.", file_okay=False)],
    study: StudyOption = None,
    workspace: WorkspaceOption = WORKSPACE,
    storage: StorageOption = None,
) -> None:
    """Export the engine that a trial measured, with a manifest of everything about it.

    Examples:

      trifront export knee --to deploy/

      trifront export 12 --to deploy/ --study resnet
    """
    from optimizer.export.bundle import export_bundle
    from optimizer.front.picking import record_named
    from optimizer.wiring import opened_worker, place_at, study_at

    place = place_at(workspace, storage)
    found = study_at(place, study)
    record = record_named(trial, found)
    with opened_worker(found.space, place) as worker:
        deployment = record.outcome.deployment
        bundle = export_bundle(record, found, lambda: worker.prepare(deployment), to)
    for file in bundle.files:
        typer.echo(file)


def studies(
    *,
    workspace: WorkspaceOption = WORKSPACE,
    storage: StorageOption = None,
) -> None:
    """List the studies of a workspace or storage.

    Example:

      trifront studies --storage postgresql://me@host/studies
    """
    from optimizer.wiring import names_of_studies, place_at

    for name in names_of_studies(place_at(workspace, storage)):
        typer.echo(name)


def _echo_json(document: dict[str, object]) -> None:
    import json

    typer.echo(json.dumps(document, indent=2))
