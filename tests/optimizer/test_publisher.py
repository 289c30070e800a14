"""What MLflow holds after it was told, once or twice, by one workspace or two."""

import json
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tracking_fakes import (
    DEPLOYMENT,
    ENVIRONMENT,
    EXPERIMENT,
    FACTS,
    STUDY_ID,
    OwnMlflow,
    a_failure,
    a_measurement,
    a_server,
    a_trial,
    an_engine,
    own_mlflow,
    parcel,
    some_blocks,
)

from optimizer.errors import TrackingError
from optimizer.tracking.client import open_publisher
from optimizer.tracking.destination import destination_of
from optimizer.tracking.messages import (
    CertificateGiven,
    CertifiedTrial,
    FrontFound,
    Message,
    Point,
    SearchBegan,
    SearchEnded,
    TrialEnded,
    VerdictGiven,
)
from optimizer.workspace import Workspace
from trials.outcome import Infeasible

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel

SEARCH = SearchBegan(
    uid="search-1",
    name="search",
    started_ms=1_700_000_000_000,
    tags=(("kind", "search"), ("trial_uid", "search-1"), ("study_id", STUDY_ID)),
    params=(("space", "tiny"),),
    datasets=(("report", "r" * 64),),
    texts=(("space.yaml", "version: 1\n"),),
)


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> OwnMlflow:
    """Give one SQLite store to all tests here, because making one takes seconds."""
    return own_mlflow(tmp_path_factory.mktemp("workspace"))


@pytest.fixture
def blocks(tmp_path: Path) -> Path:
    return some_blocks(tmp_path / "blocks.parquet")


def with_blocks(uid: str, **more: str) -> TrialEnded:
    names = ("blocks.parquet",)
    return replace(a_trial(uid, files=names, blocks="blocks.parquet"), **more)  # type: ignore[arg-type]


def test_trial_is_a_finished_run_with_its_own_times(mlflow: OwnMlflow) -> None:
    mlflow.publish(a_trial("plain"))

    run = mlflow.run("plain")
    assert run.info.status == "FINISHED"
    assert (run.info.start_time, run.info.end_time) == (1_700_000_000_500, 1_700_000_003_250)
    assert run.info.run_name == "0007 small int8 b4 c2 threads=1"
    assert run.data.params == {axis: str(value) for axis, value in DEPLOYMENT.axes()}
    assert run.data.metrics["latency_p50_ms.high"] == pytest.approx(2.2)


def test_failed_trial_is_a_failed_run_and_an_infeasible_one_is_finished(
    mlflow: OwnMlflow,
) -> None:
    infeasible = Infeasible(
        deployment=DEPLOYMENT, kind="memory", reason="does not fit", environment=ENVIRONMENT
    )

    mlflow.publish(a_trial("f", a_failure()))
    mlflow.publish(a_trial("i", infeasible))

    failed, finished = mlflow.run("f"), mlflow.run("i")
    assert (failed.info.status, finished.info.status) == ("FAILED", "FINISHED")
    assert failed.data.tags["reason"] == "killed by SIGSEGV"
    assert finished.data.tags["reason_kind"] == "memory"
    assert finished.data.metrics == {}


def test_data_sets_carry_their_whole_digest(mlflow: OwnMlflow) -> None:
    mlflow.publish(a_trial("data"))

    inputs = mlflow.run("data").inputs
    assert inputs is not None
    digests = {
        entry.dataset.name: {tag.key: tag.value for tag in entry.tags}["sha256"]
        for entry in inputs.dataset_inputs
    }
    assert digests == {
        split: FACTS.digests[f"data:{split}"] for split in ("calibration", "search")
    }


def test_files_of_a_measured_trial_are_its_outcome_blocks_and_histogram(
    mlflow: OwnMlflow, blocks: Path
) -> None:
    mlflow.publish(with_blocks("files"), {"blocks.parquet": blocks})

    folder = mlflow.folder("files")
    assert {path.name for path in folder.iterdir()} == {
        *("blocks.parquet", "environment.json", "latencies.png", "outcome.json")
    }
    assert json.loads((folder / "environment.json").read_text())["gpu"] == "H0"
    assert (folder / "blocks.parquet").read_bytes() == blocks.read_bytes()
    assert (folder / "latencies.png").read_bytes().startswith(b"\x89PNG")


