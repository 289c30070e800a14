"""LoggedModels of one MLflow: files that belong to an experiment, each set of them kept once.

A LoggedModel belongs to the experiment and not to a run, so that deleting runs, and collecting
what was deleted, leaves it. It is found by a tag of ours; one whose upload was broken off is
filled up by the next that wants it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from optimizer.tracking.messages import Pairs
from optimizer.tracking.runs import Step, quoted

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

_READY: Literal["READY"] = "READY"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a LoggedModel says of itself.

    Attributes:
        tag: The tag that identifies it.
        uid: Value of that tag.
        name: For people.
        kind: MLflow's model type.
    """

    tag: str
    uid: str
    name: str
    kind: str
    tags: Pairs
    params: Pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A LoggedModel whose files are all there; ``is_new`` where it was not yet."""

    model_id: str
    is_new: bool


class LoggedModels:
    """The LoggedModels of one MLflow; used by one thread.

    Every method raises UnavailableError where MLflow does not answer and TrackingError where it
    refuses.
    """

    def __init__(self, client: "MlflowClient", *, step: Step) -> None:
        self._client = client
        self._step = step

    def keep(
        self, experiment_id: str, facts: ModelFacts, folder: Path, *, below: str = ""
    ) -> Kept:
        """Keep the files of a folder, once.

        Args:
            experiment_id: Where it belongs.
            facts: What it is.
            folder: What is uploaded.
            below: Folder of the LoggedModel that the files go to.
        """
        model = self.find(experiment_id, facts.tag, facts.uid)
        is_new = model is None or model.status != _READY
        if model is None:
            model = self._created(experiment_id, facts)
        if is_new:
            with self._step():
                self._client.log_model_artifacts(model.model_id, str(folder), below or None)
            with self._step():
                self._client.finalize_logged_model(model.model_id, _READY)
        return Kept(model_id=model.model_id, is_new=is_new)

    def find(self, experiment_id: str, tag: str, uid: str) -> "LoggedModel | None":
        """Find a LoggedModel by its tag: one whose files are there before one that waits."""
        with self._step():
            found = self._client.search_logged_models(
                [experiment_id], filter_string=f"tags.{tag} = '{quoted(uid)}'"
            )
        ranked = sorted(found, key=lambda model: (model.status != _READY, model.model_id))
        return ranked[0] if ranked else None

    def _created(self, experiment_id: str, facts: ModelFacts) -> "LoggedModel":
        with self._step():
            return self._client.create_logged_model(
                experiment_id,
                name=facts.name,
                tags={facts.tag: facts.uid, **dict(facts.tags)},
                params=dict(facts.params),
                model_type=facts.kind,
            )
