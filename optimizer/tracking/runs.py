"""The experiments and runs of one MLflow: found by tag before they are made.

Runs are flat and tagged, not nested, because MLflow's page collapses nested runs and draws no
charts of them. Every call to MLflow is one step, so that a courier can be kept from working at any
moment, and may be repeated: MLflow keeps one row of a metric with the same time and step.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from optimizer.errors import TrackingError
from optimizer.tracking.messages import Experiment, Metrics, Pairs, Point

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

Step: TypeAlias = Callable[[], AbstractContextManager[None]]

UID = "trial_uid"
STUDY_ID = "study_id"

_BATCH = 100  # params, and tags, that MLflow takes at a time
_PAGE = 1000  # runs per page of a search; a page is held in memory
_DIGEST_LENGTH = 36  # longest that MLflow takes for a data set; the whole one is in a tag
_NOTE = "mlflow.note.content"  # what MLflow's page shows as the description
_KIND = ("mlflow.experimentKind", "custom_model_development")  # else the page takes us for a chat


class Runs:
    """Every call that concerns runs; used by one thread.

    Every method raises UnavailableError where MLflow does not answer and TrackingError where it
    refuses.
    """

    def __init__(self, client: "MlflowClient", *, step: Step, artifacts: str | None) -> None:
        """Wrap a client.

        Args:
            client: MLflow's.
            step: Entered around each call; maps MLflow's errors.
            artifacts: URI of the folder of artifacts; None where a server chooses it.
        """
        self._client = client
        self._step = step
        self._artifacts = artifacts

    def experiment(self, wanted: Experiment) -> str:
        """Find or make the experiment of a study and return its id.

        Where another study of that name is there already, the experiment is named with the id.
        """
        for name in (wanted.name, f"{wanted.name} ({wanted.study_id})"):
            with self._step():
                found = self._client.get_experiment_by_name(name)
            if found is None:
                return self._made_experiment(name, wanted)
            if found.tags.get(STUDY_ID, wanted.study_id) != wanted.study_id:
                continue
            if found.lifecycle_stage == "deleted":
                raise TrackingError(
                    f"MLflow experiment {name!r} was deleted",
                    hint=f"bring it back: mlflow experiments restore -x {found.experiment_id}",
                )
            if STUDY_ID not in found.tags:  # made by hand, or by an earlier trifront
                self._describe(str(found.experiment_id), wanted)
            return str(found.experiment_id)
        raise TrackingError(f"MLflow has experiments of other studies by the name {wanted.name!r}")

    def experiment_named(self, name: str) -> str:
        """Find or make an experiment that belongs to no study."""
        with self._step():
            found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        with self._step():
            made = self._client.create_experiment(name, artifact_location=self._artifacts)
        return str(made)

    def of_uid(self, experiment_id: str, uid: str) -> "Run | None":
        """Find the run of a trial or search: one that counts before one that was deleted."""
        found = list(self.tagged(experiment_id, UID, uid))
        return min(found, key=_rank, default=None)

    def tagged(self, experiment_id: str, tag: str, value: str, *more: str) -> "Iterator[Run]":
        """Yield all runs, the deleted ones too, with a tag (and ``more`` conditions)."""
        from mlflow.entities import ViewType

        query = " and ".join((f"tags.`{tag}` = '{quoted(value)}'", *more))
        token = None
        while True:
            with self._step():
                page = self._client.search_runs(
                    [experiment_id],
                    query,
                    run_view_type=ViewType.ALL,
                    max_results=_PAGE,
                    page_token=token,
                )
            yield from page
            token = page.token
            if not token:
                return

    def create(self, experiment_id: str, *, name: str, started_ms: int, tags: Pairs) -> "Run":
        """Make a run that began in the past; it is RUNNING."""
        with self._step():
            return self._client.create_run(
                experiment_id, start_time=started_ms, tags=dict(tags), run_name=name
            )

    def log(
        self,
        run_id: str,
        *,
        metrics: Metrics = (),
        params: Pairs = (),
        tags: Pairs = (),
        time_ms: int = 0,
        step: int = 0,
    ) -> None:
        """Write metrics, params and tags, as many at a time as MLflow takes."""
        from mlflow.entities import Metric, Param, RunTag

        longest = max(len(metrics), len(params), len(tags))
        for first in range(0, longest, _BATCH):
            batch = slice(first, first + _BATCH)
            with self._step():
                self._client.log_batch(
                    run_id,
                    metrics=[Metric(name, it, time_ms, step) for name, it in metrics[batch]],
                    params=[Param(name, value) for name, value in params[batch]],
                    tags=[RunTag(name, value) for name, value in tags[batch]],
                )

    def log_point(self, run_id: str, point: Point) -> None:
        """Write one point of a curve."""
        self.log(
            run_id,
            metrics=((point.metric, point.value),),
            time_ms=point.time_ms,
            step=point.step,
        )

    def log_files(self, run_id: str, folder: Path) -> None:
        """Upload all files of a folder under their names."""
        with self._step():
            self._client.log_artifacts(run_id, str(folder))

    def log_datasets(self, run_id: str, datasets: Pairs) -> None:
        """Name the data that a run used."""
        with self._step():
            self._client.log_inputs(run_id, datasets=[_dataset(*one) for one in datasets])

    def link_model(self, run: "Run", model_id: str) -> None:
        """Name a LoggedModel as what a run measured; MLflow takes no link twice."""
        from mlflow.entities import LoggedModelOutput

        known: list[Any] = [] if run.outputs is None else run.outputs.model_outputs
        if all(one.model_id != model_id for one in known):
            with self._step():
                self._client.log_outputs(run.info.run_id, [LoggedModelOutput(model_id, step=0)])

    def set_status(self, run_id: str, status: str, *, finished_ms: int | None = None) -> None:
        """Say how a run stands; ``finished_ms`` where it has ended."""
        with self._step():
            if finished_ms is None:
                self._client.update_run(run_id, status=status)
            else:
                self._client.set_terminated(run_id, status, end_time=finished_ms)

    def delete(self, run_id: str) -> None:
        """Remove a run that was made for nothing."""
        with self._step():
            self._client.delete_run(run_id)

    def _made_experiment(self, name: str, wanted: Experiment) -> str:
        with self._step():
            made = self._client.create_experiment(
                name,
                artifact_location=self._artifacts,
                tags={STUDY_ID: wanted.study_id, _NOTE: wanted.description, _KIND[0]: _KIND[1]},
            )
        return str(made)

    def _describe(self, experiment_id: str, wanted: Experiment) -> None:
        with self._step():
            self._client.set_experiment_tag(experiment_id, *_KIND)
            self._client.set_experiment_tag(experiment_id, _NOTE, wanted.description)
            self._client.set_experiment_tag(experiment_id, STUDY_ID, wanted.study_id)


def is_active(run: "Run") -> bool:
    """Tell whether a run was not deleted: MLflow writes to no other."""
    return bool(run.info.lifecycle_stage == "active")


def is_finished(run: "Run") -> bool:
    """Tell whether nothing more is to come."""
    return bool(run.info.status != "RUNNING")


def _rank(run: "Run") -> tuple[bool, bool, str]:
    return not is_active(run), not is_finished(run), run.info.run_id


def _dataset(split: str, digest: str) -> "DatasetInput":
    from mlflow.entities import Dataset, DatasetInput, InputTag

    return DatasetInput(
        Dataset(
            name=split,
            digest=digest[:_DIGEST_LENGTH],
            source_type="trifront",
            source=json.dumps({"sha256": digest}),
        ),
        tags=[InputTag("mlflow.data.context", split), InputTag("sha256", digest)],
    )


def quoted(text: str) -> str:
    r"""Make text safe between single quotes in a query; MLflow's queries know no escape.

    Raises:
        TrackingError: A quote in an identifier, which none of ours has.
    """
    if "'" in text or "\\" in text:
        raise TrackingError(f"identifier {text!r} cannot be looked up in MLflow")
    return text
