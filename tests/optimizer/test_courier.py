"""The courier as a process: what it delivers, when it lives, and what ends it."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from real_spaces import write_space
from search_fakes import ListeningView
from tracking_fakes import OwnMlflow, a_free_port, a_trial, own_mlflow, put

from optimizer.search.budget import Budget
from optimizer.search.sampler_name import SamplerName
from optimizer.search.samplers import sampler_named
from optimizer.search.search import Search
from optimizer.study.opening import open_study
from optimizer.study.storage import open_storage
from optimizer.tracking.courier import Courier, Left, WaitLimits
from optimizer.tracking.destination import Destination, destination_of
from optimizer.tracking.gate import Gate
from optimizer.tracking.spool import Spool
from optimizer.tracking.telling import what_is_left
from optimizer.tracking.tracker import SpoolingTracker
from optimizer.wiring import opened_worker, place_at
from optimizer.workspace import Workspace

LIMITS = WaitLimits(silent_s=60, troubled_s=1)
OWNER = """
import sys, time
from pathlib import Path
from optimizer.tracking.courier import Courier
from optimizer.tracking.destination import destination_of
from optimizer.tracking.gate import Gate
from optimizer.workspace import Workspace
workspace = Workspace(root=Path(sys.argv[1]))
courier = Courier(
    destination_of(sys.argv[2], workspace), spool=workspace.spool, gate=Gate(workspace.spool)
)
courier.nudge()
print(courier.pid, flush=True)
time.sleep(100)
"""
IMPORTED = """
import sys
from optimizer.cli import main
sys.argv = ["trifront", "search", "fake", "--trials", "2", "--sampler", "random"]
try:
    main()
finally:
    print("mlflow" in sys.modules, "matplotlib" in sys.modules)
"""
BROKEN = """
import sys
if "optimizer.tracking.courier_process" in sys.orig_argv:
    sys.exit("this installation is broken")
"""


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> OwnMlflow:
    """Give one SQLite store to the tests that look into it, because making one takes seconds."""
    return own_mlflow(tmp_path_factory.mktemp("shared"))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(root=tmp_path / "trifront")
    workspace.create()
    return workspace


@pytest.fixture
def down(workspace: Workspace) -> Destination:
    """Give a server that is down."""
    destination = destination_of(f"http://me:hunter2@127.0.0.1:{a_free_port()}", workspace)
    destination.create()
    return destination


@pytest.fixture
def courier(workspace: Workspace, down: Destination) -> Iterator[Courier]:
    with Courier(down, spool=workspace.spool, gate=Gate(workspace.spool)) as courier:
        yield courier


def wait_until(is_so: Callable[[], object]) -> None:
    """Wait; the test's time limit ends it."""
    while not is_so():
        time.sleep(0.02)


def process_of(courier: Courier) -> psutil.Process:
    assert courier.pid is not None
    return psutil.Process(courier.pid)


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def waited(courier: Courier, names: tuple[str, ...]) -> Left:
    return courier.wait(names, limits=LIMITS, on_progress=lambda *_: None)


def test_courier_delivers_what_waits_and_ends_when_it_is_no_longer_needed(
    mlflow: OwnMlflow,
) -> None:
    spool, names = Spool(mlflow.destination.folder), trials(mlflow, "plain", 3)

    with courier_of(mlflow) as courier:
        courier.nudge()
        process = process_of(courier)
        left = waited(courier, names)

    assert (left.waiting, left.problem) == ((), "")
    assert spool.waiting() == ()
    assert_each_is_one_run(mlflow, "plain", 3)
    assert is_gone(process)


def test_killed_courier_is_started_again_and_tells_nothing_twice(mlflow: OwnMlflow) -> None:
    spool, names = Spool(mlflow.destination.folder), trials(mlflow, "killed", 6)

    with courier_of(mlflow) as courier:
        courier.nudge()
        wait_until(lambda: len(spool.waiting()) < 4)
        process_of(courier).kill()
        left = waited(courier, names)

    assert left.waiting == ()
    assert_each_is_one_run(mlflow, "killed", 6)


def test_second_courier_of_a_destination_takes_over_when_the_first_is_gone(
    mlflow: OwnMlflow,
) -> None:
    names = trials(mlflow, "first", 1)
    with courier_of(mlflow) as second:
        with courier_of(mlflow) as first:
            waited(first, names)
            wait_until(lambda: nudged(second))
        names = trials(mlflow, "second", 1)
        left = waited(second, names)

    assert left.waiting == ()
    assert_each_is_one_run(mlflow, "first", 1)
    assert_each_is_one_run(mlflow, "second", 1)


def nudged(courier: Courier) -> bool:
    """Nudge; tell whether it runs, which it does not where another courier works just then."""
    courier.nudge()
    return courier.pid is not None


def trials(mlflow: OwnMlflow, name: str, count: int) -> tuple[str, ...]:
    """Spool so many trials."""
    spool = Spool(mlflow.destination.folder)
    return tuple(put(spool, a_trial(f"{name}-{number}")) for number in range(count))


def courier_of(mlflow: OwnMlflow) -> Courier:
    root = mlflow.destination.folder.parent
    return Courier(mlflow.destination, spool=root, gate=Gate(root))


def assert_each_is_one_run(mlflow: OwnMlflow, name: str, count: int) -> None:
    for number in range(count):
        run = mlflow.run(f"{name}-{number}")
        history = mlflow.client.get_metric_history(run.info.run_id, "latency_p50_ms")
        assert (run.info.status, len(history)) == ("FINISHED", 1)


