import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path

import psutil
import pytest
from real_spaces import point, write_model, write_space

from search_spaces.deployment import Deployment, Precision
from search_spaces.errors import SpaceError
from search_spaces.space import MeasuringPlan, Preprocessing, SearchSpace, Task, TaskKind
from trials import errors
from trials.errors import (
    DataError,
    DeadlineError,
    InputChangedError,
    ModelError,
    StoreError,
    TrialError,
    UnsupportedError,
    WorkerBugError,
    WorkerDiedError,
)
from trials.isolation.worker import Worker
from trials.machine.cgroup import oom_kills, was_oom_kill
from trials.outcome import Failed, Infeasible

SESSION = '''
import ctypes, os, signal, sys, threading, time
from search_spaces.errors import SpaceError
from trials.errors import DataError, ModelError, StoreError, UnsupportedError
from trials.outcome import Environment, Failed


class Session:
    """Does what the name of the deployment's variant says."""

    def run(self, deployment, teller):
        self.teller = teller
        teller.phase("prepare")
        teller.phase("measure")
        said = getattr(self, deployment.variant.replace("-", "_"))(deployment)
        return Failed(deployment=deployment, kind="fault", reason=str(said or os.getpid()),
                      environment=Environment(facts=()))

    def report(self, deployment):
        return getattr(self, deployment.variant.replace("-", "_"))(deployment)

    def prepare(self, deployment, teller):
        return self.run(deployment, teller)

    def describe(self):
        return {"ignores_interrupts": signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
                "adjustment": open("/proc/self/oom_score_adj").read().strip(),
                "input": os.readlink("/proc/self/fd/0"), "pid": os.getpid()}

    def well(self, deployment):
        pass

    def clock(self, deployment):
        return time.monotonic_ns()

    def noise(self, deployment):
        print("noise from Python", flush=True)
        os.write(1, b"noise from a library" * 10_000)

    def abort(self, deployment):
        print("a library said why", file=sys.stderr, flush=True)
        os.abort()

    def segfault(self, deployment):
        ctypes.string_at(0)

    def exit(self, deployment):
        os._exit(3)

    def killed(self, deployment):
        os.kill(os.getpid(), signal.SIGKILL)

    def hang(self, deployment):
        time.sleep(60)

    def orphan(self, deployment):
        """Die and leave a child that has inherited every descriptor."""
        orphan = os.fork()
        if orphan == 0:
            time.sleep(60)
        print(f"orphan {orphan}", flush=True)
        os._exit(4)

    def linger(self, deployment):
        threading.Thread(target=time.sleep, args=(60,)).start()

    def greed(self, deployment):
        self.hoard = b"x" * 300_000_000
        time.sleep(60)

    def no_memory(self, deployment):
        raise MemoryError

    def refused(self, deployment):
        raise StoreError("no space left")

    def build(self, deployment):
        for step in range(3000):
            self.teller.progress("building: kernels", step / 3000)
            time.sleep(0.01)

    def build_that_hangs(self, deployment):
        try:
            self.teller.progress("building: kernels", 0.5)
        finally:
            time.sleep(60)

    def bug(self, deployment):
        {}["missing"]

    def secret(self, deployment):
        raise StoreError(lambda: "cannot be pickled")


class Speechless(Session):
    def run(self, deployment, teller):
        return lambda: None


def open_session(space, store_root, limit_bytes, target):
    return Session()


def open_speechless(space, store_root, limit_bytes, target):
    return Speechless()


def open_model_error(space, store_root, limit_bytes, target):
    raise ModelError("resnet.onnx is truncated")


def open_data_error(space, store_root, limit_bytes, target):
    raise DataError("labels.npz holds a pickle")


def open_space_error(space, store_root, limit_bytes, target):
    raise SpaceError("unknown axis", source=space.source, key="axes.thread")


def open_unsupported(space, store_root, limit_bytes, target):
    raise UnsupportedError("no driver here")


def open_bug(space, store_root, limit_bytes, target):
    raise ZeroDivisionError("half open")


def open_without_memory(space, store_root, limit_bytes, target):
    raise MemoryError


def open_and_die(space, store_root, limit_bytes, target):
    os.kill(os.getpid(), signal.SIGTERM)


def open_and_hang(space, store_root, limit_bytes, target):
    time.sleep(60)
'''
PLAN = MeasuringPlan(deadline_s=30.0)
ORPHAN = """
import os, sys, time
from trials.isolation.child import Child

print(Child("absent:absent").pid, flush=True)
time.sleep(60)
"""


