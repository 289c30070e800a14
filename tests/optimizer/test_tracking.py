import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from optimizer.errors import TrackingError
from optimizer.study.records import TrialRecord
from optimizer.tracking.run_content import content_of_record
from optimizer.tracking.tracker import MlflowTracker, open_tracker
from search_spaces.deployment import Deployment, Precision
from trials.measurement import Costs, EngineRecord, Estimate, Speed, exact
from trials.outcome import Completed, Environment, Failed, Infeasible, Outcome

if TYPE_CHECKING:
    from mlflow.entities import Run

ROOT = Path(__file__).parents[2]
DIGESTS = {
    f"data:{split}": sha256(split.encode()).hexdigest()
    for split in ("calibration", "search", "report")
}
DEPLOYMENT = Deployment(
    variant="small",
    precision=Precision.INT8,
    batch_size=4,
    concurrency=2,
    options=(("threads", 1),),
)
ENVIRONMENT = Environment(facts=(("cpu", "a fast one"), ("host", "h1")))


def an_estimate(value: float) -> Estimate:
    return Estimate(value=value, low=value * 0.9, high=value * 1.1)


def a_measurement(engine: str = "e" * 64) -> Completed:
    latency = an_estimate(0.002)
    return Completed(
        deployment=DEPLOYMENT,
        engine=EngineRecord(
            variant_digest="v" * 64,
            model_digest="m" * 64,
            engine_digest=engine,
            engine_key="k" * 64,
            size_bytes=1_000_000,
        ),
        speed=Speed(
            latency_mean_s=latency,
            latency_p50_s=latency,
            latency_p90_s=latency,
            latency_p99_s=replace(latency, high=None),
            latency_p999_s=exact(float("inf")),
            throughput_sps=an_estimate(1000.0),
            requests=1000,
            blocks=10,
            target_met=True,
        ),
        quality=None,
        peak_memory_bytes=2_000_000,
        costs=Costs(
            convert_s=1.5, build_s=0.5, score_s=0.0, load_s=0.01, cold_call_s=0.02, measure_s=1.0
        ),
        environment=ENVIRONMENT,
        flags=("contended", "target_not_met"),
    )


def a_failure() -> Failed:
    return Failed(
        deployment=DEPLOYMENT, kind="crash", reason="killed by SIGSEGV", environment=ENVIRONMENT
    )


def a_record(uid: str, outcome: Outcome | None = None) -> TrialRecord:
    return TrialRecord(
        uid=uid,
        number=7,
        study="demo",
        outcome=outcome or a_measurement(),
        started_s=1_700_000_000.5,
        finished_s=1_700_000_003.25,
    )


def a_tracker(workspace: Path, uri: str | None = None, study: str = "demo") -> MlflowTracker:
    return open_tracker(
        uri,
        workspace=workspace,
        study=study,
        backend="fake",
        space_text="version: 1\n",
        digests=DIGESTS,
    )


def run_of(tracker: MlflowTracker, run_id: str) -> "Run":
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracker.uri).get_run(run_id)


def artifacts_of(tracker: MlflowTracker, run_id: str) -> Path:
    return Path(run_of(tracker, run_id).info.artifact_uri.removeprefix("file://"))


def runs_of(tracker: MlflowTracker, **tags: str) -> list[Any]:
    from mlflow import MlflowClient

    query = " and ".join(f"tags.{name} = '{value}'" for name, value in tags.items())
    client = MlflowClient(tracking_uri=tracker.uri)
    return list(client.search_runs([tracker.experiment_id], query))


def a_free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


