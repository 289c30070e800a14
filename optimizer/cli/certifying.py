"""``trifront certify``: measure the candidates of a front again until it is decided."""

from typing import TYPE_CHECKING, Annotated

import typer

from optimizer.cli.options import (
    MLFLOW_VARIABLE,
    WORKSPACE,
    JsonOption,
    StorageOption,
    StudyArgument,
    StudyOption,
    WorkspaceOption,
    results_console,
    study_named,
)
from optimizer.cli.values import seconds

if TYPE_CHECKING:
    from optimizer.certifying.certificate import Certificate
    from optimizer.front.front import Front
    from optimizer.study.study import SearchStudy

TIME = "10m"


def certify(
    study: StudyArgument = None,
    *,
    named: StudyOption = None,
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
    spread between sessions, is kept with the study and shown by `front`, `report` and the
    dashboard from then on; every MLflow that knows the study is told. Stop it any time; the same
    command goes on where it was.

    Examples:

      trifront certify

      trifront certify fashion-mnist --time 30m --sessions 5
    """
    import os

    from rich.console import Console

    from optimizer.certifying.certify import CertifyOrder
    from optimizer.certifying.of_study import certify_study
    from optimizer.tracking.syncing import tell_certificate
    from optimizer.wiring import place_at, study_at

    place = place_at(workspace, storage)
    found = study_at(place, study_named(study, named))
    front, certificate = certify_study(
        found,
        place,
        CertifyOrder(sessions=sessions, time_s=time),
        on_step=lambda step: typer.echo(step, err=True),
    )
    if json:
        _echo_json(found, certificate)
    else:
        _print(certificate, front, trials=len(found.records()))
    tell_certificate(
        found,
        certificate,
        place.workspace,
        mlflow=os.environ.get(MLFLOW_VARIABLE),
        console=Console(stderr=True),
    )


def _echo_json(study: "SearchStudy", certificate: "Certificate") -> None:
    import json

    from optimizer.certifying.showing import data_of_certificate

    document = {"study": study.name, **data_of_certificate(certificate)}
    typer.echo(json.dumps(document, indent=2))


def _print(certificate: "Certificate", front: "Front", *, trials: int) -> None:
    from optimizer.certifying.showing import lines_of_certificate, table_of_certificate

    console = results_console()
    console.print(table_of_certificate(certificate, front))
    for line in lines_of_certificate(certificate, trials=trials):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
