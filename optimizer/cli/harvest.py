"""``trifront front``, ``show`` and ``studies``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optimizer.cli.options import (
    WORKSPACE,
    JsonOption,
    ObjectivesOption,
    PlotOption,
    StorageOption,
    StudyArgument,
    StudyOption,
    TrialArgument,
    WhereOption,
    WorkspaceOption,
    names_of,
    results_console,
    study_named,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optimizer.front.front import Candidate, Front
    from optimizer.study.records import TrialRecord
    from optimizer.study.study import SearchStudy
    from trials.measurement import Quality

NOTHING_FEASIBLE = 3


def front(
    study: StudyArgument = None,
    *,
    named: StudyOption = None,
    objectives: ObjectivesOption = None,
    where: WhereOption = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Rank by weights, e.g. latency_p99_ms=2,accuracy=1.", metavar="METRIC=NUMBER,…"
        ),
    ] = None,
    prefer: Annotated[
        str | None,
        typer.Option(help="Rank by what matters first, e.g. accuracy.", metavar="METRIC,…"),
    ] = None,
    plot: PlotOption = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write every trial into a CSV file.", dir_okay=False)
    ] = None,
    workspace: WorkspaceOption = WORKSPACE,
    storage: StorageOption = None,
    json: JsonOption = False,
) -> None:
    """Show the Pareto front of a study, with 95 % intervals, ties and the knee.

    A deployment leaves the front only where another one beats it beyond both intervals; what
    cannot be told apart is shown as a tie, with the probability that it belongs on the front.

    Examples:

      trifront front

      trifront front --where "latency_p99_ms <= 10" --where "precision == 'int8'"

      trifront front --objectives latency_p50_ms,engine_size_mb --prefer engine_size_mb

      trifront front resnet --plot front.png --csv trials.csv
    """
    from optimizer.front.asking import question_of
    from optimizer.front.of_study import front_of_study
    from optimizer.wiring import place_at, study_at

    place = place_at(workspace, storage)
    found = study_at(place, study_named(study, named))
    records = found.records()
    question = question_of(
        found.space, records, objectives=names_of(objectives), where=where or []
    )
    the_front = front_of_study(found, place.workspace, question)
    ranked = _ranked(the_front, weights, prefer)
    if plot is not None:
        _draw(the_front, plot, f"{found.name}: {len(records)} trials")
    if csv is not None:
        _write_csv(question.chosen(records), csv)
    _report(the_front, found, ranked, json=json)


def _draw(front: "Front", path: Path, title: str) -> None:
    from optimizer.front.plot import png_of_front
    from optimizer.workspace import write_atomically

    write_atomically(path, png_of_front(front, title), option="--plot")


def _write_csv(records: "Sequence[TrialRecord]", path: Path) -> None:
    from optimizer.front.data import csv_of_records
    from optimizer.workspace import write_atomically

    write_atomically(path, csv_of_records(records).encode(), option="--csv")


def _report(
    front: "Front",
    study: "SearchStudy",
    ranked: "tuple[Candidate, ...] | None",
    *,
    json: bool,
) -> None:
    """Print a front, and end with the code that tells an empty one."""
    from optimizer.front.data import data_of_front
    from optimizer.front.words import why_empty

    if json:
        document = {"study": study.name, **data_of_front(front, study.verdicts())}
        if ranked is not None:
            document |= {"ranking": [one.record.number for one in ranked]}
        _echo_json(document)
    else:
        print_front(front, study.verdicts(), shown=ranked)
    if not front.candidates:
        typer.echo(why_empty(front, trials=len(study.records())), err=True)
        raise typer.Exit(NOTHING_FEASIBLE)


def print_front(
    front: "Front",
    verdicts: "Mapping[int, Quality]",
    *,
    shown: "tuple[Candidate, ...] | None" = None,
) -> None:
    """Print a front's table, in the order ``shown`` where it is ranked, and the lines below it."""
    from optimizer.front.tables import table_of_front
    from optimizer.front.words import summary_of_front

    console = results_console()
    if front.candidates:
        console.print(table_of_front(front, verdicts, width=console.width, shown=shown))
    for line in summary_of_front(front):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _ranked(
    front: "Front", weights: str | None, prefer: str | None
) -> "tuple[Candidate, ...] | None":
    from optimizer.errors import UsageError
    from optimizer.front.asking import order_from_text, weights_from_text
    from optimizer.front.ranking import by_preference, by_weights

    if weights is not None and prefer is not None:
        raise UsageError("--weights and --prefer rank in two ways", hint="give one of them")
    if weights is not None:
        return by_weights(front, weights_from_text(weights, front.objectives))
    if prefer is not None:
        return by_preference(front, order_from_text(prefer, front.objectives))
    return None


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
    from optimizer.front.data import data_of_trial
    from optimizer.front.picking import record_named
    from optimizer.front.tables import tables_of_trial
    from optimizer.saturation.result import data_of_saturation, load_saturation
    from optimizer.saturation.words import lines_of
    from optimizer.wiring import place_at, study_at

    place = place_at(workspace, storage)
    found = study_at(place, study)
    record = record_named(trial, found)
    verdict = found.verdicts().get(record.number)
    saturation = load_saturation(place.workspace, record.uid)
    if json:
        known = {} if saturation is None else {"saturation": data_of_saturation(saturation)}
        _echo_json(data_of_trial(record, verdict) | known)
        return
    console = results_console()
    for heading, table in tables_of_trial(record, verdict):
        console.print(heading)
        console.print(table)
    if saturation is not None:
        console.print(f"saturation, measured {saturation.made_at}", style="italic")
        for line in lines_of(saturation):
            console.print(line, highlight=False, markup=False, soft_wrap=True)


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
