"""Signals to a real search: its own process, its own group, a real worker."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from optuna.trial import FrozenTrial, TrialState
from real_spaces import write_data, write_model

from optimizer.wiring import place_at, study_at
from trials.outcome import Failed
from trials.store.locks import locked

SLOW = """
version: 1
name: slow
backend: ort
task:
  kind: classification
  data: {path: data.npz, split: {calibration: 0.2, search: 0.4, report: 0.4}}
variants: [{name: small, onnx: small.onnx}]
axes: {batch_size: [1, 2, 4, 8], concurrency: [1, 2]}
measure: {target_p50: 0.0001, target_p99: 0.0001, target_throughput: 0.0001, max_s: 1.5}
"""
HANGING = """
version: 1
name: hanging
backend: fake
task: {kind: classification}
variants: [{name: stuck, fake: {work_ms: 1, accuracy: 0.9, size_mb: 1, fault: hang}}]
axes: {batch_size: [1, 2, 4, 8]}
measure: {deadline_s: 100}
"""
PLAIN = HANGING.replace(", fault: hang", "").replace("hanging", "plain")

Start = Callable[..., subprocess.Popen[str]]
Send = Callable[[subprocess.Popen[str], signal.Signals], None]


def to_process(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Signal the search alone, as ``kill`` does."""
    process.send_signal(number)


def to_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Signal the search and all of its group, as a terminal's Ctrl-C does."""
    os.killpg(process.pid, number)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a search of a space in a group of its own; kill it where the test left it."""
    started = []

    def starting(space: str, *options: str) -> subprocess.Popen[str]:
        (tmp_path / "space.yaml").write_text(space, encoding="utf-8")
        program = str(Path(sys.executable).with_name("trifront"))
        process = subprocess.Popen(
            [program, "search", "space.yaml", *options],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield starting
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def slow(tmp_path: Path) -> str:
    """Give a space whose trials take some seconds of real load each."""
    write_model(tmp_path / "small.onnx")
    write_data(tmp_path / "data.npz")
    return SLOW


def wait_until(is_so: Callable[[], object]) -> None:
    """Wait; the test's time limit ends it."""
    while not is_so():
        time.sleep(0.02)


def running_trials(folder: Path) -> int:
    """Count the trials that have all that they need to be run."""
    try:
        with sqlite3.connect(f"file:{folder}/trifront/studies.db?mode=ro", uri=True) as database:
            query = (
                "SELECT count(*) FROM trials JOIN trial_user_attributes USING (trial_id) "
                "WHERE state = 'RUNNING' AND key = 'owner'"
            )
            return int(database.execute(query).fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # not made yet


def trials_of(folder: Path) -> list[FrozenTrial]:
    return study_at(place_at(folder / "trifront", None), None).study.get_trials()


def states_of(folder: Path) -> list[TrialState]:
    return [trial.state for trial in trials_of(folder)]


def interrupted_while_running(
    process: subprocess.Popen[str], folder: Path, *signals: tuple[Send, signal.Signals]
) -> tuple[int, str]:
    """Send signals a moment apart while a trial runs; return exit code and messages.

    Whatever the search started must be gone when it has ended.
    """
    wait_until(lambda: running_trials(folder))
    started = psutil.Process(process.pid).children(recursive=True)
    for send, number in signals:
        time.sleep(0.3)
        send(process, number)
    _, said = process.communicate()
    _, alive = psutil.wait_procs(started, timeout=5)
    assert started
    assert not alive
    assert "Traceback" not in said
    return process.returncode, said


def test_first_ctrl_c_finishes_the_running_trial_and_shows_the_front(
    start: Start, slow: str, tmp_path: Path
) -> None:
    process = start(slow, "--trials", "5", "--mlflow", "none")

    code, said = interrupted_while_running(process, tmp_path, (to_process, signal.SIGINT))

    assert code == 0
    assert "finishing the running trial; Ctrl-C again abandons it" in said
    assert "search ended: interrupted; the same command goes on from here" in said
    assert states_of(tmp_path) == [TrialState.COMPLETE]


def test_same_command_goes_on_after_ctrl_c(start: Start, slow: str, tmp_path: Path) -> None:
    command = (slow, "--trials", "2", "--mlflow", "none")
    code, _ = interrupted_while_running(start(*command), tmp_path, (to_group, signal.SIGINT))

    again = start(*command)
    front, said = again.communicate()

    assert (code, again.returncode) == (0, 0)
    assert "all 2 trials are done" in said
    assert "small fp32" in front
    assert states_of(tmp_path) == [TrialState.COMPLETE] * 2


@pytest.mark.parametrize(
    "signals",
    [
        ((to_process, signal.SIGINT), (to_process, signal.SIGINT)),
        ((to_group, signal.SIGINT), (to_group, signal.SIGINT)),
        ((to_process, signal.SIGTERM),),
    ],
    ids=["Ctrl-C twice", "Ctrl-C twice, group", "terminated"],
)
def test_abandoned_trial_is_failed_and_waits_to_be_tried_again(
    start: Start, tmp_path: Path, signals: tuple[tuple[Send, signal.Signals], ...]
) -> None:
    process = start(HANGING, "--trials", "2", "--mlflow", "none")

    code, said = interrupted_while_running(process, tmp_path, *signals)

    (record,) = study_at(place_at(tmp_path / "trifront", None), None).records()
    assert code == 130  # there is no front to show
    assert "search ended: interrupted" in said
    assert isinstance(record.outcome, Failed)
    assert record.outcome.kind == "interrupted"
    assert states_of(tmp_path) == [TrialState.FAIL, TrialState.WAITING]


def test_abandoned_trial_is_the_first_of_the_next_search(start: Start, tmp_path: Path) -> None:
    command = (HANGING, "--trials", "2", "--mlflow", "none")
    terminate = (to_group, signal.SIGTERM)

    interrupted_while_running(start(*command), tmp_path, terminate)
    interrupted_while_running(start(*command), tmp_path, terminate)

    first, second, _ = trials_of(tmp_path)
    assert first.params == second.params


@pytest.mark.parametrize("send", [to_process, to_group])
def test_ctrl_c_while_the_space_opens_ends_at_once_and_leaves_nothing(
    start: Start, tmp_path: Path, send: Send
) -> None:
    """The space cannot open while another process holds the store's lock."""
    store = tmp_path / "trifront/store"
    store.mkdir(parents=True)

    with locked(store / "lock"):
        process = start(PLAIN)
        wait_until(lambda: psutil.Process(process.pid).children())
        (worker,) = psutil.Process(process.pid).children()
        send(process, signal.SIGINT)
        said = "".join(process.communicate())

    psutil.wait_procs([worker], timeout=5)
    assert process.returncode == 130
    assert said == ""
    assert not worker.is_running()
    assert not (tmp_path / "trifront/studies.db").exists()


def test_ctrl_c_while_mlflow_makes_its_database_costs_neither_the_trial_nor_the_record(
    start: Start, tmp_path: Path
) -> None:
    command = (PLAIN, "--trials", "1")
    process = start(*command)
    wait_until((tmp_path / "trifront/.mlflow.db.draft").exists)
    to_group(process, signal.SIGINT)
    said = "".join(process.communicate())

    again = start(*command)
    told = "".join(again.communicate())

    assert "Traceback" not in said
    assert again.returncode == 0
    assert "wait on the disk" not in told
    assert not list((tmp_path / "trifront/spool").glob("*/waiting/*"))
    assert not list((tmp_path / "trifront").glob(".mlflow.db*"))