def test_server_that_is_down_is_told_of_and_the_wait_is_bounded(
    courier: Courier, down: Destination
) -> None:
    name = put(Spool(down.folder), a_trial("u"))
    courier.nudge()

    left = waited(courier, (name,))

    assert left.waiting == (name,)
    assert "Connection refused" in left.status.trouble
    told = what_is_left(left, courier.destination.name)
    assert told.endswith("Connection refused; 1 records wait on the disk")


def test_password_is_in_no_file_no_argument_and_no_message(
    courier: Courier, workspace: Workspace, down: Destination
) -> None:
    name = put(Spool(down.folder), a_trial("u"))
    courier.nudge()
    command = " ".join(process_of(courier).cmdline())

    told = what_is_left(waited(courier, (name,)), courier.destination.name)

    written = [path.read_bytes() for path in workspace.root.rglob("*") if path.is_file()]
    assert "hunter2" not in command + told
    assert not any(b"hunter2" in content for content in written)


def test_courier_is_not_started_while_anybody_measures(
    courier: Courier, workspace: Workspace
) -> None:
    measuring = Gate(workspace.spool)
    measuring.shut()

    courier.nudge()
    during = courier.pid
    measuring.open()
    courier.nudge()

    assert during is None
    assert courier.pid is not None


@pytest.mark.quiet
def test_courier_that_is_born_counts_as_working_at_once(
    courier: Courier, workspace: Workspace
) -> None:
    """Its interpreter starts, and MLflow is imported: seconds of work beside a measurement."""
    courier.nudge()
    process = process_of(courier)

    gate = Gate(workspace.spool, patience_s=0)
    gate.shut()
    status = process.status()
    spent_s = sum(process.cpu_times()[:2])
    time.sleep(0.3)
    later_s = sum(process.cpu_times()[:2])
    gate.open()

    assert status == psutil.STATUS_STOPPED
    assert later_s == spent_s


@pytest.mark.parametrize("stopped", [False, True])
def test_courier_dies_with_its_owner(
    workspace: Workspace, down: Destination, *, stopped: bool
) -> None:
    command = [sys.executable, "-c", OWNER, str(workspace.root), down.uri]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    process = psutil.Process(int(owner.stdout.readline()))
    wait_until((workspace.spool / "gate").read_text)  # it has signed, so it is bound
    if stopped:
        process.suspend()

    owner.send_signal(signal.SIGKILL)
    owner.communicate()

    wait_until(lambda: is_gone(process))


def test_courier_that_dies_each_time_is_given_up_and_its_last_words_are_told(
    courier: Courier, down: Destination, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(BROKEN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    name = put(Spool(down.folder), a_trial("u"))

    left = waited(courier, (name,))

    assert left.waiting == (name,)
    assert left.problem == "the courier died 3 times: SystemExit: this installation is broken"


def test_search_imports_no_mlflow_and_writes_no_database_of_its_own(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", IMPORTED], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "False True"  # the picture of the front, at the end
    assert [path.name for path in tmp_path.iterdir()] == ["trifront"]


@dataclass
class WatchingView(ListeningView):
    """A view that reads the courier's processor time where a measurement begins and ends."""

    courier: Courier | None = None
    spent_ns: list[tuple[str, int]] = field(default_factory=list)

    def phase(self, name: str) -> None:
        """Read it; the gate is shut before ``measure`` and opened after ``score``."""
        if self.courier is not None and self.courier.pid is not None:
            tasks = Path(f"/proc/{self.courier.pid}/task").glob("*/schedstat")
            self.spent_ns.append((name, sum(int(one.read_text().split()[0]) for one in tasks)))


@pytest.mark.quiet
def test_courier_uses_no_processor_while_a_real_engine_is_measured(tmp_path: Path) -> None:
    """Hundreds of records wait, so that it would work all the time if it were let."""
    space = write_space(tmp_path)
    place = place_at(tmp_path / "trifront", None)
    gate, root = Gate(place.workspace.spool), place.workspace.spool
    own = destination_of(None, place.workspace)
    own.create()
    for number in range(300):
        put(Spool(own.folder), a_trial(f"u-{number}"))

    with opened_worker(space, place) as worker, Courier(own, spool=root, gate=gate) as courier:
        facts = worker.describe()
        view = WatchingView(courier=courier)
        study = open_study(
            open_storage(place.url, place.workspace), place.url, "s", space=space, facts=facts
        )
        study.study.sampler, _ = sampler_named(
            SamplerName.RANDOM, study.encoding, seed=0, trials=8, repeats=False
        )
        tracker = SpoolingTracker(
            study, own, workspace=place.workspace, courier=courier, note=print
        )
        Search(
            study,
            runner=worker,
            workspace=place.workspace,
            tracker=tracker,
            quiet=gate,
            view=view,
        ).run(Budget(trials=8))

    begun = [spent for name, spent in view.spent_ns if name == "measure"]
    ended = [spent for name, spent in view.spent_ns if name == "memory"]
    assert len(begun) == 8
    # a delivery takes 10 ms and more, the way back from letting the gate go microseconds
    spent_ns = [after - before for before, after in zip(begun, ended, strict=True)]
    assert max(spent_ns) < 1_000_000
    assert begun[-1] > begun[0]
