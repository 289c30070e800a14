"""Pristine processes: each job runs in a process that has done nothing before, and costs a fork.

What a job finds there (free memory that the C library kept, threads, caches) is the same each
time, however much this process has done meanwhile. A *template* process brings a runtime up once
and then only forks: the child does the job and ends. Forking is safe there because the template
has one thread, which it sees to, and has touched no device.
"""

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from functools import cache
from multiprocessing import Pipe
from time import monotonic

from trials.errors import DeadlineError, MemoryLimitError, WorkerBugError, WorkerDiedError
from trials.isolation.child import QUIET, append_only, ending, last_words
from trials.isolation.messages import Bug, Done, Raised
from trials.isolation.tasks import Answer, Ended, Task
from trials.machine.cgroup import oom_kills, was_oom_kill

# a pool of threads that a library starts when it is imported would be lost by a fork
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_LOOK_PERIOD_S = 1.0
_LAST_WORDS_S = 1.0  # it closes the pipe before it says what went wrong
_BURIAL_S = 10.0


@cache
def pristine(runtime: str) -> "Pristine":
    """Return this process's source of pristine processes with a runtime; it ends with us.

    Args:
        runtime: ``module:function`` of ours that brings the runtime up and leaves no thread.
    """
    source = Pristine(runtime)
    atexit.register(source.close)
    return source


class Pristine:
    """A template process, started when first needed and again when it died.

    Used by one thread at a time. Linux kills the template when the thread that started it ends,
    and a job with the template.
    """

    def __init__(self, runtime: str) -> None:
        self._runtime = runtime
        self._template: _Template | None = None

    def run(self, function: str, argument: object, *, deadline_s: float) -> object:
        """Call a function in a pristine process and return what it returns.

        Args:
            function: ``module:function`` of ours; best of a module that the runtime imports.
            argument: Anything that can be pickled, like the result.
            deadline_s: After which the job is killed, seconds.

        Raises:
            DeadlineError: The job took too long and was killed.
            MemoryLimitError: The kernel killed it for lack of memory.
            WorkerDiedError: It died, or the runtime cannot be brought up.
            WorkerBugError: An exception that nobody foresaw.
            TrialError: The job raised it on purpose.
        """
        if self._template is None or not self._template.is_alive():
            self.close()
            self._template = _Template(self._runtime)
        match self._template.ask(Task(function=function, argument=argument), deadline_s):
            case Done(result=result):
                return result
            case Raised(error=error):
                raise error
            case Bug() as bug:
                raise WorkerBugError(bug.summary, bug.traceback)

    def close(self) -> None:
        """End the template process; a later job would start another."""
        template, self._template = self._template, None
        if template is not None:
            template.bury()


class _Template:
    """One template process from its start to its death, as its owner sees it."""

    def __init__(self, runtime: str) -> None:
        self._connection, theirs = Pipe()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by bury
        append_only(self._output)
        worker = ("trials.isolation.pristine_process", str(theirs.fileno()), runtime)
        try:
            with theirs:
                self._process = subprocess.Popen(
                    # -P: a folder called trials in the working directory is not ours
                    [sys.executable, "-P", "-m", *worker, str(os.getpid())],
                    env=QUIET | os.environ | _ONE_THREAD,
                    stdin=subprocess.DEVNULL,
                    stdout=self._output,
                    stderr=self._output,
                    pass_fds=(theirs.fileno(),),
                )
        except OSError as error:
            self._connection.close()
            self._output.close()
            raise WorkerDiedError(f"no pristine process could be started: {error}") from error

    def is_alive(self) -> bool:
        """Tell whether the process runs."""
        return self._process.poll() is None

    def ask(self, task: Task, deadline_s: float) -> Answer:
        """Let a child do the task; see :meth:`Pristine.run`."""
        kills_before = oom_kills()
        os.ftruncate(self._output.fileno(), 0)  # last words are to be of this task
        try:
            self._connection.send(task)
            answer, code = self._outcome(task, deadline_s)
        except (BrokenPipeError, ConnectionResetError, EOFError) as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_LAST_WORDS_S)
            self._stop()
            raise self._death(self._process.returncode, task, kills_before) from error
        except BaseException:
            self._stop()  # the child may be at it still
            raise
        if answer is None:
            raise self._death(code, task, kills_before)
        return answer

    def bury(self) -> None:
        """Kill the process, its child with it, and release what it held; repeatable."""
        self._stop()
        self._output.close()

    def _stop(self) -> None:
        self._connection.close()
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_BURIAL_S)

    def _outcome(self, task: Task, deadline_s: float) -> tuple[Answer | None, int]:
        """Return what the child answered, if anything, and how it ended."""
        ends_s = monotonic() + deadline_s
        answer: Answer | None = None
        while True:
            left_s = ends_s - monotonic()
            if self._connection.poll(max(0.0, min(_LOOK_PERIOD_S, left_s))):
                said: Answer | Ended = self._connection.recv()
                if isinstance(said, Ended):
                    return answer, said.code
                answer = said
            elif left_s <= 0:
                raise DeadlineError(
                    f"no answer within {deadline_s:g} s from a fresh process ({task.name}); "
                    "raise measure.deadline_s if it only needs longer"
                )
            elif not self.is_alive() and not self._connection.poll():
                raise EOFError

    def _death(
        self, code: int | None, task: Task, kills_before: int | None
    ) -> WorkerDiedError | MemoryLimitError:
        if code == -signal.SIGKILL and was_oom_kill(kills_before, oom_kills()):
            return MemoryLimitError(
                f"the kernel killed a fresh process ({task.name}) for lack of memory; lower "
                "batch_size or concurrency"
            )
        words = last_words(self._output)
        return WorkerDiedError(f"a fresh process ({task.name}) {ending(code)}{words}")