def test_published_files_are_copies_and_the_originals_are_as_they_were(
    mlflow: OwnMlflow, blocks: Path
) -> None:
    """Records hold links into the engine store, through which nothing must be written."""
    engine = blocks.with_name("payload")
    engine.write_bytes(b"an engine")
    before = blocks.read_bytes()

    mlflow.publish(with_blocks("copies"), {"blocks.parquet": blocks})
    mlflow.publish(an_engine("c" * 64), {"engine.onnx": engine})

    copy = mlflow.folder("copies") / "blocks.parquet"
    assert (blocks.read_bytes(), engine.read_bytes()) == (before, b"an engine")
    assert copy.stat().st_ino != blocks.stat().st_ino
    assert not copy.is_symlink()


def test_file_that_bears_the_name_of_one_that_is_drawn_is_not_overwritten(
    mlflow: OwnMlflow, blocks: Path
) -> None:
    told = replace(with_blocks("clash"), files=("blocks.parquet", "latencies.png"))
    mine = blocks.with_name("mine.png")
    mine.write_bytes(b"mine")

    with pytest.raises(TrackingError, match="File exists"):
        mlflow.publish(told, {"blocks.parquet": blocks, "latencies.png": mine})

    assert mine.read_bytes() == b"mine"


def test_telling_twice_gives_one_run_and_one_point_of_each_metric(
    mlflow: OwnMlflow, blocks: Path
) -> None:
    first = mlflow.publish(with_blocks("twice"), {"blocks.parquet": blocks})
    second = mlflow.publish(with_blocks("twice"), {"blocks.parquet": blocks})

    run = mlflow.run("twice")
    history = mlflow.client.get_metric_history(run.info.run_id, "latency_p50_ms")
    assert (first, second) == ("delivered", "found")
    assert len(history) == 1


def test_run_that_a_kill_left_half_told_is_completed(mlflow: OwnMlflow, blocks: Path) -> None:
    """All of it was written but the end, so that everything is written a second time."""
    told = with_blocks("half")
    mlflow.publish(told, {"blocks.parquet": blocks})
    run_id = mlflow.run("half").info.run_id
    mlflow.client.update_run(run_id, status="RUNNING")

    result = mlflow.publish(told, {"blocks.parquet": blocks})

    run = mlflow.run("half")
    history = mlflow.client.get_metric_history(run_id, "latency_p50_ms")
    assert result == "delivered"
    assert run.info.status == "FINISHED"
    assert run.info.run_id == run_id
    assert len(history) == 1


def test_run_that_somebody_deleted_is_not_made_again(mlflow: OwnMlflow) -> None:
    mlflow.publish(a_trial("unwanted"))
    mlflow.client.delete_run(mlflow.run("unwanted").info.run_id)

    result = mlflow.publish(a_trial("unwanted"))

    assert result == "deleted"
    assert mlflow.runs("unwanted") == []


def test_run_without_blocks_is_completed_by_the_workspace_that_has_them(
    mlflow: OwnMlflow, blocks: Path
) -> None:
    mlflow.publish(a_trial("shared"))
    run_id = mlflow.run("shared").info.run_id
    missing = mlflow.run("shared").data.tags["raw_blocks"]

    result = mlflow.publish(with_blocks("shared"), {"blocks.parquet": blocks})

    assert (missing, result) == ("missing", "delivered")
    assert mlflow.run("shared").info.run_id == run_id
    assert mlflow.run("shared").data.tags["raw_blocks"] == "kept"
    assert (mlflow.folder("shared") / "latencies.png").is_file()


