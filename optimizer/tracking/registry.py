"""Versions in MLflow's model registry: exported deployments, each once, with all of their files.

A version leads to a LoggedModel and not to a run, so that no deletion of runs takes the files of
what is deployed. Registering is a chain of steps, each of which is found done by the next attempt:
whenever it was killed, calling it again finishes it and makes nothing twice.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from optimizer.tracking.logged_models import LoggedModels, ModelFacts
from optimizer.tracking.messages import Pairs
from optimizer.tracking.runs import UID, Runs, Step, is_active, quoted

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

FINGERPRINT = "fingerprint"
BELOW = "deployment"  # MLflow may put files of its own beside it, which the sums would not know

_KIND = "deployment"
_EXPERIMENT = "registered deployments"  # of those whose trial this MLflow was never told of


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An export that is to be registered.

    Attributes:
        folder: The export, whole.
        fingerprint: Of the export, unlike any other's.
        trial_uid: Of the trial that measured it.
        tags: Of the version and of its LoggedModel.
        params: Of the LoggedModel: the point of the space.
        description: Markdown.
    """

    folder: Path
    fingerprint: str
    trial_uid: str
    tags: Pairs
    params: Pairs
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A version in the registry.

    Attributes:
        is_new: It was made now.
    """

    name: str
    version: int
    model_id: str
    is_new: bool

    @property
    def uri(self) -> str:
        """How MLflow's tools name it."""
        return f"models:/{self.name}/{self.version}"


class Registry:
    """The model registry of one MLflow; used by one thread.

    Every method raises UnavailableError where MLflow does not answer and TrackingError where it
    refuses.
    """

    def __init__(
        self, client: "MlflowClient", runs: Runs, models: LoggedModels, *, step: Step
    ) -> None:
        self._client = client
        self._runs = runs
        self._models = models
        self._step = step

    def register(self, candidate: Candidate, name: str) -> Registered:
        """Make an export a version of a registered model, unless it is one already.

        Args:
            candidate: The export.
            name: Of the registered model, which is made where there is none.
        """
        run = self._run_of(candidate.trial_uid)
        experiment_id = (
            self._runs.experiment_named(_EXPERIMENT) if run is None else run.info.experiment_id
        )
        facts = ModelFacts(
            tag=FINGERPRINT,
            uid=candidate.fingerprint,
            name=f"{name}-{candidate.fingerprint[:12]}",
            kind=_KIND,
            tags=candidate.tags,
            params=candidate.params,
        )
        kept = self._models.keep(experiment_id, facts, candidate.folder, below=BELOW)
        if run is not None:
            self._runs.link_model(run, kept.model_id)
        self._make_model(name)
        found = self._version_of(name, candidate.fingerprint)
        version = found or self._made_version(name, candidate, kept.model_id)
        return Registered(
            name=name, version=int(version.version), model_id=kept.model_id, is_new=found is None
        )

    def _run_of(self, trial_uid: str) -> "Run | None":
        """Find the run of a trial in whatever experiment it is."""
        with self._step():
            experiments = self._client.search_experiments()
        for experiment in experiments:
            for run in self._runs.tagged(experiment.experiment_id, UID, trial_uid):
                if is_active(run):
                    return run
        return None

    def _make_model(self, name: str) -> None:
        with self._step():
            found = self._client.search_registered_models(f"name = '{quoted(name)}'")
        if not found:
            with self._step():
                self._client.create_registered_model(name, tags={"by": "trifront"})

    def _version_of(self, name: str, fingerprint: str) -> "ModelVersion | None":
        query = f"name = '{quoted(name)}' and tags.`{FINGERPRINT}` = '{quoted(fingerprint)}'"
        with self._step():
            found = self._client.search_model_versions(query)
        return min(found, key=lambda version: int(version.version), default=None)

    def _made_version(self, name: str, candidate: Candidate, model_id: str) -> "ModelVersion":
        """Make a version; of two that are made at once, the earlier stays."""
        with self._step(), _default_is(self._client.tracking_uri):
            made = self._client.create_model_version(
                name,
                source=f"models:/{model_id}",
                model_id=model_id,
                tags={FINGERPRINT: candidate.fingerprint, **dict(candidate.tags)},
                description=candidate.description,
            )
        first = self._version_of(name, candidate.fingerprint)
        if first is None or int(first.version) >= int(made.version):
            return made
        with self._step():
            self._client.delete_model_version(name, str(made.version))
        return first


@contextmanager
def _default_is(uri: str) -> Iterator[None]:
    """Make an MLflow the default one for a while.

    Its stores in databases look a LoggedModel up in the default MLflow, whichever they are of.
    """
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)
