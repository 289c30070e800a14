"""The owner's side of a courier: start it, nudge it, wait for it, end it.

The courier is started between measurements only, for its birth too is work, and again where it
died. Nothing here is needed for a record to be safe: it is in the spool.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from optimizer.study.owner import is_alive, this_process
from optimizer.tracking.courier_process import Order
from optimizer.tracking.destination import Destination
from optimizer.tracking.gate import Gate
from optimizer.tracking.spool import Spool
from optimizer.tracking.status import Status, read_status

_LOOK_S = 0.2
_GOODBYE_S = 2.0
_DEATHS = 3  # then it is its fault and not tonight's
_LAST_WORDS_BYTES = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitLimits:
    """How long to wait for a courier that does not move.

    Attributes:
        silent_s: Where it has no trouble to tell of: a server may be slow.
        troubled_s: Where MLflow refuses or does not answer.
    """

    silent_s: float = 45.0  # longer than one request may take
    troubled_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What a courier left when it was no longer waited for.

    Attributes:
        waiting: Names of the records that still wait.
        status: The courier's last.
        problem: Why it could not be waited for, where it died.
    """

    waiting: tuple[str, ...]
    status: Status
    problem: str = ""


class Courier:
    """A courier for one destination, started when first nudged. Owned by the main thread.

    Attributes:
        destination: Whom it tells.
    """

    def __init__(self, destination: Destination, *, spool: Path, gate: Gate) -> None:
        """Make a courier that is not started yet.

        Args:
            destination: Whom it tells.
            spool: The spool of the workspace.
            gate: That of this process, which no courier passes while it is shut.
        """
        self.destination = destination
        self._root = spool
        self._gate = gate
        self._spool = Spool(destination.folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        self._deaths = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id; None where it does not run."""
        return None if self._process is None else self._process.pid

    def nudge(self) -> None:
        """Say that something waits, starting the courier where there is none.

        Where it cannot be started now, the next nudge does.

        Raises:
            WorkspaceError: The gate cannot be made.
        """
        if self._is_alive():
            assert self._process is not None
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it died just now
                self._process.stdin.write(b"\n")
                self._process.stdin.flush()
        elif self._deaths < _DEATHS and (held := self._gate.handed_over()) is not None:
            try:
                self._start(held)
            finally:
                os.close(held)

    def wait(
        self,
        names: Collection[str],
        *,
        limits: WaitLimits,
        on_progress: Callable[[int, Status], None],
    ) -> Left:
        """Wait until these records are delivered, or as long as something moves.

        Args:
            names: Records of the spool.
            limits: Patience with a courier that does not move.
            on_progress: Told how many are left, and how the courier stands.

        Raises:
            WorkspaceError: The gate cannot be made.
        """
        moved_s, seen = time.monotonic(), None
        while True:
            left = self.left(names)
            troubled = _is_troubled(left)
            # a courier in trouble takes steps with every attempt, and gets nowhere
            if (now := (len(left.waiting), troubled or left.status.steps)) != seen:
                moved_s, seen = time.monotonic(), now
            limit_s = limits.troubled_s if troubled else limits.silent_s
            if not left.waiting or left.problem or time.monotonic() - moved_s > limit_s:
                return left
            on_progress(len(left.waiting), left.status)
            self._gate.wake()  # a search that was killed may have left the courier stopped
            self.nudge()
            time.sleep(_LOOK_S)

    def left(self, names: Collection[str]) -> Left:
        """Look which of these records still wait, and how the courier stands."""
        return Left(
            waiting=tuple(name for name in self._spool.waiting() if name in names),
            status=self.status(),
            problem=self._last_words() if self._deaths >= _DEATHS else "",
        )

    def status(self) -> Status:
        """Read how the courier stands that delivers here, ours or another search's."""
        found = read_status(self.destination.folder)
        if found is None or not is_alive(found.courier):
            return Status(courier=this_process())
        return found

    def trouble(self) -> str:
        """Say why nothing can be delivered now; empty where something can."""
        return self.status().trouble

    def close(self) -> None:
        """End the courier, wherever it is; what it was about to deliver waits."""
        if self._process is not None:
            self._hang_up(self._process)
            if not self._spool.waiting():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_GOODBYE_S)
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._output is not None:
            self._output.close()
            self._output = None

    def _is_alive(self) -> bool:
        if self._process is None:
            return False
        if self._process.poll() is not None:
            self._deaths += 1
            self._hang_up(self._process)
            self._process = None
            return False
        return True

    def _hang_up(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # nobody listens any more
            process.stdin.close()

    def _start(self, held: int) -> None:
        if self._output is None:
            # without a name, so that nothing is left of it however we end
            self._output = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by close
        order = Order(owner=os.getpid(), spool=self._root, destination=self.destination, gate=held)
        self._process = subprocess.Popen(
            # -P: a folder called optimizer in the working directory is not ours
            [sys.executable, "-P", "-m", "optimizer.tracking.courier_process"],
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=self._output,
            pass_fds=(held,),
            process_group=0,  # Ctrl-C is the owner's
        )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(order.model_dump_json().encode() + b"\n")
            self._process.stdin.flush()

    def _last_words(self) -> str:
        assert self._output is not None
        size = os.fstat(self._output.fileno()).st_size
        tail = os.pread(self._output.fileno(), _LAST_WORDS_BYTES, max(0, size - _LAST_WORDS_BYTES))
        lines = tail.decode(errors="replace").strip().splitlines()
        return f"the courier died {self._deaths} times: {lines[-1] if lines else 'without a word'}"


def _is_troubled(left: Left) -> bool:
    """Tell whether whatever is left was tried in vain."""
    refused = {name for name, _ in left.status.refused}
    return bool(left.status.trouble) or set(left.waiting) <= refused