def space_with(plan: MeasuringPlan) -> SearchSpace:
    task = Task(
        kind=TaskKind.CLASSIFICATION, metric=None, data=None, preprocessing=Preprocessing()
    )
    return SearchSpace(
        name="isolation",
        source="isolation.yaml",
        backend="fake",
        task=task,
        variants=(),
        axes=(),
        rules=(),
        objectives=(),
        constraints=(),
        plan=plan,
    )


def deployment(variant: str) -> Deployment:
    return Deployment(
        variant=variant, precision=Precision.FP32, batch_size=1, concurrency=1, options=()
    )


def ignore(phase: str) -> None:
    """Listen to no phase."""


def worker_for(root: Path, *, opener: str = "open_session", plan: MeasuringPlan = PLAN) -> Worker:
    return Worker(
        space_with(plan),
        store_root=root,
        store_limit_bytes=10**9,
        opener=f"acted_session:{opener}",
    )


def pid_of(worker: Worker) -> str:
    outcome = worker.run(deployment("well"), on_phase=ignore)
    assert isinstance(outcome, Failed)
    return outcome.reason


def piped(value: Exception) -> Exception:
    ours, theirs = Pipe()
    with ours, theirs:
        theirs.send(value)
        received: Exception = ours.recv()
    return received


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def ends(pid: int) -> bool:
    """Wait until a process is gone; the limit is generous, for it is met at once."""
    limit_s = time.monotonic() + 20
    while not is_gone(pid) and time.monotonic() < limit_s:
        time.sleep(0.01)
    return is_gone(pid)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "acted_session.py").write_text(SESSION)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def worker(root: Path) -> Iterator[Worker]:
    with worker_for(root) as worker:
        yield worker


def test_healthy_process_is_used_again(worker: Worker) -> None:
    pids = {pid_of(worker) for _ in range(3)}

    assert len(pids) == 1
    assert pids != {str(os.getpid())}


def test_phases_are_told_in_order_as_they_begin(worker: Worker) -> None:
    phases: list[str] = []

    worker.run(deployment("well"), on_phase=phases.append)

    assert phases == ["prepare", "measure"]


def test_phase_begins_only_when_the_owner_has_done_what_it_does_at_it(worker: Worker) -> None:
    """The owner may first have to quieten the machine that the phase measures."""
    done_ns: list[int] = []

    def slow(phase: str) -> None:
        assert phase
        time.sleep(0.05)
        done_ns.append(time.monotonic_ns())

    outcome = worker.run(deployment("clock"), on_phase=slow)

    assert isinstance(outcome, Failed)
    assert int(outcome.reason) > done_ns[-1]


@pytest.mark.parametrize(
    ("variant", "reason"),
    [
        ("abort", "killed by SIGABRT in phase 'measure'; last words: a library said why"),
        ("segfault", "killed by SIGSEGV in phase 'measure'"),
        ("exit", "exited with code 3 in phase 'measure'"),
    ],
)
def test_crash_costs_one_trial_and_says_how(worker: Worker, variant: str, reason: str) -> None:
    before = pid_of(worker)

    outcome = worker.run(deployment(variant), on_phase=ignore)

    assert isinstance(outcome, Failed)
    assert outcome.kind == "crash"
    assert reason in outcome.reason
    assert outcome.environment.facts
    assert pid_of(worker) != before


def test_hang_is_killed_at_the_deadline_and_names_the_phase(root: Path) -> None:
    plan = replace(PLAN, deadline_s=3.0)

    with worker_for(root, plan=plan) as worker:
        outcome = worker.run(deployment("hang"), on_phase=ignore)

    assert isinstance(outcome, Failed)
    assert outcome.kind == "deadline"
    assert "no answer within 3 s, killed in phase 'measure'" in outcome.reason


