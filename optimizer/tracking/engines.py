"""Measured engines as LoggedModels: each once, apart from the runs that measured it.

A LoggedModel belongs to the experiment and not to a run, so that deleting runs, and collecting
what was deleted, leaves it: an engine that was chosen stays. It is found by the tag
``engine_digest``; ``models:/<id>`` names it in the model registry.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from optimizer.tracking.messages import EngineBuilt
from optimizer.tracking.runs import Runs, Step, is_active, quoted

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

ENGINE_DIGEST = "engine_digest"

_READY: Literal["READY"] = "READY"


class Engines:
    """The LoggedModels of one MLflow; used by one thread.

    Every method raises UnavailableError where MLflow does not answer and TrackingError where it
    refuses.
    """

    def __init__(self, client: "MlflowClient", runs: Runs, *, step: Step) -> None:
        self._client = client
        self._runs = runs
        self._step = step

    def publish(
        self, experiment_id: str, told: EngineBuilt, folder: Path
    ) -> Literal["delivered", "found"]:
        """Keep an engine, once, and link it to the runs that have measured it.

        Args:
            experiment_id: Where it belongs.
            told: What it is.
            folder: What is uploaded.
        """
        model = self._find(experiment_id, told.uid)
        if model is not None and model.status == _READY:
            self._link_all(experiment_id, told.uid, model.model_id)
            return "found"
        if model is None:
            model = self._created(experiment_id, told)
        with self._step():
            self._client.log_model_artifacts(model.model_id, str(folder))
        with self._step():
            self._client.finalize_logged_model(model.model_id, _READY)
        self._link_all(experiment_id, told.uid, model.model_id)
        return "delivered"

    def link(self, experiment_id: str, digest: str, run: "Run") -> None:
        """Name the engine that a run measured; one that is not there yet links itself later."""
        model = self._find(experiment_id, digest)
        if model is not None:
            self._runs.link_model(run, model.model_id)

    def _find(self, experiment_id: str, digest: str) -> "LoggedModel | None":
        with self._step():
            found = self._client.search_logged_models(
                [experiment_id], filter_string=f"tags.{ENGINE_DIGEST} = '{quoted(digest)}'"
            )
        ranked = sorted(found, key=lambda model: (model.status != _READY, model.model_id))
        return ranked[0] if ranked else None

    def _created(self, experiment_id: str, told: EngineBuilt) -> "LoggedModel":
        with self._step():
            return self._client.create_logged_model(
                experiment_id,
                name=told.name,
                tags={ENGINE_DIGEST: told.uid, **dict(told.tags)},
                params=dict(told.params),
                model_type=f"engine:{told.backend}",
            )

    def _link_all(self, experiment_id: str, digest: str, model_id: str) -> None:
        for run in self._runs.tagged(experiment_id, ENGINE_DIGEST, digest):
            if is_active(run):
                self._runs.link_model(run, model_id)
