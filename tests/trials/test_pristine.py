"""Pristine processes: each job begins where every other began, and its end is told."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from trials.errors import (
    DeadlineError,
    MemoryLimitError,
    UnsupportedError,
    WorkerBugError,
    WorkerDiedError,
)
from trials.isolation.pristine import Pristine, pristine

JOBS = """
import os, sys, threading, time
from trials.errors import UnsupportedError
from trials.isolation import process

up = []

def bring_up():
    up.append(os.getpid())

def linger():
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()

def fall_over():
    raise OSError("no driver here")

def add(number):
    up.append(number)
    return len(up)

def whoami(_):
    return os.getpid(), os.getppid(), up[0]

def refuse(reason):
    raise UnsupportedError(reason)

def starve(_):
    raise MemoryError

def secret(_):
    return lambda: None

def shout(words):
    print(words, file=sys.stderr, flush=True)
    os.abort()

def tell_and_sleep(path):
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(60)
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pristine]:
    (tmp_path / "pristine_jobs.py").write_text(JOBS, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    source = Pristine("pristine_jobs:bring_up")
    yield source
    source.close()


def do(source: Pristine, job: str, argument: object = None, *, deadline_s: float = 60) -> object:
    return source.run(f"pristine_jobs:{job}", argument, deadline_s=deadline_s)


def pids(source: Pristine) -> tuple[int, int, int]:
    found = do(source, "whoami")
    assert isinstance(found, tuple)
    return found


def test_jobs_leave_nothing_to_each_other(source: Pristine) -> None:
    assert [do(source, "add", number) for number in range(3)] == [2, 2, 2]


def test_each_job_has_a_process_of_its_own_and_one_template(source: Pristine) -> None:
    (first, parent, brought_up), (second, same, _) = pids(source), pids(source)

    assert first != second
    assert parent == same == brought_up
    assert parent != os.getpid()


def test_error_on_purpose_is_raised_as_it_was(source: Pristine) -> None:
    with pytest.raises(UnsupportedError, match="no such operator"):
        do(source, "refuse", "no such operator")

    assert do(source, "add") == 2


def test_lack_of_memory_that_python_noticed_is_a_memory_limit(source: Pristine) -> None:
    with pytest.raises(MemoryLimitError):
        do(source, "starve")


@pytest.mark.parametrize("job", ["nothing_of_that_name", "secret", "fall_over"])
def test_what_nobody_foresaw_is_a_bug(source: Pristine, job: str) -> None:
    with pytest.raises((WorkerBugError, WorkerDiedError)):
        do(source, job)

    assert do(source, "add") == 2


def test_death_is_told_with_its_cause_and_last_words(source: Pristine) -> None:
    with pytest.raises(WorkerDiedError, match=r"shout\) was killed by SIGABRT; last words: why"):
        do(source, "shout", "why")

    assert do(source, "add") == 2


def test_job_past_its_deadline_is_killed_and_the_next_one_runs(
    source: Pristine, tmp_path: Path
) -> None:
    with pytest.raises(DeadlineError, match="no answer within 1 s"):
        do(source, "tell_and_sleep", str(tmp_path / "pid"), deadline_s=1)

    assert do(source, "add") == 2
    wait_for_end(int((tmp_path / "pid").read_text(encoding="utf-8")))


def test_template_that_was_killed_is_replaced(source: Pristine) -> None:
    _, template, _ = pids(source)
    os.kill(template, signal.SIGKILL)
    wait_for_end(template)

    assert pids(source)[1] != template


OWNER = """
import sys
from trials.isolation.pristine import pristine
source = pristine("pristine_jobs:bring_up")
print(source.run("pristine_jobs:whoami", None, deadline_s=60)[1], flush=True)
if len(sys.argv) > 1:
    source.run("pristine_jobs:tell_and_sleep", sys.argv[1], deadline_s=60)
"""


@pytest.mark.usefixtures("source")
def test_template_ends_with_its_owner() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", OWNER], capture_output=True, timeout=60, check=True
    )

    wait_for_end(int(ran.stdout))
    assert ran.stderr == b""


@pytest.mark.usefixtures("source")
def test_template_and_job_die_with_an_owner_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path / "pid")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        template = int(owner.stdout.readline())
        job = int(content_of(tmp_path / "pid"))

        owner.kill()

    wait_for_end(template)
    wait_for_end(job)


def test_runtime_that_leaves_threads_is_refused(source: Pristine) -> None:
    threaded = Pristine("pristine_jobs:linger")

    with pytest.raises(WorkerDiedError, match="the runtime left 1 threads"):
        do(threaded, "add")

    threaded.close()
    source.close()


def test_runtime_that_cannot_be_brought_up_says_why(source: Pristine) -> None:
    broken = Pristine("pristine_jobs:fall_over")

    with pytest.raises(WorkerDiedError, match="no driver here"):
        do(broken, "add")

    broken.close()
    source.close()


def test_one_process_has_one_template_of_a_runtime() -> None:
    assert pristine("builtins:dict") is pristine("builtins:dict")
    assert pristine("builtins:dict").run("builtins:abs", -3, deadline_s=60) == 3


def content_of(path: Path) -> str:
    for _ in range(600):
        if path.exists() and (content := path.read_text(encoding="utf-8")):
            return content
        time.sleep(0.1)
    raise TimeoutError(path)


def wait_for_end(pid: int) -> None:
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.1)
    raise TimeoutError(pid)
