"""``trifront certify``: measure the candidates of a front again until it is decided."""

from typing import Annotated

import typer

from optimizer.cli.options import (
    WORKSPACE,
    JsonOption,
    StorageOption,
    WorkspaceOption,
    results_console,
)
from optimizer.cli.values import seconds

TIME = "10m"


def certify(
    study: Annotated[
        str | None,
        typer.Argument(metavar="[STUDY]", help="Name of the study; the latest unless told."),
    ] = None,
    *,
    time: Annotated[
        float,
        typer.Option(
            "--time", "-t", parser=seconds, metavar="DURATION", help="Begin no more after so long."
        ),
    ] = TIME,  # type: ignore[assignment] # the parser makes the float
    sessions: Annotated[
        int, typer.Option(min=2, help="At least so many, those of earlier calls included.")
    ] = 3,
    workspace: WorkspaceOption = WORKSPACE,
    storage: StorageOption = None,
    json: JsonOption = False,
) -> None:
    """Measure the candidates of a front again, in turns, until it is decided who belongs.

    A session measures each of them once, in random order, in a fresh process. The result, with the
    spread between sessions, is kept with the study and shown by `front` and `report` from then on.
    Stop it any time; the same command goes on where it was.

    Examples:

      trifront certify

      trifront certify fashion-mnist --time 30m --sessions 5
    """
    from optimizer.certifying.certify import CertifyOrder, certify
    from optimizer.certifying.showing import (
        data_of_certificate,
        lines_of_certificate,
        table_of_certificate,
    )
    from optimizer.front.of_study import front_of_study
    from optimizer.wiring import opened_worker, place_at, study_at

    place = place_at(workspace, storage)
    found = study_at(place, study)
    front = front_of_study(found, place.workspace)
    with opened_worker(found.space, place) as worker:
        certificate = certify(
            found,
            front,
            worker,
            place.workspace,
            order=CertifyOrder(sessions=sessions, time_s=time),
            on_step=lambda step: typer.echo(step, err=True),
        )
    if json:
        _echo_json({"study": found.name, **data_of_certificate(certificate)})
        return
    console = results_console()
    console.print(table_of_certificate(certificate, front))
    for line in lines_of_certificate(certificate, trials=len(found.records())):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _echo_json(document: dict[str, object]) -> None:
    import json

    typer.echo(json.dumps(document, indent=2))
