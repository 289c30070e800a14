"""The gate: while a search of this workspace measures, nothing is delivered.

Delivering takes processor time, memory bandwidth and the disk, of which a measurement must see
nothing. So a search shuts the gate while it measures, and a courier works in small steps, each of
which it begins only when the gate is open to it::

    <spool>/gate      locked shared by every search that measures, exclusively by the courier
                      that takes a step, which signs the file, so that it can be stopped
    <spool>/halted    locked shared by every search that measures beside a stopped courier

A step may hang, in a server that does not answer. A search then waits no longer than a moment: it
stops the courier (SIGSTOP), measures, and lets it go on. Locks end with their process; a courier
dies with the search that started it, stopped or not; and one that was stopped by a search that
was killed is woken by the next search that opens the gate or waits.

The gate is for the processes of one machine and one process namespace: a courier elsewhere cannot
be stopped, and is not waited for.
"""

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optimizer.study.owner import is_alive, this_process
from optimizer.workspace import writing

# most steps are over within; it is what a hanging server can cost a trial
_PATIENCE_S = 0.05
_LOOK_S = 0.001
_STOP_S = 2.0  # a signal is obeyed at once, except inside a call of the kernel that cannot be left
_STOPPED = "T"  # proc(5), state


class Gate:
    """A search's side: shut while it measures. Used by one thread; repeatable."""

    def __init__(self, folder: Path, *, patience_s: float = _PATIENCE_S) -> None:
        self._folder = folder
        self._patience_s = patience_s
        self._held: list[int] = []

    def shut(self) -> None:
        """Return when no courier of this machine works, and none begins to until :meth:`open`.

        Raises:
            WorkspaceError: The workspace cannot be written.
        """
        if self._held:
            return
        gate = self._open_gate()
        self._held.append(gate)
        ends_s = time.monotonic() + self._patience_s
        while not _locks(gate, fcntl.LOCK_SH):
            if time.monotonic() >= ends_s:
                self._halt(gate)
                return
            time.sleep(_LOOK_S)

    def open(self) -> None:
        """Let couriers work again, unless another search measures."""
        while self._held:
            os.close(self._held.pop())  # which ends its lock
        self.wake()

    def wake(self) -> None:
        """Let a stopped courier go on, unless a search still measures beside it."""
        if not (self._folder / "halted").exists():
            return
        halted = _opened(self._folder / "halted")
        try:
            if _locks(halted, fcntl.LOCK_EX):
                _signal(_signature(self._folder / "gate"), signal.SIGCONT)
        finally:
            os.close(halted)

    def handed_over(self) -> int | None:
        """Hold the gate as a courier does; return the descriptor, for a courier to be born with.

        From its first instant on the child then counts as working. None while anybody measures or
        another courier works. The caller closes its own copy.

        Raises:
            WorkspaceError: The workspace cannot be written.
        """
        gate = self._open_gate()
        if _locks(gate, fcntl.LOCK_EX):
            return gate
        os.close(gate)
        return None

    def _open_gate(self) -> int:
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            return _opened(self._folder / "gate")

    def _halt(self, gate: int) -> None:
        """Stop whichever courier is inside, until it stands still or has left."""
        halted = _opened(self._folder / "halted")
        self._held.append(halted)
        fcntl.flock(halted, fcntl.LOCK_SH)
        ends_s = time.monotonic() + _STOP_S
        while time.monotonic() < ends_s:
            inside = _signature(self._folder / "gate")
            _signal(inside, signal.SIGSTOP)
            if _locks(gate, fcntl.LOCK_SH):  # it left just before: it waits at the gate instead
                _signal(inside, signal.SIGCONT)
                return
            if inside == _signature(self._folder / "gate") and _is_still(inside):
                return
            time.sleep(_LOOK_S)


class Passage:
    """A courier's side: one step at a time. Used by one thread."""

    def __init__(self, folder: Path, *, held: int | None = None) -> None:
        """Use the gate of a spool.

        Args:
            folder: The spool of the workspace.
            held: Descriptor by which this process was born inside, see :meth:`Gate.handed_over`.
        """
        self._file = folder / "gate"
        self._gate = _opened(self._file) if held is None else held
        self._born_inside = held is not None
        self._depth = 0
        if held is not None:
            self._sign()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Wait until nobody measures, and keep others from it for the length of a step.

        A step within a step is a part of it.
        """
        if self._depth == 0 and not self._born_inside:
            fcntl.flock(self._gate, fcntl.LOCK_EX)
            self._sign()
        self._born_inside = False
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                fcntl.flock(self._gate, fcntl.LOCK_UN)

    def _sign(self) -> None:
        mine = this_process()
        if _signature(self._file) != mine:
            os.ftruncate(self._gate, 0)
            os.pwrite(self._gate, mine.encode(), 0)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def _locks(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _signature(gate: Path) -> str:
    try:
        return gate.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _signal(signature: str, number: signal.Signals) -> None:
    """Signal the process that signed, never another that has its number now."""
    with contextlib.suppress(ValueError, ProcessLookupError):  # unsigned or torn; gone
        _, _, pid, _ = json.loads(signature)
        process = os.pidfd_open(pid)
        try:
            if is_alive(signature):
                signal.pidfd_send_signal(process, number)
        finally:
            os.close(process)


def _is_still(signature: str) -> bool:
    """Tell whether whoever is inside cannot disturb: stopped, or on another machine.

    A signer that is dead is not who is inside: a courier that was just born has yet to sign.
    """
    with contextlib.suppress(ValueError, OSError):
        alive = is_alive(signature)
        _, _, pid, _ = json.loads(signature)
        return alive is None or (alive and _state(pid) == _STOPPED)
    return False


def _state(pid: int) -> str:
    status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    return status.rpartition(")")[2].split()[0]