class Rival:
    """Another workspace, which tells of the same trial as soon as our run is there.

    Args:
        mlflow: Whom both tell.
        uid: The trial.
        finished: It is done at once; else it is about to, in a run of a lesser id than ours.
    """

    def __init__(self, mlflow: OwnMlflow, uid: str, *, finished: bool) -> None:
        self.run_id = ""
        self._mlflow = mlflow
        self._uid = uid
        self._finished = finished

    def __call__(self) -> "Rival":
        """Be entered at each of our steps."""
        return self

    def __enter__(self) -> None:
        """Make the run, once."""
        ours = [] if self.run_id else self._mlflow.runs(self._uid)
        for run in ours:
            self._make(run.info.run_id)

    def __exit__(self, *_: object) -> None:
        """Do nothing."""

    def _make(self, ours: str) -> None:
        client, experiment_id = self._mlflow.client, self._mlflow.experiment_id
        made = client.create_run(experiment_id, tags={"trial_uid": self._uid}).info.run_id
        while not self._finished and made > ours:
            client.delete_run(made)
            made = client.create_run(experiment_id, tags={"trial_uid": self._uid}).info.run_id
        if self._finished:
            client.set_terminated(made)
        self.run_id = made


@pytest.mark.parametrize("finished", [True, False])
def test_trial_that_two_workspaces_tell_at_once_is_one_run(
    mlflow: OwnMlflow, *, finished: bool
) -> None:
    uid = f"raced-{finished}"
    rival = Rival(mlflow, uid, finished=finished)
    ours = OwnMlflow(mlflow.destination, open_publisher(mlflow.destination, rival))

    ours.publish(a_trial(uid))

    run = mlflow.run(uid)
    assert run.info.run_id == rival.run_id
    assert run.info.status == "FINISHED"


def test_engine_is_one_model_linked_to_every_run_that_measured_it(
    mlflow: OwnMlflow, blocks: Path
) -> None:
    engine = blocks.with_name("payload")
    engine.write_bytes(b"an engine")
    digest = "1" * 64
    mlflow.publish(a_trial("early", a_measurement(digest)))

    results = [mlflow.publish(an_engine(digest), {"engine.onnx": engine}) for _ in range(2)]
    mlflow.publish(a_trial("late", a_measurement(digest)))

    (model,) = models(mlflow, digest)
    assert results == ["delivered", "found"]
    assert str(model.status) == "READY"
    for uid in ("early", "late"):
        outputs = mlflow.run(uid).outputs
        assert outputs is not None
        assert [one.model_id for one in outputs.model_outputs] == [model.model_id]


def models(mlflow: OwnMlflow, digest: str) -> "list[LoggedModel]":
    query = f"tags.engine_digest = '{digest}'"
    return list(mlflow.client.search_logged_models([mlflow.experiment_id], query))


def test_engine_that_a_kill_left_half_uploaded_is_completed(
    mlflow: OwnMlflow, blocks: Path
) -> None:
    engine = blocks.with_name("payload")
    engine.write_bytes(b"an engine")
    digest = "2" * 64
    mlflow.client.create_logged_model(
        mlflow.experiment_id, name="half", tags={"engine_digest": digest}
    )

    mlflow.publish(an_engine(digest), {"engine.onnx": engine})

    (model,) = models(mlflow, digest)
    folder = Path(model.artifact_location.removeprefix("file://"))
    assert str(model.status) == "READY"
    assert (folder / "engine.onnx").read_bytes() == b"an engine"


def test_engine_outlives_its_runs_and_the_collection_of_what_was_deleted(
    mlflow: OwnMlflow, blocks: Path
) -> None:
    engine, digest = blocks.with_name("payload"), "3" * 64
    engine.write_bytes(b"a champion")
    mlflow.publish(an_engine(digest), {"engine.onnx": engine})
    mlflow.publish(a_trial("gone", a_measurement(digest)))
    run_id, uri = mlflow.run("gone").info.run_id, mlflow.destination.uri
    mlflow.client.delete_run(run_id)

    stores = ("--backend-store-uri", uri, "--tracking-uri", uri)
    command = [sys.executable, "-m", "mlflow", "gc", *stores, "--run-ids", run_id]
    subprocess.run(command, check=True, capture_output=True, cwd=blocks.parent)

    (model,) = models(mlflow, digest)
    folder = Path(model.artifact_location.removeprefix("file://"))
    assert (folder / "engine.onnx").read_bytes() == b"a champion"


