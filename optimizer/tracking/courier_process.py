"""The courier: the background process that delivers one destination's spool to MLflow.

``courier`` starts it as ``python -m optimizer.tracking.courier_process`` and writes one line, the
order, to its standard input; each byte after it is a nudge, and the end of the input means: end
when nothing waits. It dies with its owner. Of several couriers of one destination one delivers,
the others wait until it is gone. What it has to say stands in the destination's ``status.json``.
"""

import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from optimizer.study.owner import this_process
from optimizer.tracking.destination import Destination
from optimizer.tracking.gate import Passage
from optimizer.tracking.status import Status, write_status
from trials.isolation.process import follow_parent
from trials.store.locks import locked

if TYPE_CHECKING:
    from optimizer.tracking.delivery import Delivery, Tally
    from optimizer.tracking.publisher import Publisher

_LOOK_S = 1.0  # for records of other searches, which nudge their own couriers
_NICE = 5  # beside the preparing of a trial, whose cost is reported
_SAY_S = 0.2  # how often a courier in the middle of a record says that it moves
_NUDGES = 4096  # bytes; nudges that came together are one


class Order(BaseModel):
    """What a courier is to do.

    Attributes:
        owner: Process id of whoever started it.
        spool: The spool of the workspace, with the gate.
        destination: Where to, secrets included, which is why it is no argument.
        gate: Descriptor by which the courier was born inside the gate.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    owner: int
    spool: Path
    destination: Destination
    gate: int


class Teller:
    """Writes the status: where something has changed, and not too often."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._steps = 0
        self._said_s = 0.0
        self._said: Status | None = None

    def step_taken(self, tally: "Tally") -> None:
        """Count a step and say so where it is time."""
        self._steps += 1
        if time.monotonic() - self._said_s >= _SAY_S:
            self.say(tally)

    def say(self, tally: "Tally") -> None:
        """Write the status now, if it is another."""
        self._said_s = time.monotonic()
        trouble, hint = tally.trouble
        status = Status(
            courier=this_process(),
            steps=self._steps,
            delivered=tally.delivered,
            found=tally.found,
            refused=tuple(sorted(tally.refused.items())),
            trouble=trouble,
            hint=hint,
        )
        if status != self._said:
            write_status(self._folder, status)
            self._said = status


def serve(order: Order, wait: Callable[[float], bool]) -> None:
    """Deliver until the owner has hung up and nothing waits.

    Args:
        order: Where and what.
        wait: Waits for so many seconds or a nudge; tells whether the owner has hung up.
    """
    passage = Passage(order.spool, held=order.gate)
    with passage.step():
        pass  # born inside; what follows may wait for another courier
    with locked(order.destination.folder / "delivering"):
        with passage.step():
            teller = Teller(order.destination.folder)
            delivery = _delivery(order, passage, teller)
        _deliver(delivery, teller, passage, wait)


def _deliver(
    delivery: "Delivery", teller: Teller, passage: Passage, wait: Callable[[float], bool]
) -> None:
    hung_up = False
    while True:
        again_s = delivery.attempt()
        with passage.step():
            teller.say(delivery.tally)
        if again_s is None and hung_up:
            return
        pause_s = _LOOK_S if again_s is None else min(again_s, _LOOK_S)
        if hung_up:
            time.sleep(pause_s)
        else:
            hung_up = wait(pause_s)


def _delivery(order: Order, passage: Passage, teller: Teller) -> "Delivery":
    from optimizer.tracking.delivery import Delivery
    from optimizer.tracking.ledger import Ledger
    from optimizer.tracking.spool import Spool

    destination = order.destination
    spool = Spool(destination.folder)
    spool.sweep()

    @contextmanager
    def step() -> Iterator[None]:
        with passage.step():
            yield
            teller.step_taken(delivery.tally)

    def opened() -> "Publisher":
        with step():  # to import it is work too
            from optimizer.tracking.client import open_publisher

            return open_publisher(destination, step)

    # only what concerns MLflow counts as a step forward; looking for records does not
    delivery = Delivery(spool, Ledger(destination.folder), opened, step=passage.step)
    return delivery


def _wait(seconds: float) -> bool:
    ready, _, _ = select.select([sys.stdin.fileno()], [], [], seconds)
    return bool(ready) and os.read(sys.stdin.fileno(), _NUDGES) == b""


def _first_line() -> bytes:
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(sys.stdin.fileno(), 1)):
        line += byte  # and nothing of what follows, which is a nudge
    return line


def main() -> None:
    """Serve the order on standard input."""
    order = Order.model_validate_json(_first_line())
    follow_parent(order.owner)
    os.set_inheritable(order.gate, False)  # noqa: FBT003 - the library's own form
    os.nice(_NICE)
    serve(order, _wait)


if __name__ == "__main__":
    main()