@contextmanager
def a_server(folder: Path) -> Iterator[str]:
    """Run MLflow's own server, as small as it gets, and give its address."""
    folder.mkdir()
    port = a_free_port()
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    stores = ["--backend-store-uri", f"sqlite:///{folder}/db", "--artifacts-destination", "files"]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *options, *stores],
        cwd=folder,
        env=os.environ
        | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # it has children, which end with the group
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_for(url: str) -> None:
    """Wait until an address answers; the test's time limit ends the waiting."""
    while True:
        try:
            with urlopen(url):  # noqa: S310 - our own server's address
                return
        except (URLError, ConnectionError):
            time.sleep(0.1)


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> MlflowTracker:
    """Give one SQLite store to all tests here, because making one takes seconds."""
    return a_tracker(tmp_path_factory.mktemp("workspace"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "payload.onnx"
    path.write_bytes(b"an engine")
    return path


def test_metrics_are_in_peoples_units_with_their_interval_ends(tracker: MlflowTracker) -> None:
    run_id = tracker.record(a_record("units"), blocks=None, model=None)

    metrics = run_of(tracker, run_id).data.metrics
    assert metrics["latency_p50_ms"] == pytest.approx(2.0)
    assert metrics["latency_p50_ms.low"] == pytest.approx(1.8)
    assert metrics["latency_p50_ms.high"] == pytest.approx(2.2)
    assert metrics["cost.convert_s"] == pytest.approx(1.5)


def test_unbounded_counted_and_infinite_numbers_leave_no_made_up_metric() -> None:
    content = content_of_record(a_record("x"), backend="fake", digests=DIGESTS, blocks=None)

    names = {name for name, _ in content.metrics}
    assert "latency_p99_ms.low" in names
    assert "latency_p99_ms.high" not in names
    assert "peak_memory_mb" in names
    assert "peak_memory_mb.low" not in names
    assert "latency_p999_ms" not in names


def test_params_are_the_axes_and_times_are_the_trials_own(tracker: MlflowTracker) -> None:
    run_id = tracker.record(a_record("axes"), blocks=None, model=None)

    run = run_of(tracker, run_id)
    assert run.data.params == {axis: str(value) for axis, value in DEPLOYMENT.axes()}
    assert run.info.start_time == 1_700_000_000_500
    assert run.info.end_time == 1_700_000_003_250


def test_tags_say_what_people_filter_by(tracker: MlflowTracker) -> None:
    run_id = tracker.record(a_record("tags"), blocks=None, model=None)

    tags = run_of(tracker, run_id).data.tags
    assert tags["kind"] == "trial"
    assert (tags["variant"], tags["precision"], tags["backend"]) == ("small", "int8", "fake")
    assert (tags["state"], tags["flags"]) == ("completed", "contended,target_not_met")
    assert (tags["host"], tags["trial_number"]) == ("h1", "7")
    assert tags["digest.search"] == DIGESTS["data:search"]


def test_failed_trial_is_a_failed_run_and_an_infeasible_one_is_finished(
    tracker: MlflowTracker,
) -> None:
    infeasible = Infeasible(
        deployment=DEPLOYMENT, kind="memory", reason="does not fit", environment=ENVIRONMENT
    )

    failed = run_of(tracker, tracker.record(a_record("f", a_failure()), blocks=None, model=None))
    finished = run_of(tracker, tracker.record(a_record("i", infeasible), blocks=None, model=None))

    assert failed.info.status == "FAILED"
    assert failed.data.tags["reason"] == "killed by SIGSEGV"
    assert finished.info.status == "FINISHED"
    assert finished.data.tags["reason_kind"] == "memory"
    assert finished.data.metrics == {}


def test_data_sets_carry_their_whole_digest_and_no_trial_claims_the_report_split(
    tracker: MlflowTracker,
) -> None:
    run_id = tracker.record(a_record("data"), blocks=None, model=None)

    inputs = run_of(tracker, run_id).inputs
    assert inputs is not None
    digests = {
        entry.dataset.name: {tag.key: tag.value for tag in entry.tags}["sha256"]
        for entry in inputs.dataset_inputs
    }
    assert digests == {split: DIGESTS[f"data:{split}"] for split in ("calibration", "search")}


def test_only_a_calibrated_precision_claims_the_calibration_split() -> None:
    plain = replace(a_measurement(), deployment=replace(DEPLOYMENT, precision=Precision.FP32))

    content = content_of_record(a_record("x", plain), backend="fake", digests=DIGESTS, blocks=None)

    assert [split for split, _ in content.datasets] == ["search"]


def test_environment_outcome_and_raw_blocks_are_artifacts(
    tracker: MlflowTracker, tmp_path: Path
) -> None:
    blocks = tmp_path / "whatever.npz"
    blocks.write_bytes(b"raw")

    run_id = tracker.record(a_record("files"), blocks=blocks, model=None)

    folder = artifacts_of(tracker, run_id)
    assert json.loads((folder / "environment.json").read_text())["cpu"] == "a fast one"
    assert json.loads((folder / "outcome.json").read_text())["state"] == "completed"
    assert (folder / "blocks.npz").read_bytes() == b"raw"
    assert not (folder / "blocks.npz").is_symlink()


def test_engine_file_is_kept_with_the_first_run_that_measured_it(
    tracker: MlflowTracker, model: Path
) -> None:
    outcome = a_measurement(engine="once" * 16)

    first = tracker.record(a_record("once-1", outcome), blocks=None, model=model)
    second = tracker.record(a_record("once-2", outcome), blocks=None, model=model)

    assert (artifacts_of(tracker, first) / "model/engine.onnx").read_bytes() == b"an engine"
    assert not (artifacts_of(tracker, second) / "model").exists()
    assert run_of(tracker, second).data.tags["engine_run"] == first


def test_another_process_finds_the_run_that_keeps_the_engine(
    tracker: MlflowTracker, model: Path
) -> None:
    outcome = a_measurement(engine="twin" * 16)
    first = tracker.record(a_record("twin-1", outcome), blocks=None, model=model)
    other = a_tracker(Path(tracker.uri.removeprefix("sqlite:///")).parent)

    second = other.record(a_record("twin-2", outcome), blocks=None, model=model)

    assert run_of(tracker, second).data.tags["engine_run"] == first


def test_recording_twice_gives_one_run(tracker: MlflowTracker) -> None:
    first = tracker.record(a_record("twice"), blocks=None, model=None)
    second = tracker.record(a_record("twice"), blocks=None, model=None)

    assert first == second
    assert len(runs_of(tracker, trial_uid="twice")) == 1


def test_run_that_a_kill_left_running_is_finished_by_the_next_attempt(
    tracker: MlflowTracker, tmp_path: Path
) -> None:
    """A missing file stops the first attempt half-way, as a kill would."""
    blocks = tmp_path / "late.npz"
    with pytest.raises(TrackingError, match=r"late\.npz"):
        tracker.record(a_record("half"), blocks=blocks, model=None)
    left = runs_of(tracker, trial_uid="half")[0].info.status
    blocks.write_bytes(b"raw")

    run_id = tracker.record(a_record("half"), blocks=blocks, model=None)

    assert left == "RUNNING"
    assert run_of(tracker, run_id).info.status == "FINISHED"
    assert len(runs_of(tracker, trial_uid="half")) == 1


def test_missing_names_trials_without_a_finished_run(
    tracker: MlflowTracker, tmp_path: Path
) -> None:
    tracker.record(a_record("there"), blocks=None, model=None)
    with pytest.raises(TrackingError):
        tracker.record(a_record("torn"), blocks=tmp_path / "none.npz", model=None)

    assert tracker.missing(["there", "torn", "never"]) == {"torn", "never"}


def test_run_that_somebody_deleted_is_not_written_again(tracker: MlflowTracker) -> None:
    from mlflow import MlflowClient

    run_id = tracker.record(a_record("unwanted"), blocks=None, model=None)
    MlflowClient(tracking_uri=tracker.uri).delete_run(run_id)

    assert tracker.missing(["unwanted"]) == set()
    assert tracker.record(a_record("unwanted"), blocks=None, model=None) == run_id


def test_search_itself_is_one_run_with_the_space_file_however_often_it_is_opened(
    tracker: MlflowTracker,
) -> None:
    a_tracker(Path(tracker.uri.removeprefix("sqlite:///")).parent)

    runs = runs_of(tracker, kind="search")

    assert len(runs) == 1
    folder = artifacts_of(tracker, runs[0].info.run_id)
    assert (folder / "space.yaml").read_text() == "version: 1\n"
    assert runs[0].data.tags["digest.data.report"] == DIGESTS["data:report"]


def test_deleted_experiment_is_refused_with_the_way_back(tracker: MlflowTracker) -> None:
    from mlflow import MlflowClient

    workspace = Path(tracker.uri.removeprefix("sqlite:///")).parent
    gone = a_tracker(workspace, study="gone")
    MlflowClient(tracking_uri=tracker.uri).delete_experiment(gone.experiment_id)

    with pytest.raises(TrackingError, match="'gone' was deleted") as caught:
        a_tracker(workspace, study="gone")

    assert "mlflow experiments restore" in caught.value.hint


@pytest.mark.parametrize("uri", ["carrier-pigeon://coop", "sqlite:////proc/none/mlflow.db"])
def test_uri_that_cannot_work_is_one_clear_line(uri: str, tmp_path: Path) -> None:
    with pytest.raises(TrackingError) as caught:
        a_tracker(tmp_path, uri)

    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_password_in_the_uri_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(TrackingError) as caught:
        a_tracker(tmp_path, "http://me:hunter2@127.0.0.1:9/")

    assert "hunter2" not in str(caught.value)


def test_server_that_is_down_is_given_up_at_once(tmp_path: Path) -> None:
    """MLflow's own defaults try for four minutes, which the test's time limit would not allow."""
    port = a_free_port()

    with pytest.raises(TrackingError, match=str(port)) as caught:
        a_tracker(tmp_path, f"http://127.0.0.1:{port}")

    assert "see that the server runs" in caught.value.hint


def test_processes_that_open_a_fresh_store_at_once_both_do_and_say_nothing(tmp_path: Path) -> None:
    """Unlocked, most of them die; unsilenced, MLflow prints the making of its tables."""
    program = (
        "from pathlib import Path; from optimizer.tracking.tracker import open_tracker;"
        f"open_tracker(None, workspace=Path({str(tmp_path)!r}), study='s', backend='fake',"
        "space_text='', digests={})"
    )

    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", program],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for _ in range(2)
    ]
    said = [process.communicate()[0] for process in processes]

    assert said == [b"", b""]
    assert [process.returncode for process in processes] == [0, 0]


def test_real_server_gets_the_same_run_with_its_files(tmp_path: Path, model: Path) -> None:
    with a_server(tmp_path / "server") as uri:
        tracker = a_tracker(tmp_path / "workspace", uri)
        run_id = tracker.record(a_record("remote"), blocks=None, model=model)

        assert tracker.missing(["remote", "other"]) == {"other"}
        assert run_of(tracker, run_id).data.tags["engine_run"] == run_id
        assert (tmp_path / f"server/files/1/{run_id}/artifacts/model/engine.onnx").is_file()
        assert not (tmp_path / "workspace/mlartifacts").exists()
