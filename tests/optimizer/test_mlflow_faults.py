"""Faults of MLflow, tried with its own server: nothing is missing and nothing is there twice.

The searches, servers and couriers are real; a proxy makes a server slow, strict or full.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mlflow_proxy import Proxy, a_proxy
from optuna.trial import TrialState
from tracking_fakes import Server, a_server, own_mlflow
from untraced import untraced

from optimizer.tracking.spool import Spool
from optimizer.wiring import place_at, study_at

if TYPE_CHECKING:
    from mlflow.entities import Run

pytestmark = [pytest.mark.mlflow, pytest.mark.timeout(300)]

TESTS = Path(__file__).parents[1]
PROGRAM = str(Path(sys.executable).with_name("trifront"))
TRIALS = 6


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run one server for all tests here, because starting one takes seconds."""
    with a_server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with a_proxy(server.port) as proxy:
        yield proxy


def begun(folder: Path, study: str, uri: str, *, trials: int = TRIALS) -> subprocess.Popen[str]:
    """Begin a search of deployments that all run; a pipe takes its lines as they are printed."""
    options = ("--trials", str(trials), "--sampler", "grid", "--study", study, "--mlflow", uri)
    return subprocess.Popen(
        [PROGRAM, "search", "fake", *options],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(search: subprocess.Popen[str]) -> str:
    """Wait for the end of a search; return what it said."""
    _, said = search.communicate()
    assert search.returncode == 0, said
    assert "Traceback" not in said
    return said


def sync(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "sync", *options],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def wait_until(is_so: Callable[[], object]) -> None:
    """Wait; the test's time limit ends it."""
    while not is_so():
        time.sleep(0.05)


def ended_trials(folder: Path) -> int:
    study = study_at(place_at(folder / "trifront", None), None)
    return len(study.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def runs_of(server: Server, study: str) -> "list[Run]":
    client = server.look_in()
    found = client.get_experiment_by_name(study)
    return [] if found is None else list(client.search_runs([found.experiment_id]))


def assert_whole(
    server: Server, folder: Path, study: str, *, trials: int = TRIALS, lost: int = 0
) -> None:
    """See that each trial is one finished run with its files and one point a metric.

    A trial that was running when its search was killed is a failed run besides; ``lost`` may be.
    """
    client, told = server.look_in(), runs_of(server, study)
    runs = [run for run in told if run.data.tags.get("reason_kind") != "interrupted"]
    assert len(told) - len(runs) <= lost
    counts = Counter(run.data.tags["trial_uid"] for run in runs)
    assert sum(len(Spool(one).waiting()) for one in (folder / "trifront/spool").glob("*/")) == 0
    assert (len(counts), set(counts.values())) == (1 + trials, {1})
    for run in runs:
        kept = server.folder / "files" / run.info.experiment_id / run.info.run_id / "artifacts"
        names = {path.name for path in kept.iterdir()}
        assert run.info.status == "FINISHED"
        assert names >= ({"outcome.json"} if run.data.tags["kind"] == "trial" else {"front.png"})
        for metric in ("latency_p99_ms", "throughput_sps"):
            assert len(client.get_metric_history(run.info.run_id, metric)) <= 1


def test_server_that_is_killed_in_the_middle_of_a_search_and_started_again(
    tmp_path: Path, server: Server
) -> None:
    search = begun(tmp_path, "restarted", server.uri, trials=10)
    wait_until(lambda: len(runs_of(server, "restarted")) >= 3)
    server.kill()
    time.sleep(2)  # trials end, and nobody hears of them
    server.start()

    said = finished(search)
    if "`trifront sync` delivers them" in said:  # it took longer to start than the search to end
        sync(tmp_path, "--mlflow", server.uri)

    assert_whole(server, tmp_path, "restarted", trials=10)


def test_server_that_stays_away_costs_no_trial_and_hears_all_of_it_later(
    tmp_path: Path, server: Server
) -> None:
    server.kill()
    said = finished(begun(tmp_path, "away", server.uri))
    server.start()

    synced = sync(tmp_path)

    assert "Connection refused" in said
    assert "records wait on the disk; `trifront sync` delivers them" in said
    assert synced.returncode == 0, synced.stderr
    assert_whole(server, tmp_path, "away")


def test_server_that_is_slow_hears_all_of_it(tmp_path: Path, server: Server, proxy: Proxy) -> None:
    proxy.delay_s = 0.2

    said = finished(begun(tmp_path, "slow", proxy.uri, trials=2))

    assert "records left" in said
    assert proxy.seen > 30
    assert_whole(server, tmp_path, "slow", trials=2)


def test_server_that_hangs_is_no_beginning_of_a_wait_without_end(
    tmp_path: Path, server: Server, proxy: Proxy
) -> None:
    """Each answer takes longer than the search waits for one."""
    proxy.delay_s = 100
    search = begun(tmp_path, "hanging", proxy.uri, trials=2)
    wait_until(lambda: proxy.seen)
    assert search.stderr is not None
    lines = iter(search.stderr.readline, "")
    assert any("records left" in line for line in lines)

    search.send_signal(signal.SIGINT)  # somebody who does not want to wait
    said = search.communicate()[1]
    proxy.delay_s = 0
    synced = sync(tmp_path)

    assert search.returncode == 0
    assert "not all was told yet" in said
    assert synced.returncode == 0, synced.stderr
    assert_whole(server, tmp_path, "hanging", trials=2)


def test_server_that_refuses_a_password_hears_all_of_it_with_the_right_one(
    tmp_path: Path, server: Server, proxy: Proxy
) -> None:
    proxy.password = "me:right"
    wrong = f"http://me:wrong@127.0.0.1:{proxy.port}"
    said = finished(begun(tmp_path, "strict", wrong, trials=2))
    refused = sync(tmp_path)

    synced = sync(tmp_path, TRIFRONT_MLFLOW=f"http://me:right@127.0.0.1:{proxy.port}")

    written = [one.read_bytes() for one in (tmp_path / "trifront").rglob("*") if one.is_file()]
    assert "401" in said
    assert "MLFLOW_TRACKING_PASSWORD" in refused.stderr
    assert (refused.returncode, synced.returncode) == (1, 0)
    assert not any(b"me:wrong" in one or b"me:right" in one for one in written)
    assert_whole(server, tmp_path, "strict", trials=2)


def test_server_whose_disk_is_full_hears_all_of_it_when_there_is_space_again(
    tmp_path: Path, server: Server, proxy: Proxy
) -> None:
    proxy.full = True
    said = finished(begun(tmp_path, "full", proxy.uri, trials=2))
    still = sync(tmp_path)
    proxy.full = False

    synced = sync(tmp_path)

    assert "500" in said
    assert (still.returncode, synced.returncode) == (1, 0)
    assert_whole(server, tmp_path, "full", trials=2)


def test_two_searches_of_one_study_at_once_tell_each_trial_once(
    tmp_path: Path, server: Server
) -> None:
    first = begun(tmp_path, "shared", server.uri, trials=12)
    second = begun(tmp_path, "shared", server.uri, trials=12)

    finished(first)
    finished(second)
    sync(tmp_path)

    assert_whole(server, tmp_path, "shared", trials=12)


def test_search_that_is_killed_is_told_so_and_goes_on(tmp_path: Path, server: Server) -> None:
    search = begun(tmp_path, "killed", server.uri, trials=300)  # ends long after MLflow shows two
    wait_until(lambda: len(runs_of(server, "killed")) >= 2)
    search.kill()
    search.communicate()
    sync(tmp_path)
    states = {run.data.tags["kind"]: run.info.status for run in runs_of(server, "killed")}
    all_of_it = ended_trials(tmp_path) + 2

    finished(begun(tmp_path, "killed", server.uri, trials=all_of_it))

    assert states["search"] == "KILLED"
    assert_whole(server, tmp_path, "killed", trials=all_of_it, lost=1)


STRIDE = 5  # 1 kills after every step, which takes minutes
# delivers a record of every kind, killed after one of its steps, a later one each time, and then
# undisturbed
DYING = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tracking_fakes import a_measurement, a_trial, an_engine, put, some_blocks
from optimizer.tracking.client import open_publisher
from optimizer.tracking.delivery import Delivery
from optimizer.tracking.destination import destination_of
from optimizer.tracking.ledger import Ledger
from optimizer.tracking.messages import *
from optimizer.tracking.spool import Spool
from optimizer.wiring import place_at, study_at
from optimizer.workspace import Workspace
import mlflow, matplotlib.figure, matplotlib.backends.backend_agg  # once, before all the children

workspace = Workspace(root=Path(sys.argv[1]))
destination = destination_of(None, workspace)
spool = Spool(destination.folder)

def spooled(number):
    uid, digest = f"u-{number}", f"{number:064x}"
    blocks = some_blocks(workspace.blocks(uid))
    told = a_trial(uid, a_measurement(digest), files=("b",), blocks="b",
                   point=Point(search=f"s-{number}", metric="hv", value=1.0, step=1, time_ms=1))
    tags = (("kind", "search"), ("trial_uid", f"s-{number}"))
    put(spool, SearchBegan(uid=f"s-{number}", name="search", started_ms=1, tags=tags))
    put(spool, an_engine(digest), {"engine.onnx": b"an engine"})
    put(spool, told, {"b": blocks})
    put(spool, VerdictGiven(uid=uid, metrics=(("report.accuracy", 0.9),)))
    put(spool, FrontFound(uid=f"f-{number}", members=(uid,)))
    certified = CertifiedTrial(
        uid=uid, tags=(("certified", "true"),), metrics=(("certified.probability", 0.97),)
    )
    put(spool, CertificateGiven(
        uid=f"c-{number}", search=f"s-{number}", words="certified", at_ms=9, trials=(certified,)
    ))
    put(spool, SearchEnded(uid=f"s-{number}", finished_ms=2, status="FINISHED"))

def delivered(last_step):
    child = os.fork()
    if child == 0:
        steps = 0
        @contextmanager
        def step():
            nonlocal steps
            yield
            steps += 1
            if steps == last_step:
                os.kill(os.getpid(), signal.SIGKILL)
        delivery = Delivery(spool, Ledger(destination.folder),
                            lambda: open_publisher(destination, step), step=step)
        while delivery.attempt() is not None:
            pass
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

number = 0
while True:
    spooled(number)
    code = delivered(1 + number * int(sys.argv[3]))
    if code == 0:
        break
    assert delivered(0) == 0 and spool.waiting() == ()
    number += 1
print(number)
"""


def test_courier_that_is_killed_after_any_of_its_steps_is_mended_by_the_next(
    tmp_path: Path,
) -> None:
    """Not one run, model, metric or file more or less, wherever the kill fell."""
    mlflow = own_mlflow(tmp_path / "trifront")
    ran = subprocess.run(
        [sys.executable, "-c", DYING, str(tmp_path / "trifront"), str(TESTS), str(STRIDE)],
        capture_output=True,
        text=True,
        check=False,
        env=untraced() | {"MLFLOW_DISABLE_TELEMETRY": "true"},
    )
    assert ran.returncode == 0, ran.stderr

    kills = int(ran.stdout)
    assert kills > 40 // STRIDE
    for number in range(kills + 1):
        run, search = mlflow.run(f"u-{number}"), mlflow.run(f"s-{number}")
        assert (run.info.status, search.info.status) == ("FINISHED", "FINISHED")
        assert run.data.metrics["report.accuracy"] == 0.9
        assert (run.data.tags["certified"], search.data.tags["certificate"]) == (
            "true" if number == kills else "outdated",
            "certified",
        )
        assert run.outputs is not None
        assert len(run.outputs.model_outputs) == 1
        files = {path.name for path in mlflow.folder(f"u-{number}").iterdir()}
        assert files == {"b", "environment.json", "latencies.png", "outcome.json"}
        points = {"latency_p50_ms": run, "certified.probability": run, "hv": search}
        for metric, told in points.items():
            assert len(mlflow.client.get_metric_history(told.info.run_id, metric)) == 1
    models = mlflow.client.search_logged_models([mlflow.experiment_id], max_results=200)
    assert len(list(models)) == kills + 1