def test_search_is_running_until_its_end_is_told(mlflow: OwnMlflow) -> None:
    mlflow.publish(SEARCH)
    first = mlflow.run("search-1").info.status
    end = SearchEnded(
        uid="search-1",
        finished_ms=1_700_000_009_000,
        status="KILLED",
        metrics=(("trials", 12.0),),
        step=12,
        texts=(("front.csv", "trial\n"),),
    )

    mlflow.publish(end)

    run = mlflow.run("search-1")
    assert (first, run.info.status) == ("RUNNING", "KILLED")
    assert run.info.end_time == 1_700_000_009_000
    assert run.data.metrics == {"trials": 12.0}
    names = {path.name for path in mlflow.folder("search-1").iterdir()}
    assert names == {"space.yaml", "front.csv"}


def test_search_of_hundreds_of_variants_has_the_digest_of_each(mlflow: OwnMlflow) -> None:
    """MLflow takes a hundred tags at a time."""
    digests = tuple((f"digest.variant.v{number}", "d" * 64) for number in range(250))
    tags = (("trial_uid", "search-6"), ("study_id", STUDY_ID), *digests)

    mlflow.publish(replace(SEARCH, uid="search-6", tags=tags))
    mlflow.publish(replace(SEARCH, uid="search-6", tags=tags))

    assert mlflow.run("search-6").data.tags.items() >= dict(digests).items()


def test_search_that_goes_on_is_running_again_and_still_one_run(mlflow: OwnMlflow) -> None:
    told = replace(SEARCH, uid="search-2", tags=(*SEARCH.tags, ("trial_uid", "search-2")))
    for message in (told, SearchEnded(uid="search-2", finished_ms=9, status="FINISHED"), told):
        mlflow.publish(message)

    assert mlflow.run("search-2").info.status == "RUNNING"
    mlflow.publish(SearchEnded(uid="search-2", finished_ms=10, status="FINISHED"))
    assert mlflow.run("search-2").info.status == "FINISHED"


def test_end_of_one_session_leaves_a_search_running_that_another_goes_on_with(
    mlflow: OwnMlflow,
) -> None:
    told = replace(SEARCH, uid="search-3", tags=(*SEARCH.tags, ("trial_uid", "search-3")))
    mlflow.publish(told)

    mlflow.publish(SearchEnded(uid="search-3", finished_ms=9, status=None))

    assert mlflow.run("search-3").info.status == "RUNNING"


def test_curve_of_the_search_has_one_point_a_trial_however_often_it_is_told(
    mlflow: OwnMlflow,
) -> None:
    for _ in range(2):
        for number, value in enumerate((1.0, 1.0, 2.5)):
            point = Point(
                search="search-4", metric="hypervolume", value=value, step=number, time_ms=number
            )
            mlflow.publish(a_trial(f"curve-{number}", point=point))

    run_id = mlflow.run("search-4").info.run_id
    history = mlflow.client.get_metric_history(run_id, "hypervolume")
    assert sorted((one.step, one.value) for one in history) == [(0, 1.0), (1, 1.0), (2, 2.5)]


def test_curve_of_a_search_that_somebody_deleted_holds_up_no_trial(mlflow: OwnMlflow) -> None:
    point = Point(search="search-5", metric="hypervolume", value=1.0, step=1, time_ms=1)
    mlflow.publish(a_trial("before", point=point))
    mlflow.client.delete_run(mlflow.run("search-5").info.run_id)
    with pytest.raises(TrackingError):
        mlflow.publish(a_trial("after", point=point))

    result = mlflow.publish(a_trial("after", point=point))

    assert result == "found"
    assert mlflow.runs("search-5") == []


VERDICT = (("report.accuracy", 0.9), ("report.accuracy.low", 0.85), ("report.macro_f1", 0.8))


def test_verdict_stands_beside_the_trials_own_metrics_once(mlflow: OwnMlflow) -> None:
    mlflow.publish(a_trial("judged"))

    results = [mlflow.publish(VerdictGiven(uid="judged", metrics=VERDICT)) for _ in range(2)]

    run = mlflow.run("judged")
    told = {name: it for name, it in run.data.metrics.items() if name.startswith("report.")}
    history = mlflow.client.get_metric_history(run.info.run_id, "report.accuracy")
    assert results == ["delivered", "found"]
    assert told == dict(VERDICT)
    assert len(history) == 1


