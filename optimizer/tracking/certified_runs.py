"""Tell the runs of a study what its latest certificate says of them."""

from typing import TYPE_CHECKING

from optimizer.tracking.certificate_content import CERTIFICATE, CERTIFIED, Standing
from optimizer.tracking.messages import CertificateGiven, Metrics, Pairs
from optimizer.tracking.runs import STUDY_ID, UID, Runs, is_active, quoted

if TYPE_CHECKING:
    from mlflow.entities import Run


def tell_certificate(
    runs: Runs, experiment_id: str, study_id: str, told: CertificateGiven
) -> bool:
    """Tell the runs; return whether any of it was news. Runs that were deleted are passed over.

    Metrics carry the time of the certificate: a later one is a later point of each, and this one
    told again is the same point.

    Raises:
        UnavailableError: MLflow does not answer.
        TrackingError: It refuses.
    """
    news = _outdate(runs, experiment_id, study_id, {one.uid for one in told.trials})
    said = [(one.uid, one.tags, one.metrics) for one in told.trials]
    said.append((told.search, ((CERTIFICATE, told.words),), ()))
    for uid, tags, metrics in said:
        run = runs.of_uid(experiment_id, uid)
        if run is not None and is_active(run) and not _has(run, tags, metrics):
            runs.log(run.info.run_id, metrics=metrics, tags=tags, time_ms=told.at_ms)
            news = True
    return news


def _outdate(runs: Runs, experiment_id: str, study_id: str, certified: set[str]) -> bool:
    """Mark the trials of which only an earlier certificate speaks; tell whether any was."""
    of_study = f"tags.`{STUDY_ID}` = '{quoted(study_id)}'"
    outdated = [
        run
        for standing in (Standing.TRUE, Standing.FALSE, Standing.UNDECIDED)
        for run in list(runs.tagged(experiment_id, CERTIFIED, standing.value, of_study))
        if is_active(run) and run.data.tags[UID] not in certified
    ]
    for run in outdated:
        runs.log(run.info.run_id, tags=((CERTIFIED, Standing.OUTDATED.value),))
    return bool(outdated)


def _has(run: "Run", tags: Pairs, metrics: Metrics) -> bool:
    return set(tags) <= run.data.tags.items() and set(metrics) <= run.data.metrics.items()
