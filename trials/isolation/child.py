"""One worker process from its start to its death, as its owner sees it.

The owner waits on a pipe. It wakes for a message, for the end of the pipe (the child died), for
the deadline and, only where the space limits memory, every 50 ms to look at the child's resident
memory: an owner that wakes for nothing would disturb the measurement that it waits for.
"""

import contextlib
import fcntl
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import Pipe
from time import monotonic
from typing import IO, assert_never

import psutil

from trials.errors import (
    AbandonedError,
    DeadlineError,
    MemoryLimitError,
    WorkerBugError,
    WorkerDiedError,
)
from trials.isolation.messages import (
    Bug,
    Done,
    Heard,
    Phase,
    Progress,
    Raised,
    Reply,
    Request,
    phase_of,
)
from trials.machine.cgroup import oom_kills, was_oom_kill

_LOG = logging.getLogger(__name__)
# ONNX Runtime reports to its makers from threads of its own, which also disturb a measurement; it
# reads this when it is imported
QUIET = {"ORT_DISABLE_TELEMETRY": "1"}
_MEMORY_PERIOD_S = 0.05
_LOOK_PERIOD_S = 1.0  # the pipe of a dead child stays open where a grandchild inherited it
_GOODBYE_S = 1.0
_PATIENCE_S = 2.0  # with a job that was asked to stop; builders tell four times a second
_BURIAL_S = 10.0  # a process inside a driver call does not die at once
_LAST_WORDS_BYTES = 4096
_LAST_WORDS_LINES = 3
_LAST_WORDS_LENGTH = 300  # a reason is one line
_BYTES_PER_MB = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request may take.

    Attributes:
        deadline_s: Seconds until the answer.
        memory_bytes: Resident memory of the child, libraries and data included; None for any.
            It is sampled, so that a peak of a few milliseconds may pass.
    """

    deadline_s: float
    memory_bytes: float | None


class Child:
    """A worker process, started at once.

    Owned by the thread that made it (Linux kills it when that thread ends); only :meth:`kill` may
    be called from elsewhere. Ended by :meth:`bury`, or by a request that kills it.

    Raises:
        WorkerDiedError: The process cannot be started.
    """

    def __init__(self, opener: str) -> None:
        self._connection, theirs = Pipe()
        # without a name, so that nothing is left of it however we end
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by bury
        append_only(self._output)
        try:
            with theirs:
                self._process = self._started(theirs.fileno(), opener)
        except OSError as error:
            self._connection.close()
            self._output.close()
            raise WorkerDiedError(f"no worker process could be started: {error}") from error
        self._memory = psutil.Process(self._process.pid)
        self._buried = False
        self._told: Phase | Progress | None = None
        self._stops_s: float | None = None  # when patience with a job that is to stop ends
        self._late: DeadlineError | None = None

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Tell whether the process runs."""
        return self._process.poll() is None

    def ask(self, request: Request, limits: Limits, *, on_phase: Callable[[str], None]) -> object:
        """Send a request and wait for its result.

        The child enters a phase only when ``on_phase`` has returned. Where it tells how far a job
        is, in words for ``on_phase``, the deadline and :meth:`stop` let it clean up first.

        Raises:
            MemoryLimitError: It took more memory than allowed and was killed.
            DeadlineError: It took too long and was killed.
            WorkerDiedError: The child died.
            WorkerBugError: An exception that nobody foresaw; the child was killed.
            TrialError: The child raised it on purpose and is healthy; likewise SpaceError.
        """
        try:
            reply = self._answer(request, limits, on_phase)
        except BaseException:
            self._put_down()
            raise
        finally:
            self._told = None  # nothing is left to be broken off
        match reply:
            case Done():
                return reply.result
            case Raised():
                raise self._late or reply.error
            case Bug():
                self._put_down()  # nobody knows what state it is in
                raise WorkerBugError(reply.summary, reply.traceback)
            case _:
                assert_never(reply)

    def stop(self) -> None:
        """Let a job end that can be broken off, and kill any other; for any thread, as kill is."""
        if isinstance(self._told, Progress) and self._stops_s is None:
            self._stops_s = monotonic() + _PATIENCE_S
        else:
            self.kill()

    def kill(self) -> None:
        """Kill the child and its own children; for any thread and for signal handlers."""
        if self._process.returncode is None:
            self._kill_group()

    def bury(self) -> None:
        """Let the child end, by force if it will not, and release what it held; repeatable."""
        if self._buried:
            return
        self._buried = True
        self._connection.close()
        try:
            self._process.wait(_GOODBYE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_BURIAL_S)
        if self._process.returncode is None:
            _LOG.warning("worker process %d does not die; it is left behind", self.pid)
        self._kill_group()  # what it left running; the number is theirs as long as one lives
        self._output.close()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _put_down(self) -> None:
        self.kill()
        self.bury()

    def _started(self, descriptor: int, opener: str) -> subprocess.Popen[bytes]:
        worker = ("trials.isolation.process", str(descriptor), opener, str(os.getpid()))
        return subprocess.Popen(
            # -P: a folder called trials in the working directory is not ours
            [sys.executable, "-P", "-m", *worker],
            env=QUIET | os.environ,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            pass_fds=(descriptor,),
            process_group=0,  # Ctrl-C is the owner's; grandchildren can be killed with the child
        )

    def _answer(
        self, request: Request, limits: Limits, on_phase: Callable[[str], None]
    ) -> Done | Raised | Bug:
        kills_before = oom_kills()
        ends_s = monotonic() + limits.deadline_s
        phase = phase_of(request)
        self._stops_s = self._late = None
        os.ftruncate(self._output.fileno(), 0)  # last words are to be of this request
        with contextlib.suppress(BrokenPipeError):  # died idle: the end of the pipe tells
            self._connection.send(request)
        while True:
            try:
                reply = self._next_reply(limits, ends_s=ends_s, phase=phase)
            except (EOFError, ConnectionResetError) as error:
                raise self._autopsy(phase, kills_before) from error
            if not isinstance(reply, Phase | Progress):
                return reply
            self._told, phase = reply, reply.name
            on_phase(str(reply))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # died meanwhile
                self._connection.send(Heard(stop=self._stops_s is not None))

    def _next_reply(self, limits: Limits, *, ends_s: float, phase: str) -> Reply:
        period_s = _LOOK_PERIOD_S if limits.memory_bytes is None else _MEMORY_PERIOD_S
        while not self._connection.poll(
            max(0.0, min(period_s, (self._stops_s or ends_s) - monotonic()))
        ):
            if limits.memory_bytes is not None:
                self._check_memory(limits.memory_bytes, phase)
            self._check_time(limits, ends_s=ends_s, phase=phase)
            if not self.is_alive() and not self._connection.poll():
                raise EOFError
        reply: Reply = self._connection.recv()
        return reply

    def _check_time(self, limits: Limits, *, ends_s: float, phase: str) -> None:
        """Break the job off at the deadline if it can be, and kill it when patience ends."""
        now_s = monotonic()
        if self._late is None and now_s >= ends_s:
            how = "stopped" if isinstance(self._told, Progress) else "killed"
            self._late = DeadlineError(
                f"no answer within {limits.deadline_s:g} s, {how} in phase {phase!r}; "
                "raise measure.deadline_s if it only needs longer"
            )
            if how == "killed":
                raise self._late
            self._stops_s = self._stops_s or now_s + _PATIENCE_S
        if self._stops_s is not None and now_s >= self._stops_s:
            raise self._late or AbandonedError(f"killed in phase {phase!r}: it did not stop")

    def _check_memory(self, limit_bytes: float, phase: str) -> None:
        try:
            resident_bytes = self._memory.memory_info().rss
        except psutil.NoSuchProcess:
            return  # it just died; the pipe will tell
        if resident_bytes > limit_bytes:
            raise MemoryLimitError(
                f"{resident_bytes / _BYTES_PER_MB:.0f} MB resident in phase {phase!r}, the space "
                f"allows {limit_bytes / _BYTES_PER_MB:g} MB (measure.max_memory_mb)"
            )

    def _autopsy(self, phase: str, kills_before: int | None) -> WorkerDiedError | MemoryLimitError:
        words = last_words(self._output)
        self.bury()
        code = self._process.returncode
        if code == -signal.SIGKILL and was_oom_kill(kills_before, oom_kills()):
            return MemoryLimitError(
                f"the kernel killed the worker for lack of memory in phase {phase!r}; lower "
                "batch_size or concurrency"
            )
        return WorkerDiedError(f"the worker {ending(code)} in phase {phase!r}{words}")


def append_only(file: IO[bytes]) -> None:
    """Make writes go to the end, wherever that is: the file is truncated between requests."""
    flags = fcntl.fcntl(file, fcntl.F_GETFL)
    fcntl.fcntl(file, fcntl.F_SETFL, flags | os.O_APPEND)


def ending(code: int | None) -> str:
    """Say how a process ended by its return code; None for one that did not."""
    if code is None:
        return "hung up and does not die"
    if code >= 0:
        return f"exited with code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    guess = " (out of memory?)" if -code == signal.SIGKILL else ""
    return f"was killed by {name}{guess}"


def last_words(output: IO[bytes]) -> str:
    """Quote the end of a dead process's output, or nothing where it said nothing."""
    size = os.fstat(output.fileno()).st_size
    tail = os.pread(output.fileno(), _LAST_WORDS_BYTES, max(0, size - _LAST_WORDS_BYTES))
    lines = [line.strip() for line in tail.decode(errors="replace").splitlines()]
    words = " | ".join([line for line in lines if line][-_LAST_WORDS_LINES:])
    return f"; last words: {words[-_LAST_WORDS_LENGTH:]}" if words else ""
