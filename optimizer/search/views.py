"""Who watches a search: a live panel on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from optimizer.front.front import Front
from optimizer.front.words import number, short, text_of
from optimizer.search.search import View
from optimizer.study.records import TrialRecord
from search_spaces.deployment import Deployment
from search_spaces.space import Objective
from trials.measurement import Estimate
from trials.outcome import Completed

if TYPE_CHECKING:
    from rich.console import Console, Group

_REFRESHES_PER_S = 4  # a redraw costs about 2 ms; measurements share the machine with it


class PlainView:
    """One line per trial, for logs and pipes."""

    def __init__(self, console: "Console") -> None:
        self._console = console

    def began(self, number: int, deployment: Deployment) -> None:
        """Say nothing: the line comes when there is something to say."""

    def phase(self, name: str) -> None:
        """Say nothing."""

    def ended(self, record: TrialRecord, front: Front) -> None:
        """Print the trial's line, with intervals: a log is read by whoever doubts a number."""
        line = line_of(record, front, with_intervals=True)
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """Print the note."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


class PanelView:
    """A panel that is redrawn in place: progress, the running trial, the best values."""

    def __init__(self, console: "Console", *, total: int | None, done: int) -> None:
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

        self._console = console
        self._progress = Progress(
            "[bold]{task.description}",
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._progress.add_task("searching", total=total, completed=done)
        self._running = ""
        self._began = time.monotonic()
        self._phase = ""
        self._front: Front | None = None
        self._failed: set[Deployment] = set()
        self.live = Live(
            console=console,
            get_renderable=self._draw,
            refresh_per_second=_REFRESHES_PER_S,
            transient=True,
        )

    def began(self, number: int, deployment: Deployment) -> None:
        """Show which deployment runs."""
        self._running = f"trial {number}: {short(deployment)}"
        self._phase = ""
        self._began = time.monotonic()

    def phase(self, name: str) -> None:
        """Show which step it is in."""
        self._phase = name

    def ended(self, record: TrialRecord, front: Front) -> None:
        """Count the deployment and keep the trial's line above the panel."""
        self._front = front
        self._running = self._phase = ""
        self._began = time.monotonic()
        if record.outcome.deployment not in self._failed:  # else a retry, which costs no trial
            self._progress.advance(self._task)
        if record.outcome.state == "failed":
            self._failed.add(record.outcome.deployment)
        line = line_of(record, front, with_intervals=False)
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """Keep the note above the panel."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _draw(self) -> "Group":
        from rich.console import Group
        from rich.text import Text

        lines = [self._now()]
        if self._front is not None and self._front.members:
            lines += _bests(self._front)
            lines.append(
                f"front {len(self._front.members)} deployments, "
                f"hypervolume {self._front.hypervolume:.3f}"
            )
        # one terminal line each: a panel whose height jumps flickers
        texts = [Text(line, no_wrap=True, overflow="ellipsis") for line in lines]
        texts[0].stylize("dim")
        return Group(self._progress, *texts)

    def _now(self) -> str:
        """Say what goes on at this moment."""
        seconds = f"{time.monotonic() - self._began:.0f} s"
        if not self._running:
            doing = self._phase or "keeping the last, choosing the next"
            return f"between trials: {doing}  {seconds}"
        return f"{self._running}  {self._phase} {seconds}"


@contextmanager
def opened_view(console: "Console", *, total: int | None, done: int) -> Iterator[View]:
    """Open the view that suits the console.

    Args:
        console: Where to draw.
        total: Trials in the budget, or None where it is not counted in trials.
        done: Trials that earlier sessions ended.
    """
    if not console.is_terminal:
        yield PlainView(console)
        return
    panel = PanelView(console, total=total, done=done)
    with panel.live:
        yield panel


def line_of(record: TrialRecord, front: Front, *, with_intervals: bool) -> str:
    """Write one ended trial as a line."""
    outcome = record.outcome
    head = f"{record.number:4d} {_standing(record, front):10s} {short(outcome.deployment)}"
    if not isinstance(outcome, Completed):
        return f"{head}: {outcome.reason}"
    write = text_of if with_intervals else _value_of
    measured = "  ".join(
        f"{objective.metric.name} {write(outcome.metric(objective.metric.name))}"
        for objective in front.objectives
    )
    flags = f"  ({', '.join(outcome.flags)})" if outcome.flags else ""
    return f"{head}  {measured}{flags}"


def _standing(record: TrialRecord, front: Front) -> str:
    if not isinstance(record.outcome, Completed):
        return record.outcome.state
    candidate = front.candidate(record)
    if candidate is not None:
        return "front" if candidate.is_member else "tie"
    return "misses" if record in front.missed else "dominated"


def _value_of(estimate: Estimate) -> str:
    return number(estimate.value)


def _bests(front: Front) -> Iterator[str]:
    for objective in front.objectives:
        best = min(front.members, key=lambda record: _cost(record, objective))
        value = text_of(_estimate(best, objective))
        yield f"best {objective.metric.name}: {value}  trial {best.number}"


def _estimate(record: TrialRecord, objective: Objective) -> Estimate:
    assert isinstance(record.outcome, Completed)
    return record.outcome.metric(objective.metric.name)


def _cost(record: TrialRecord, objective: Objective) -> float:
    value = _estimate(record, objective).value
    return value if objective.better(0.0, 1.0) else -value
