"""Certify a study: measure the candidates of its front again, and tell MLflow what came of it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from optimizer.certifying.certificate import Certificate
from optimizer.certifying.certify import CertifyOrder, certify
from optimizer.front.front import Front
from optimizer.front.of_study import front_of_study
from optimizer.study.study import SearchStudy
from optimizer.wiring import Place, opened_worker

if TYPE_CHECKING:
    from rich.console import Console


def certify_study(
    study: SearchStudy, place: Place, order: CertifyOrder, *, on_step: Callable[[str], None]
) -> tuple[Front, Certificate]:
    """Measure the candidates of a study's front again, and keep what came of it with the study.

    Raises:
        StudyError: The front has no candidates, or too few sessions were finished to tell.
        StorageError: The study is out of reach.
        TrialError: A model or data that cannot be used.
        WorkspaceError: Raw blocks cannot be written.
    """
    workspace = place.workspace
    front = front_of_study(study, workspace)
    with opened_worker(study.space, place) as worker:
        return front, certify(study, front, worker, workspace, order=order, on_step=on_step)


def tell_mlflow(
    study: SearchStudy,
    certificate: Certificate,
    place: Place,
    *,
    mlflow: str | None,
    console: "Console",
) -> None:
    """Tell a certificate to every MLflow that has heard of its study; say what must wait.

    Args:
        study: That was certified.
        certificate: Of its front.
        place: Where the records of the study's searches lie.
        mlflow: Tracking URI with the credentials of the user; ``none`` tells nobody.
        console: Where the wait is shown.

    Raises:
        UsageError: A URI that means nothing.
        WorkspaceError: The disk refuses.
    """
    from optimizer.tracking.destination import NO_MLFLOW, check_uri, destination_of
    from optimizer.tracking.syncing import Syncing

    if mlflow == NO_MLFLOW:
        return
    check_uri(mlflow)
    usual = destination_of(mlflow, place.workspace)
    for synced in Syncing(place.workspace, console).certified(study, certificate, usual):
        if synced.waiting:
            console.print(
                f"{synced.problem}; `trifront sync` delivers them",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
