"""``trifront report``: a study as one file that can be attached to a decision."""

from pathlib import Path
from typing import Annotated

import typer

from optimizer.cli.options import (
    WORKSPACE,
    ObjectivesOption,
    StorageOption,
    StudyArgument,
    StudyOption,
    WhereOption,
    WorkspaceOption,
    names_of,
    study_named,
)


def report(
    study: StudyArgument = None,
    *,
    named: StudyOption = None,
    to: Annotated[
        Path | None,
        typer.Option(help="The HTML file to write.", dir_okay=False, show_default="STUDY.html"),
    ] = None,
    objectives: ObjectivesOption = None,
    where: WhereOption = None,
    workspace: WorkspaceOption = WORKSPACE,
    storage: StorageOption = None,
) -> None:
    """Write a study as one HTML file: the question, the front, the evidence, how to redo it.

    The file needs no network, and no script to be read. An existing file is replaced.

    Examples:

      trifront report

      trifront report fashion-mnist --to decision.html --where "latency_p99_ms <= 10"
    """
    from optimizer.front.asking import question_of
    from optimizer.report.page import html_of_study
    from optimizer.wiring import place_at, study_at
    from optimizer.workspace import write_atomically

    place = place_at(workspace, storage)
    found = study_at(place, study_named(study, named))
    question = question_of(
        found.space, found.records(), objectives=names_of(objectives), where=where or []
    )
    path = Path(f"{found.name}.html") if to is None else to
    page = html_of_study(found, place.workspace, question)
    write_atomically(path, page.encode(), option="--to")
    typer.echo(path)
