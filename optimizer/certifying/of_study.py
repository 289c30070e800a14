"""Certify a study: measure the candidates of its front again, in a worker process."""

from collections.abc import Callable

from optimizer.certifying.certificate import Certificate
from optimizer.certifying.certify import CertifyOrder, certify
from optimizer.front.front import Front
from optimizer.front.of_study import front_of_study
from optimizer.study.study import SearchStudy
from optimizer.wiring import Place, opened_worker


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
