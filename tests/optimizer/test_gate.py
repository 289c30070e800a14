"""The gate, between real processes: it is for the kernel to say who works and who waits."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from optimizer.tracking.gate import Gate, Passage

# takes one step after the other, each noting its begin and end, the first as long as it is told
COURIER = """
import sys, time
from pathlib import Path
from optimizer.tracking.gate import Passage
folder, log, first_s = Path(sys.argv[1]), open(sys.argv[2], "a", buffering=1), float(sys.argv[3])
passage = Passage(folder)
while True:
    with passage.step():
        log.write("in\\n")
        time.sleep(first_s)
        log.write("out\\n")
    first_s = 0.001
"""
# measures until it is killed
SEARCH = """
import sys, time
from pathlib import Path
from optimizer.tracking.gate import Gate
gate = Gate(Path(sys.argv[1]))
gate.shut()
print("measuring", flush=True)
time.sleep(100)
"""
# starts a courier that hangs in a step, tells its number, and waits to be killed
OWNER = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], *sys.argv[2:], str(os.getpid())])
print(child.pid, flush=True)
time.sleep(100)
"""
BOUND_COURIER = f"from trials.isolation.process import follow_parent\nimport sys\n\
follow_parent(int(sys.argv[4]))\n{COURIER}"

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    folder = tmp_path / "spool"
    folder.mkdir()
    return folder


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a program; kill it where the test left it."""
    started = []

    def starting(program: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program, *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield starting
    for process in started:
        process.kill()
        process.communicate()


def wait_until(is_so: Callable[[], object]) -> None:
    """Wait; the test's time limit ends it."""
    while not is_so():
        time.sleep(0.005)


def steps(log: Path) -> int:
    return log.read_text().count("in") if log.exists() else 0


def is_inside(log: Path) -> bool:
    return log.exists() and log.read_text().splitlines()[-1:] == ["in"]


def is_stopped(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


def test_no_step_begins_while_the_gate_is_shut(spool: Path, start: Start) -> None:
    log = spool / "log"
    start(COURIER, spool, log, 0)
    wait_until(lambda: steps(log) > 3)
    gate = Gate(spool, patience_s=60)

    gate.shut()
    before = log.read_text()
    time.sleep(0.2)
    after = log.read_text()
    gate.open()

    assert before == after
    assert before.endswith("out\n")
    wait_until(lambda: steps(log) > before.count("in"))


def test_courier_that_hangs_in_a_step_is_stopped_and_goes_on_afterwards(
    spool: Path, start: Start
) -> None:
    log = spool / "log"
    courier = start(COURIER, spool, log, 0.5)
    wait_until(lambda: is_inside(log))
    gate = Gate(spool)

    gate.shut()
    stopped = is_stopped(courier.pid)
    gate.open()

    assert stopped
    wait_until(lambda: steps(log) > 3)


def test_stopped_courier_waits_for_the_last_of_several_searches(spool: Path, start: Start) -> None:
    log = spool / "log"
    courier = start(COURIER, spool, log, 0.5)
    wait_until(lambda: is_inside(log))
    first, second = Gate(spool), Gate(spool)
    first.shut()
    second.shut()

    first.open()
    after_first = is_stopped(courier.pid)
    second.open()

    assert after_first
    wait_until(lambda: not is_stopped(courier.pid))


def test_gate_that_is_shut_twice_is_opened_once(spool: Path, start: Start) -> None:
    log = spool / "log"
    gate = Gate(spool)
    gate.shut()
    gate.shut()
    start(COURIER, spool, log, 0)

    gate.open()
    gate.open()

    wait_until(lambda: steps(log) > 3)


def test_killed_search_leaves_the_gate_open(spool: Path, start: Start) -> None:
    log = spool / "log"
    search = start(SEARCH, spool)
    assert search.stdout is not None
    assert search.stdout.readline() == "measuring\n"
    start(COURIER, spool, log, 0)

    search.kill()

    wait_until(lambda: steps(log) > 3)


def test_courier_that_a_killed_search_left_stopped_is_woken_by_the_next(
    spool: Path, start: Start
) -> None:
    log = spool / "log"
    courier = start(COURIER, spool, log, 3)  # longer than the search takes to begin
    wait_until(lambda: is_inside(log))
    search = start(SEARCH, spool)
    wait_until(lambda: is_stopped(courier.pid))
    search.kill()
    search.wait()

    Gate(spool).wake()

    wait_until(lambda: steps(log) > 3)


def test_stopped_courier_dies_with_the_search_that_started_it(spool: Path, start: Start) -> None:
    log = spool / "log"
    owner = start(OWNER, BOUND_COURIER, spool, log, 100)
    assert owner.stdout is not None
    courier = psutil.Process(int(owner.stdout.readline()))
    wait_until(lambda: is_inside(log))
    gate = Gate(spool)
    gate.shut()
    assert courier.status() == psutil.STATUS_STOPPED

    owner.send_signal(signal.SIGKILL)

    wait_until(lambda: not courier.is_running() or courier.status() == psutil.STATUS_ZOMBIE)
    gate.open()


def test_process_that_has_the_number_of_a_dead_courier_is_not_stopped(
    spool: Path, start: Start
) -> None:
    """The signature says when its process began; here somebody else has the number."""
    bystander = start("import time; time.sleep(100)")
    gate = Gate(spool, patience_s=0.01)
    with Passage(spool).step():
        host, boot, _, started = json.loads((spool / "gate").read_text())
        (spool / "gate").write_text(json.dumps([host, boot, bystander.pid, started]))

        gate.shut()

    assert not is_stopped(bystander.pid)
    gate.open()


def test_courier_is_born_inside_and_counts_as_working_at_once(spool: Path) -> None:
    gate = Gate(spool)
    held = gate.handed_over()
    assert held is not None

    second = gate.handed_over()
    passage = Passage(spool, held=held)
    with passage.step():
        during = gate.handed_over()
    after = gate.handed_over()

    assert (second, during) == (None, None)
    assert after is not None
    os.close(after)


def test_gate_is_not_handed_over_while_anybody_measures(spool: Path) -> None:
    measuring = Gate(spool)
    measuring.shut()

    assert Gate(spool).handed_over() is None
    measuring.open()


def test_step_within_a_step_ends_with_the_outer_one(spool: Path) -> None:
    passage, gate = Passage(spool), Gate(spool)

    with passage.step():
        with passage.step():
            pass
        inside = gate.handed_over()

    assert inside is None