def test_build_is_told_in_words_and_stops_at_the_deadline_with_its_process_alive(
    root: Path,
) -> None:
    told: list[str] = []

    with worker_for(root, plan=replace(PLAN, deadline_s=3.0)) as worker:
        before = pid_of(worker)
        outcome = worker.run(deployment("build"), on_phase=told.append)
        after = pid_of(worker)

    assert told[2] == "building: kernels 0%"
    assert isinstance(outcome, Failed)
    assert outcome.kind == "deadline"
    assert "no answer within 3 s, stopped in phase 'building: kernels'" in outcome.reason
    assert after == before


def test_abandoned_build_stops_with_its_process_alive(worker: Worker) -> None:
    before = pid_of(worker)

    def abandon(phase: str) -> None:
        if phase.startswith("building"):
            worker.abandon()

    outcome = worker.run(deployment("build"), on_phase=abandon)

    assert isinstance(outcome, Failed)
    assert outcome.kind == "interrupted"
    assert pid_of(worker) == before


@pytest.mark.parametrize("times", [1, 2])
def test_abandoned_build_that_does_not_stop_is_killed(worker: Worker, times: int) -> None:
    """After two seconds, or at once where it is abandoned again."""
    before, began_s = pid_of(worker), time.monotonic()

    def abandon(phase: str) -> None:
        for _ in range(times if phase.startswith("building") else 0):
            worker.abandon()

    outcome = worker.run(deployment("build-that-hangs"), on_phase=abandon)

    assert isinstance(outcome, Failed)
    assert outcome.kind == "interrupted"
    assert time.monotonic() - began_s < 15
    assert pid_of(worker) != before


def test_too_much_memory_is_infeasible_not_failed(root: Path) -> None:
    with worker_for(root, plan=replace(PLAN, max_memory_mb=200)) as worker:
        outcome = worker.run(deployment("greed"), on_phase=ignore)

    assert isinstance(outcome, Infeasible)
    assert outcome.kind == "memory"
    assert "the space allows 200 MB" in outcome.reason


def test_refused_allocation_is_infeasible_not_failed(worker: Worker) -> None:
    outcome = worker.run(deployment("no-memory"), on_phase=ignore)

    assert isinstance(outcome, Infeasible)
    assert outcome.kind == "memory"


def test_kill_that_was_not_for_memory_only_suspects_it(worker: Worker) -> None:
    outcome = worker.run(deployment("killed"), on_phase=ignore)

    assert isinstance(outcome, Failed)
    assert "killed by SIGKILL (out of memory?)" in outcome.reason


def test_death_is_noticed_while_a_grandchild_holds_the_pipe(worker: Worker) -> None:
    outcome = worker.run(deployment("orphan"), on_phase=ignore)

    assert isinstance(outcome, Failed)
    assert "exited with code 4" in outcome.reason
    assert ends(int(outcome.reason.rpartition("orphan ")[2]))


