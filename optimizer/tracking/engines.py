"""Measured engines as LoggedModels: each once, apart from the runs that measured it.

An engine is found by the tag ``engine_digest``, which the runs that measured it have too;
``models:/<id>`` names it in the model registry.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from optimizer.tracking.logged_models import LoggedModels, ModelFacts
from optimizer.tracking.messages import EngineBuilt
from optimizer.tracking.runs import Runs, is_active

if TYPE_CHECKING:
    from mlflow.entities import Run

ENGINE_DIGEST = "engine_digest"


class Engines:
    """The engines of one MLflow; used by one thread.

    Every method raises UnavailableError where MLflow does not answer and TrackingError where it
    refuses.
    """

    def __init__(self, models: LoggedModels, runs: Runs) -> None:
        self._models = models
        self._runs = runs

    def publish(
        self, experiment_id: str, told: EngineBuilt, folder: Path
    ) -> Literal["delivered", "found"]:
        """Keep an engine, once, and link it to the runs that have measured it.

        Args:
            experiment_id: Where it belongs.
            told: What it is.
            folder: What is uploaded.
        """
        facts = ModelFacts(
            tag=ENGINE_DIGEST,
            uid=told.uid,
            name=told.name,
            kind=f"engine:{told.backend}",
            tags=told.tags,
            params=told.params,
        )
        kept = self._models.keep(experiment_id, facts, folder)
        for run in self._runs.tagged(experiment_id, ENGINE_DIGEST, told.uid):
            if is_active(run):
                self._runs.link_model(run, kept.model_id)
        return "delivered" if kept.is_new else "found"

    def link(self, experiment_id: str, digest: str, run: "Run") -> None:
        """Name the engine that a run measured; one that is not there yet links itself later."""
        model = self._models.find(experiment_id, ENGINE_DIGEST, digest)
        if model is not None:
            self._runs.link_model(run, model.model_id)
