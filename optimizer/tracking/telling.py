"""The wait for a courier, as people see it: how much is left, and what remains when it is over."""

import time
from collections.abc import Collection
from typing import TYPE_CHECKING

from optimizer.tracking.courier import Courier, Left, WaitLimits
from optimizer.tracking.status import Status

if TYPE_CHECKING:
    from rich.console import Console

_PLAIN_S = 2.0  # a wait so short is no line in a log


def waited_for(
    courier: Courier, names: Collection[str], *, limits: WaitLimits, console: "Console"
) -> Left:
    """Wait for a courier with a line that says how much is left; Ctrl-C ends the wait.

    Raises:
        WorkspaceError: The gate cannot be made.
    """
    began_s = time.monotonic()
    said = False
    with console.status("") as line:

        def show(left: int, status: Status) -> None:
            nonlocal said
            text = f"telling MLflow {courier.destination.name}: {left} records left"
            line.update(f"{text} ({status.trouble})" if status.trouble else text)
            late = time.monotonic() - began_s > _PLAIN_S
            if late and not said and not console.is_terminal:
                said = True
                console.print(text, highlight=False, markup=False, soft_wrap=True)

        try:
            return courier.wait(names, limits=limits, on_progress=show)
        except KeyboardInterrupt:
            return courier.left(names)


def what_is_left(left: Left, name: str) -> str:
    """Say in one line what still waits, and why."""
    count = f"{len(left.waiting)} records wait on the disk"
    status = left.status
    mine = [why for record, why in status.refused if record in left.waiting]
    if left.problem:
        return f"MLflow {name}: {left.problem}; {count}"
    if status.trouble:
        return f"{status.trouble}; {count}"
    if mine:
        return f"{mine[0]}; {count}"
    return f"MLflow {name}: not all was told yet; {count}"