def test_noise_on_standard_output_disturbs_nothing(
    worker: Worker, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = worker.run(deployment("noise"), on_phase=ignore)

    assert isinstance(outcome, Failed)
    assert outcome.kind == "fault"
    assert capfd.readouterr() == ("", "")


def test_error_on_purpose_passes_through_and_the_process_stays(worker: Worker) -> None:
    before = pid_of(worker)

    with pytest.raises(StoreError, match="no space left"):
        worker.run(deployment("refused"), on_phase=ignore)

    assert pid_of(worker) == before


def test_bug_escapes_with_the_traceback_of_the_worker(worker: Worker) -> None:
    before = pid_of(worker)

    with pytest.raises(WorkerBugError, match="KeyError: 'missing'") as caught:
        worker.run(deployment("bug"), on_phase=ignore)

    assert "in bug" in caught.value.traceback
    assert not isinstance(caught.value, TrialError)
    assert pid_of(worker) != before


@pytest.mark.parametrize(
    ("opener", "variant"), [("open_session", "secret"), ("open_speechless", "well")]
)
def test_what_cannot_be_sent_is_a_bug(root: Path, opener: str, variant: str) -> None:
    with (
        worker_for(root, opener=opener) as worker,
        pytest.raises(WorkerBugError, match=r"pickle|local"),
    ):
        worker.run(deployment(variant), on_phase=ignore)


@pytest.mark.parametrize(
    ("opener", "kind", "message"),
    [
        ("open_model_error", ModelError, "resnet.onnx is truncated"),
        ("open_data_error", DataError, "labels.npz holds a pickle"),
        ("open_space_error", SpaceError, "isolation.yaml: axes.thread: unknown axis"),
        ("open_unsupported", UnsupportedError, "no driver here"),
        ("open_bug", WorkerBugError, "ZeroDivisionError: half open"),
        ("open_absent", WorkerBugError, "open_absent"),
    ],
)
def test_what_opening_raises_is_raised_here(
    root: Path, opener: str, kind: type[Exception], message: str
) -> None:
    with worker_for(root, opener=opener) as worker, pytest.raises(kind, match=message):
        worker.describe()


def test_space_that_does_not_open_is_no_fault_of_a_trial(root: Path) -> None:
    with (
        worker_for(root, opener="open_unsupported") as worker,
        pytest.raises(UnsupportedError, match="no driver here"),
    ):
        worker.run(deployment("well"), on_phase=ignore)


def test_death_while_opening_is_a_crash(root: Path) -> None:
    with worker_for(root, opener="open_and_die") as worker:
        outcome = worker.run(deployment("well"), on_phase=ignore)
        with pytest.raises(WorkerDiedError, match="SIGTERM in phase 'open'"):
            worker.describe()

    assert isinstance(outcome, Failed)
    assert outcome.kind == "crash"


def test_too_little_memory_to_open_says_nothing_about_a_deployment(root: Path) -> None:
    with worker_for(root, opener="open_without_memory") as worker:
        outcome = worker.run(deployment("well"), on_phase=ignore)

    assert isinstance(outcome, Failed)
    assert "could not be opened: out of memory" in outcome.reason


def test_fresh_process_refuses_a_model_that_was_replaced_meanwhile(tmp_path: Path) -> None:
    space = write_space(tmp_path)
    with Worker(space, store_root=tmp_path / "store", store_limit_bytes=10**9) as worker:
        worker.describe()
        worker.close()  # as after a crash
        write_model(tmp_path / "net.onnx", seed=7)

        with pytest.raises(InputChangedError, match="variant 'net' has changed"):
            worker.run(point(), on_phase=ignore)

        write_model(tmp_path / "net.onnx")
        assert worker.run(point(), on_phase=ignore).state == "completed"


def test_hang_while_opening_ends_at_the_deadline(root: Path) -> None:
    plan = replace(PLAN, deadline_s=0.5)

    with (
        worker_for(root, opener="open_and_hang", plan=plan) as worker,
        pytest.raises(DeadlineError, match="phase 'open'"),
    ):
        worker.describe()


def test_report_raises_what_run_would_turn_into_an_outcome(worker: Worker) -> None:
    with pytest.raises(WorkerDiedError, match="SIGABRT"):
        worker.report(deployment("abort"))


def test_prepare_is_answered_by_the_same_process(worker: Worker) -> None:
    prepared = worker.prepare(deployment("well"))

    assert isinstance(prepared, Failed)
    assert prepared.reason == pid_of(worker)


def test_abandoned_run_is_interrupted_and_the_next_works(worker: Worker) -> None:
    def abandon(phase: str) -> None:
        if phase == "measure":
            threading.Thread(target=worker.abandon).start()

    outcome = worker.run(deployment("hang"), on_phase=abandon)

    assert isinstance(outcome, Failed)
    assert outcome.kind == "interrupted"
    assert pid_of(worker)


def test_abandoning_from_a_signal_handler_does_not_deadlock(worker: Worker) -> None:
    previous = signal.signal(signal.SIGUSR1, lambda *_: worker.abandon())
    timer = threading.Timer(0.2, signal.raise_signal, [signal.SIGUSR1])

    try:
        worker.describe()
        timer.start()
        outcome = worker.run(deployment("hang"), on_phase=ignore)
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, previous)

    assert isinstance(outcome, Failed)
    assert outcome.kind == "interrupted"


