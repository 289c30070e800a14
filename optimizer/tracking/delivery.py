"""Deliver what waits in one spool: in order, each record once, none held up by another for ever.

Records are tried in the order in which they were written. What MLflow says of one record is that
record's own trouble: it waits, later ones go first, except those of the same run, whose order
matters. It is tried again after a pause that doubles. An MLflow that does not answer, or that has
refused several records in a row, is left alone for a while, and all wait.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from traceback import format_exception_only
from typing import Protocol

from optimizer.errors import OptimizerError, TrackingError, UnavailableError, WorkspaceError
from optimizer.tracking.ledger import Delivered, Ledger
from optimizer.tracking.messages import CertificateGiven, FrontFound, Message, TrialEnded
from optimizer.tracking.patience import Patience, queues_of, uid_of
from optimizer.tracking.publisher import Result
from optimizer.tracking.runs import Step
from optimizer.tracking.spool import Parcel, Spool, label_of

_REPLACED = ("certificate-", "front-")  # labels of records of which only the latest counts
_IN_A_ROW = 3  # refusals of different records, after which the fault is MLflow's


class Publishes(Protocol):
    """Who tells MLflow: once, however often it is called; raises as ``Publisher.publish``."""

    def publish(self, parcel: Parcel) -> Result:
        """Tell one message."""
        ...


@dataclass(slots=True)
class Tally:
    """What came of the deliveries so far.

    Attributes:
        delivered: Records that MLflow was told.
        found: Records that MLflow had already, or whose run was deleted there.
        refused: Why a record could not be delivered when it was last tried, by name; also of those
            that were not tried because an earlier record of the same run waits.
        trouble: Why nothing can be delivered now, and the mend; empty where something can.
    """

    delivered: int = 0
    found: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    trouble: tuple[str, str] = ("", "")


class Delivery:
    """Delivers one spool; for the one process that holds its lock.

    Attributes:
        tally: What came of it so far.
    """

    def __init__(
        self,
        spool: Spool,
        ledger: Ledger,
        publisher: Callable[[], Publishes],
        *,
        step: Step,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Deliver through a publisher.

        Args:
            spool: What waits.
            ledger: What was delivered.
            publisher: Opens MLflow; called again where it failed.
            step: Entered around work of our own.
            clock: Seconds, for pauses.
        """
        self.tally = Tally()
        self._spool = spool
        self._ledger = ledger
        self._open = publisher
        self._publisher: Publishes | None = None
        self._step = step
        self._patience = Patience(clock)

    def attempt(self) -> float | None:
        """Deliver what can be delivered now.

        Returns:
            Seconds until another attempt makes sense; None where nothing waits.
        """
        waiting = self._waiting()
        if waiting and self._patience.is_over():
            self._attempt_all(waiting)
            waiting = self._waiting()
        self._patience.forget_all_but(waiting)
        queues = queues_of(waiting).values()
        refused = self.tally.refused
        self.tally.refused = {}
        for first, *later in queues:
            if first in refused:
                held_up = dict.fromkeys(later, "an earlier record of the same run waits")
                self.tally.refused |= {first: refused[first], **held_up}
        return self._patience.wait_s([first for first, *_ in queues])

    def _waiting(self) -> tuple[str, ...]:
        """Look what waits, without what a later one of the same study replaces."""
        with self._step():
            names = self._spool.waiting()
            latest = {label_of(name): name for name in names}
            replaced = {
                name
                for name in names
                if label_of(name).startswith(_REPLACED) and latest[label_of(name)] != name
            }
            for name in replaced:
                with suppress(WorkspaceError):  # the disk is full: it is passed over all the same
                    self._spool.remove(name)
            return tuple(name for name in names if name not in replaced)

    def _attempt_all(self, waiting: tuple[str, ...]) -> None:
        with self._step():
            queues, order = queues_of(waiting), self._patience.order(waiting)
        in_a_row = 0
        for name in order:
            queue = queues[uid_of(name)]
            if queue[0] != name or not self._patience.is_due(name):
                continue
            try:
                self._deliver(name)
            except UnavailableError as error:
                self._patience.record_failed(name)
                self._rest(error)
                return
            except Exception as error:  # noqa: BLE001 -- a bug in one must not hold up the others
                self._refuse(name, _line(error))
                in_a_row += 1
                if in_a_row == _IN_A_ROW:
                    self._rest(error)
                    return
            else:
                queue.popleft()
                in_a_row = 0

    def _refuse(self, name: str, why: str) -> None:
        self.tally.refused[name] = why
        self.tally.trouble = ("", "")  # it answers
        self._patience.record_failed(name)

    def _deliver(self, name: str) -> None:
        publisher = self._opened()
        with self._step():
            parcel = self._spool.read(name)
        message = parcel.envelope.message
        result = publisher.publish(parcel)
        if not self._is_whole(message):
            self._refuse(name, "its trials wait themselves, to be marked when they come")
            return
        blocks = isinstance(message, TrialEnded) and message.blocks is not None
        with self._step():
            self._ledger.append(Delivered(label=label_of(name), result=result, blocks=blocks))
            self._spool.remove(name)
        if result == "delivered":
            self.tally.delivered += 1
        else:
            self.tally.found += 1
        self.tally.trouble = ("", "")
        self._patience.succeeded()

    def _opened(self) -> Publishes:
        """Open MLflow once.

        Raises:
            UnavailableError: It cannot be opened, whatever the reason.
        """
        if self._publisher is None:
            try:
                self._publisher = self._open()
            except TrackingError as error:
                raise UnavailableError(str(error), hint=error.hint) from error
        return self._publisher

    def _is_whole(self, message: Message) -> bool:
        """Tell whether all that a message marks is in MLflow; most stand alone."""
        match message:
            case FrontFound(members=members):
                marked = members
            case CertificateGiven(trials=trials):
                marked = tuple(one.uid for one in trials)
            case _:
                return True
        with self._step():
            waiting = self._spool.labels()
        return not any(f"trial-{uid}" in waiting for uid in marked)

    def _rest(self, error: Exception) -> None:
        hint = error.hint if isinstance(error, OptimizerError) else ""
        self.tally.trouble = (_line(error), hint)
        self._patience.all_failed()


def _line(error: Exception) -> str:
    """Say in one line what went wrong, foreseen or not."""
    if isinstance(error, OptimizerError):
        return str(error)
    return format_exception_only(error)[-1].strip().splitlines()[0]
