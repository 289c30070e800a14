"""What the report split says of the front, as MLflow shows it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from search_fakes import FACTS, FormulaRunner, ListeningView, measured, record_of

from optimizer.errors import TrackingError
from optimizer.search.budget import Budget
from optimizer.search.sampler_name import SamplerName
from optimizer.search.samplers import sampler_named
from optimizer.search.search import Finished, Search
from optimizer.study.records import TrialRecord
from optimizer.study.storage import open_storage
from optimizer.study.study import open_study
from optimizer.tracking.tracker import MlflowTracker, open_tracker
from optimizer.workspace import Workspace
from search_spaces.deployment import Deployment, Precision
from search_spaces.space import SearchSpace
from trials.measurement import Estimate, Quality, exact

if TYPE_CHECKING:
    from mlflow.entities import Run

DEPLOYMENT = Deployment(
    variant="small",
    precision=Precision.FP32,
    batch_size=1,
    concurrency=1,
    options=(("threads", 1),),
)
VERDICT = Quality(
    split="report",
    split_digest="r",
    samples=100,
    scores=(
        ("accuracy", Estimate(value=0.9, low=0.85, high=0.94)),
        ("macro_f1", exact(0.8)),
    ),
)


@dataclass
class ListeningTracker:
    """A tracker that remembers what it was told of the front, or refuses to hear it."""

    refuses: bool = False
    verdicts: dict[str, Quality] = field(default_factory=dict)
    front: set[str] = field(default_factory=set)

    def record(self, record: TrialRecord, *, blocks: Path | None, model: Path | None) -> str:
        """Accept everything."""
        assert blocks is None or model is None
        return record.uid

    def missing(self, uids: Iterable[str]) -> set[str]:
        """Miss nothing."""
        assert uids
        return set()

    def record_verdict(self, uid: str, quality: Quality) -> None:
        """Remember the verdict."""
        if self.refuses:
            raise TrackingError("MLflow is on holiday")
        self.verdicts[uid] = quality

    def mark_front(self, uids: Iterable[str]) -> None:
        """Remember the front."""
        self.front = set(uids)


def search(space: SearchSpace, folder: Path, tracker: ListeningTracker) -> tuple[Finished, str]:
    """Search 10 deployments of the tiny space; return what the user was told as well."""
    workspace = Workspace(root=folder / "work")
    storage, url = open_storage(workspace.storage_url, workspace), workspace.storage_url
    study = open_study(storage, url, "tiny", space=space, facts=FACTS)
    study.study.sampler, _ = sampler_named(
        SamplerName.RANDOM, study.encoding, seed=0, trials=None, repeats=False
    )
    view = ListeningView()
    runner = FormulaRunner()
    searching = Search(study, runner=runner, workspace=workspace, tracker=tracker, view=view)
    return searching.run(Budget(trials=10)), "\n".join(view.notes)


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> MlflowTracker:
    """Give one SQLite store to all tests here, because making one takes seconds."""
    return open_tracker(
        None,
        workspace=tmp_path_factory.mktemp("workspace"),
        study="tiny",
        backend="fake",
        space_text="version: 1\n",
        digests={},
    )


def published(tracker: MlflowTracker, number: int) -> str:
    """Publish a trial and return its uid."""
    record = record_of(number, measured(DEPLOYMENT))
    tracker.record(record, blocks=None, model=None)
    return record.uid


def run_of(tracker: MlflowTracker, uid: str) -> "Run":
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracker.uri)
    (run,) = client.search_runs([tracker.experiment_id], f"tags.trial_uid = '{uid}'")
    return run


def test_verdict_stands_beside_the_trials_own_metrics_with_its_interval(
    tracker: MlflowTracker,
) -> None:
    uid = published(tracker, 1)

    tracker.record_verdict(uid, VERDICT)

    metrics = run_of(tracker, uid).data.metrics
    told = {name: value for name, value in metrics.items() if name.startswith("report.")}
    assert told == {
        "report.accuracy": 0.9,
        "report.accuracy.low": 0.85,
        "report.accuracy.high": 0.94,
        "report.macro_f1": 0.8,
    }
    assert metrics["accuracy"] == pytest.approx(0.8)


def test_verdict_is_written_once_however_often_it_is_told(tracker: MlflowTracker) -> None:
    from mlflow import MlflowClient

    uid = published(tracker, 2)

    tracker.record_verdict(uid, VERDICT)
    tracker.record_verdict(uid, VERDICT)

    run_id = run_of(tracker, uid).info.run_id
    history = MlflowClient(tracking_uri=tracker.uri).get_metric_history(run_id, "report.accuracy")
    assert [metric.value for metric in history] == [0.9]


def test_verdict_on_a_trial_without_a_run_is_passed_over(tracker: MlflowTracker) -> None:
    from mlflow import MlflowClient

    uid = published(tracker, 3)
    MlflowClient(tracking_uri=tracker.uri).delete_run(run_of(tracker, uid).info.run_id)

    tracker.record_verdict(uid, VERDICT)
    tracker.record_verdict("never", VERDICT)
    tracker.mark_front([uid, "never"])


def test_members_of_the_front_are_tagged_and_former_ones_no_more(tracker: MlflowTracker) -> None:
    stays, leaves, comes, never = (published(tracker, number) for number in (4, 5, 6, 7))
    tracker.mark_front([stays, leaves])

    tracker.mark_front([comes, stays])
    tracker.mark_front([comes, stays])

    tags = [run_of(tracker, uid).data.tags for uid in (stays, leaves, comes, never)]
    assert [tag.get("on_front") for tag in tags] == ["true", "false", "true", None]


def test_search_tells_the_tracker_of_its_front(space: SearchSpace, tmp_path: Path) -> None:
    tracker = ListeningTracker()

    finished, _ = search(space, tmp_path, tracker)

    members = {record.uid for record in finished.front.members}
    assert tracker.front == members
    assert set(tracker.verdicts) == members
    assert {verdict.split for verdict in tracker.verdicts.values()} == {"report"}


def test_search_that_has_nothing_left_to_do_tells_it_again(
    space: SearchSpace, tmp_path: Path
) -> None:
    """The one before may have been killed, or MLflow may have been away."""
    search(space, tmp_path, ListeningTracker(refuses=True))
    tracker = ListeningTracker()

    finished, _ = search(space, tmp_path, tracker)

    assert finished.tried == 0
    assert set(tracker.verdicts) == {record.uid for record in finished.front.members}


def test_tracker_that_refuses_the_verdict_costs_nothing_but_a_note(
    space: SearchSpace, tmp_path: Path
) -> None:
    finished, told = search(space, tmp_path, ListeningTracker(refuses=True))

    assert finished.front.members
    assert told.endswith("published by the next session")
    assert "on holiday" in told