def test_verdict_and_front_pass_over_trials_without_a_run(mlflow: OwnMlflow) -> None:
    assert mlflow.publish(VerdictGiven(uid="never", metrics=VERDICT)) == "deleted"

    mlflow.publish(FrontFound(uid="f", members=("never",)))

    assert mlflow.runs("never") == []


def test_members_of_the_front_are_tagged_and_former_ones_no_more(mlflow: OwnMlflow) -> None:
    for uid in ("stays", "leaves", "comes", "misses"):
        mlflow.publish(a_trial(uid))
    mlflow.publish(FrontFound(uid="f", members=("stays", "leaves")))

    for _ in range(2):
        mlflow.publish(FrontFound(uid="f", members=("comes", "stays")))

    tags = {uid: mlflow.run(uid).data.tags["on_front"] for uid in ("stays", "leaves", "misses")}
    assert tags == {"stays": "true", "leaves": "false", "misses": "false"}
    assert mlflow.run("comes").data.tags["on_front"] == "true"


def a_certificate(*uids: str, probability: float = 0.97, at_ms: int = 5) -> CertificateGiven:
    metrics = (("certified.probability", probability), ("certified.latency_p99_ms", 2.0))
    return CertificateGiven(
        uid="study",
        search="search-1",
        words=f"certified at {at_ms}",
        at_ms=at_ms,
        trials=tuple(
            CertifiedTrial(uid=uid, tags=(("certified", "true"),), metrics=metrics) for uid in uids
        ),
    )


def test_certificate_is_told_once_beside_the_trials_own_metrics(mlflow: OwnMlflow) -> None:
    mlflow.publish(replace(SEARCH, uid="search-1"))
    mlflow.publish(a_trial("sure"))

    results = [mlflow.publish(a_certificate("sure")) for _ in range(2)]

    run = mlflow.run("sure")
    history = mlflow.client.get_metric_history(run.info.run_id, "certified.probability")
    assert results == ["delivered", "found"]
    assert run.data.tags["certified"] == "true"
    assert run.data.metrics["certified.latency_p99_ms"] == 2.0
    assert [(one.value, one.timestamp) for one in history] == [(0.97, 5)]
    assert mlflow.run("search-1").data.tags["certificate"] == "certified at 5"


def test_later_certificate_is_a_later_point_and_outdates_what_it_does_not_speak_of(
    mlflow: OwnMlflow,
) -> None:
    for uid in ("again", "gone", "unasked"):
        mlflow.publish(a_trial(uid))
    mlflow.publish(a_certificate("again", "gone", at_ms=6))

    for _ in range(2):
        mlflow.publish(a_certificate("again", probability=0.5, at_ms=7))

    run = mlflow.run("again")
    history = mlflow.client.get_metric_history(run.info.run_id, "certified.probability")
    assert [one.value for one in history] == [0.97, 0.5]
    assert run.data.metrics["certified.probability"] == 0.5
    assert run.data.tags["certified"] == "true"
    assert mlflow.run("gone").data.tags["certified"] == "outdated"
    assert "certified" not in mlflow.run("unasked").data.tags


def test_certificate_passes_over_trials_and_a_search_without_a_run(mlflow: OwnMlflow) -> None:
    told = replace(a_certificate("never-tried"), search="search-nobody")

    mlflow.publish(told)

    assert mlflow.publish(told) == "found"
    assert mlflow.runs("never-tried") == []
    assert mlflow.runs("search-nobody") == []


def test_experiment_says_what_it_is_and_whose(mlflow: OwnMlflow) -> None:
    mlflow.publish(a_trial("described"))

    experiment = mlflow.client.get_experiment(mlflow.experiment_id)
    assert experiment.name == "demo"
    assert experiment.tags["mlflow.note.content"] == "a *demo*"
    assert experiment.tags["study_id"] == STUDY_ID


