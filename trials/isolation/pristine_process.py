"""The template side of ``pristine``: bring a runtime up, then fork a child for each task.

Started as ``python -m trials.isolation.pristine_process <descriptor> <module:function> <pid>``:
the pipe to its owner, what brings the runtime up, the owner's process id.
"""

import ctypes
import fcntl
import gc
import os
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from trials.errors import MemoryLimitError, TrialError
from trials.isolation.messages import Bug, Done, Raised
from trials.isolation.process import follow_parent
from trials.isolation.tasks import Answer, Ended, Task

_PR_SET_THP_DISABLE = 41  # linux/prctl.h
_THREADS = Path("/proc/self/task")


def serve(connection: Connection) -> None:
    """Fork for each task until the owner hangs up."""
    template = os.getpid()
    while True:
        try:
            task: Task = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        child = os.fork()
        if child == 0:
            _be_the_child(task, connection, template)
        _, status = os.waitpid(child, 0)
        connection.send(Ended(code=os.waitstatus_to_exitcode(status)))


def _be_the_child(task: Task, connection: Connection, template: int) -> NoReturn:
    try:
        follow_parent(template)
        _do(task, connection)
    except BaseException:  # noqa: BLE001 -- whatever it is, a second template must not live on
        traceback.print_exc()
        os._exit(1)
    os._exit(0)  # nothing of the template's is to be cleaned up here


def _do(task: Task, connection: Connection) -> None:
    reply: Answer
    try:
        reply = Done(result=_function(task.function)(task.argument))
    except TrialError as error:
        reply = Raised(error=error)
    except MemoryError as error:
        reply = Raised(error=MemoryLimitError(f"out of memory {error}".rstrip()))
    except Exception as error:  # noqa: BLE001 -- the process boundary: the owner raises it anew
        summary = traceback.format_exception_only(error)[-1].strip()
        text = "".join(traceback.format_exception(error))
        reply = Bug(summary=summary, traceback=text)
    connection.send(reply)


def _function(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), attribute)
    return found


def _settle() -> None:
    """Bring this process into the state that every child begins with.

    Memory that is free goes back to the kernel, so that children do not serve themselves from it.
    Huge pages are off: whether the kernel has one to give is chance, and it would be counted.

    Raises:
        RuntimeError: There are threads, which a fork would lose.
    """
    gc.collect()
    gc.freeze()  # a collection in a child would touch, and so copy, all that there is
    library = ctypes.CDLL(None)
    library.prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)
    trim = getattr(library, "malloc_trim", None)  # glibc only; musl has none
    if trim is not None:
        trim(0)
    threads = len(list(_THREADS.iterdir()))
    if threads > 1:
        raise RuntimeError(f"the runtime left {threads - 1} threads, which a fork would lose")


def main() -> None:
    """Serve the owner that the command line names, as the module's text says."""
    descriptor, runtime, parent = sys.argv[1:]
    follow_parent(int(parent))
    flags = fcntl.fcntl(int(descriptor), fcntl.F_GETFD)
    fcntl.fcntl(int(descriptor), fcntl.F_SETFD, flags | fcntl.FD_CLOEXEC)
    with Connection(int(descriptor)) as connection:
        _function(runtime)()
        _settle()
        serve(connection)


if __name__ == "__main__":
    main()
