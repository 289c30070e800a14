"""How far a command is that does many things alike."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Counter:
    """Shows how many of a number of things are done, and what is done now."""

    def __init__(self, progress: "Progress", task: "TaskID") -> None:
        self._progress, self._task = progress, task

    def say(self, text: str) -> None:
        """Say what is done now."""
        self._progress.update(self._task, now=text)

    def count(self) -> None:
        """Count one more."""
        self._progress.advance(self._task)


@contextmanager
def counted(total: int, *, begin: str) -> Iterator[Counter]:
    """Show on standard error how far it is, as long as this lasts.

    Args:
        total: How many things there are to do.
        begin: What is said before the first one.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    now = TextColumn("{task.fields[now]}", markup=False)
    with Progress(*columns, now, console=Console(stderr=True), transient=True) as progress:
        yield Counter(progress, progress.add_task("", total=total, now=begin))