def test_studies_of_one_name_have_experiments_of_their_own(mlflow: OwnMlflow) -> None:
    mlflow.publish(a_trial("mine"))
    namesake = replace(EXPERIMENT, study_id="ba9876543210")

    told = parcel(mlflow.destination.folder, a_trial("other"), experiment=namesake)
    mlflow.publisher.publish(told)

    other = mlflow.client.get_experiment_by_name("demo (ba9876543210)")
    assert other is not None
    (run,) = mlflow.client.search_runs([other.experiment_id])
    assert run.data.tags["trial_uid"] == "other"


def test_experiment_that_a_user_has_made_before_is_taken_and_described(
    mlflow: OwnMlflow,
) -> None:
    place = (mlflow.destination.folder / "by hand").as_uri()  # else below the working folder
    made = mlflow.client.create_experiment("by hand", artifact_location=place)
    mine = replace(EXPERIMENT, name="by hand")

    mlflow.publisher.publish(
        parcel(mlflow.destination.folder, a_trial("in theirs"), experiment=mine)
    )

    assert mlflow.client.get_experiment(made).tags["study_id"] == STUDY_ID
    assert len(mlflow.client.search_runs([made])) == 1


def test_deleted_experiment_is_refused_with_the_way_back(mlflow: OwnMlflow) -> None:
    gone = replace(EXPERIMENT, name="gone")
    told = parcel(mlflow.destination.folder, a_trial("first"), experiment=gone)
    mlflow.publisher.publish(told)
    experiment = mlflow.client.get_experiment_by_name("gone")
    assert experiment is not None
    mlflow.client.delete_experiment(experiment.experiment_id)

    with pytest.raises(TrackingError, match="'gone' was deleted") as caught:
        mlflow.publisher.publish(told)

    assert "mlflow experiments restore" in caught.value.hint


def test_missing_file_is_refused_and_the_run_waits_for_it(mlflow: OwnMlflow, blocks: Path) -> None:
    told = parcel(mlflow.destination.folder, with_blocks("tardy"), {"blocks.parquet": blocks})
    (told.folder / "blocks.parquet").unlink()
    with pytest.raises(TrackingError, match=r"blocks\.parquet is missing"):
        mlflow.publisher.publish(told)
    left = mlflow.run("tardy").info.status
    (told.folder / "blocks.parquet").hardlink_to(blocks)

    mlflow.publisher.publish(told)

    assert left == "RUNNING"
    assert mlflow.run("tardy").info.status == "FINISHED"


def test_workspace_that_was_moved_finds_its_files_where_they_are(tmp_path: Path) -> None:
    before = own_mlflow(tmp_path / "before")
    before.publish(a_trial("old"))
    before.publish(an_engine("4" * 64), {"engine.onnx": b"an engine"})
    (tmp_path / "before").rename(tmp_path / "after")

    after = own_mlflow(tmp_path / "after")
    after.publish(a_trial("new"))

    (model,) = models(after, "4" * 64)
    assert (after.folder("old") / "outcome.json").is_file()
    assert (after.folder("new") / "outcome.json").is_file()
    assert str(tmp_path / "after") in model.artifact_location
    assert not (tmp_path / "before").exists()


def test_real_server_gets_the_same_with_its_files(tmp_path: Path) -> None:
    told: list[tuple[Message, bytes]] = [
        *((SEARCH, b""), (an_engine("e" * 64), b"an engine"), (a_trial("remote"), b""))
    ]
    with a_server(tmp_path / "server") as server:
        destination = destination_of(server.uri, Workspace(root=tmp_path / "workspace"))
        mlflow = OwnMlflow(destination, open_publisher(destination, nullcontext))
        results = [mlflow.publish(one, {"engine.onnx": file}) for one, file in told * 2]
        (model,) = models(mlflow, "e" * 64)
        run = mlflow.run("remote")

    kept = tmp_path / "server/files/1"
    assert results == ["delivered"] * 4 + ["found"] * 2
    assert (kept / f"models/{model.model_id}/artifacts/engine.onnx").is_file()
    assert (kept / f"{run.info.run_id}/artifacts/outcome.json").is_file()
    assert not (tmp_path / "workspace/mlartifacts").exists()