def test_abandoning_between_runs_interrupts_the_next(worker: Worker) -> None:
    worker.abandon()

    first = worker.run(deployment("hang"), on_phase=ignore)
    second = worker.run(deployment("well"), on_phase=ignore)

    assert isinstance(first, Failed)
    assert isinstance(second, Failed)
    assert (first.kind, second.kind) == ("interrupted", "fault")


def test_listener_that_raises_does_not_leave_a_stale_answer(worker: Worker) -> None:
    def bug(phase: str) -> None:
        raise LookupError(phase)

    with pytest.raises(LookupError):
        worker.run(deployment("well"), on_phase=bug)

    assert pid_of(worker)


def test_idle_process_that_died_is_replaced_unseen(worker: Worker) -> None:
    pid = int(pid_of(worker))
    os.kill(pid, signal.SIGKILL)
    assert ends(pid)

    assert pid_of(worker) != str(pid)


def test_child_leaves_interrupts_to_its_owner_and_dies_first(worker: Worker) -> None:
    facts = worker.describe()

    assert isinstance(facts, dict)
    assert facts["ignores_interrupts"]
    assert facts["input"] == os.devnull
    assert facts["adjustment"] == "1000"


def test_closing_ends_the_process(root: Path) -> None:
    with worker_for(root) as worker:
        pid = int(pid_of(worker))

    assert is_gone(pid)


def test_process_that_will_not_end_is_ended(root: Path) -> None:
    with worker_for(root) as worker:
        pid = int(pid_of(worker))
        worker.run(deployment("linger"), on_phase=ignore)

    assert is_gone(pid)


def test_interpreter_that_cannot_be_started_is_a_crash(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", os.devnull)

    outcome = worker.run(deployment("well"), on_phase=ignore)

    assert isinstance(outcome, Failed)
    assert "no worker process could be started" in outcome.reason


def test_killed_owner_takes_its_worker_along() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        owner.kill()

    assert ends(pid)


@pytest.mark.parametrize(
    "kind",
    [kind for kind in vars(errors).values() if isinstance(kind, type)],
)
def test_errors_survive_the_pipe(kind: type[Exception]) -> None:
    error = kind("what happened")

    copy = piped(error)

    assert (type(copy), str(copy)) == (type(error), str(error))


def test_space_error_survives_the_pipe_with_its_parts() -> None:
    error = SpaceError("unknown axis", source="a.yaml", key="axes.b")

    copy = piped(error)

    assert isinstance(copy, SpaceError)
    assert (str(copy), copy.source, copy.key) == (str(error), "a.yaml", "axes.b")


@pytest.mark.parametrize(
    ("groups", "file"),
    [
        ("0::/jobs/1\n", "jobs/1/memory.events"),
        ("0::/jobs/1\n", "memory.events"),
        ("4:cpu,memory:/jobs/1\n0::/\n", "memory/jobs/1/memory.oom_control"),
    ],
)
def test_kernel_counter_is_found_in_either_version(tmp_path: Path, groups: str, file: str) -> None:
    (tmp_path / "cgroup").write_text(groups)
    counter = tmp_path / "mount" / file
    counter.parent.mkdir(parents=True)
    counter.write_text("oom 9\noom_kill 3\noom_group_kill 0\n")

    assert oom_kills(proc=tmp_path, mount=tmp_path / "mount") == 3


def test_machine_without_control_groups_does_not_say(tmp_path: Path) -> None:
    assert oom_kills(proc=tmp_path, mount=tmp_path) is None


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [(1, 2, True), (1, 1, False), (None, 1, False), (1, None, False)],
)
def test_only_a_counter_that_grew_proves_that_memory_ran_out(
    before: int | None, after: int | None, *, verdict: bool
) -> None:
    assert was_oom_kill(before, after) is verdict
