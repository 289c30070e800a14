"""The child side of isolation: open a session once, then do one job at a time.

``child`` starts it as ``python -m trials.isolation.process <descriptor> <module:function> <pid>``:
the pipe to its owner, the function that opens the session, the owner's process id. Whatever a job
does to this process (a segfault, a hang, too much memory) costs this process and nothing else.
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from search_spaces.deployment import Deployment
from search_spaces.errors import SpaceError
from search_spaces.space import MeasuringPlan
from trials.errors import MemoryLimitError, TrialError
from trials.isolation.messages import (
    Bug,
    Done,
    Errand,
    Job,
    LayerQuestion,
    Open,
    Raised,
    Reply,
    Request,
    Verb,
)
from trials.isolation.telling import Teller

if TYPE_CHECKING:
    from trials.bench import BenchFacts, Prepared
    from trials.measurement import Quality
    from trials.measuring.load import Driven
    from trials.models.layers import Product
    from trials.outcome import Outcome
    from trials.references import Recorded, Wanted
    from trials.sensitivity import LayerEffect

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_FIRST_TO_GO = "1000"  # proc(5): the highest oom_score_adj


class Session(Protocol):
    """What a worker serves. Used by one thread; any method may take as long as a trial."""

    def run(self, deployment: Deployment, teller: Teller) -> "Outcome":
        """Try one deployment, telling each step as it begins."""
        ...

    def report(self, deployment: Deployment) -> "Quality":
        """Score a deployment on the report split."""
        ...

    def prepare(self, deployment: Deployment, teller: Teller) -> "Prepared":
        """Put a deployment's model and engine into the store."""
        ...

    def measure(self, deployment: Deployment, plan: MeasuringPlan | None) -> "Driven":
        """Measure the speed of a deployment, and nothing else of it, by the space's or a plan."""
        ...

    def record(self, deployment: Deployment, wanted: "Wanted") -> "Recorded":
        """Describe a deployment's engine and record what it answers to labelled samples."""
        ...

    def layers(self, question: LayerQuestion) -> "tuple[Product, ...]":
        """List the layers of a variant that a precision lowers."""
        ...

    def lower(self, question: LayerQuestion) -> "LayerEffect":
        """Say what lowering one layer of a variant does."""
        ...

    def describe(self) -> "BenchFacts":
        """Identify the input of the search."""
        ...


def serve(connection: Connection, opener: str) -> None:
    """Answer requests until the owner hangs up."""
    session: Session | None = None
    while True:
        try:
            request: Request = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        match request:
            case Open():
                session = _opened(connection, opener, request)
            case Job(verb=verb, question=LayerQuestion() as question):
                assert session is not None, "a job came before the session was open"
                _reply(connection, partial(_told, session, verb, question))
            case Job():
                assert session is not None, "a job came before the session was open"
                _reply(connection, partial(_done, session, request, connection))
            case Errand():
                _reply(connection, partial(_run, request))


def _opened(connection: Connection, opener: str, request: Open) -> Session | None:
    opened: list[Session] = []

    def work() -> object:
        sys.path[:] = request.import_path
        opens = _function(opener)
        limit_bytes = request.store_limit_bytes
        opened.append(opens(request.space, request.store_root, limit_bytes, request.target))
        return None

    _reply(connection, work)
    return opened[0] if opened else None


def _run(errand: Errand) -> object:
    sys.path[:] = errand.import_path
    return _function(errand.function)(errand.argument)


def _function(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), attribute)
    return found


def _done(session: Session, job: Job, connection: Connection) -> object:
    match job.verb, job.deployment:
        case Verb.RUN, Deployment() as deployment:
            return session.run(deployment, Teller(connection))
        case Verb.REPORT, Deployment() as deployment:
            return session.report(deployment)
        case Verb.PREPARE, Deployment() as deployment:
            return session.prepare(deployment, Teller(connection))
        case Verb.MEASURE, Deployment() as deployment:
            return session.measure(deployment, job.plan)
        case Verb.RECORD, Deployment() as deployment:
            assert job.wanted is not None
            return session.record(deployment, job.wanted)
        case _:
            return session.describe()


def _told(session: Session, verb: Verb, question: LayerQuestion) -> object:
    if verb is Verb.LAYERS:
        return session.layers(question)
    assert verb is Verb.LOWER, "only these two ask of layers"
    return session.lower(question)


def _reply(connection: Connection, work: Callable[[], object]) -> None:
    """Send what ``work`` returns or raises; what cannot be sent is a bug that can."""
    reply: Reply
    try:
        reply = Done(result=work())
    except (TrialError, SpaceError) as error:
        reply = Raised(error=error)
    except MemoryError as error:
        reply = Raised(error=MemoryLimitError(f"out of memory {error}".rstrip()))
    except Exception as error:  # noqa: BLE001 -- the process boundary: the owner raises it anew
        reply = _bug(error)
    try:
        connection.send(reply)
    except (BrokenPipeError, ConnectionResetError):
        sys.exit(0)  # nobody is left to tell
    except Exception as error:  # noqa: BLE001 -- pickling calls foreign code; nothing was sent yet
        connection.send(_bug(error))


def _bug(error: Exception) -> Bug:
    summary = traceback.format_exception_only(error)[-1].strip()
    return Bug(summary=summary, traceback="".join(traceback.format_exception(error)))


def follow_parent(parent: int) -> None:
    """Die with the owner, leave interrupts to it, and be the first that the kernel sacrifices."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            sys.exit(0)
        with contextlib.suppress(OSError):  # not allowed in some containers; it is a courtesy
            Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO, encoding="ascii")


def main() -> None:
    """Serve the owner that the command line names, as the module's text says."""
    descriptor, opener, parent = sys.argv[1:]
    follow_parent(int(parent))
    flags = fcntl.fcntl(int(descriptor), fcntl.F_GETFD)
    # else a grandchild keeps the pipe open
    fcntl.fcntl(int(descriptor), fcntl.F_SETFD, flags | fcntl.FD_CLOEXEC)
    with Connection(int(descriptor)) as connection:
        serve(connection, opener)


if __name__ == "__main__":
    main()
