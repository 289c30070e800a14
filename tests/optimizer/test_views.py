"""Views of a running search: plain lines in a pipe, a panel on a terminal."""

import re
from collections.abc import Sequence
from io import StringIO
from itertools import islice

from rich.console import Console
from search_fakes import failed, infeasible, measured, record_of

from optimizer.front.front import Front, front_of
from optimizer.search.views import PanelView, PlainView, line_of, opened_view
from optimizer.study.records import TrialRecord
from search_spaces.space import SearchSpace


def front(space: SearchSpace, records: Sequence[TrialRecord]) -> Front:
    return front_of(records, space.objectives, space.constraints)


def console(*, is_terminal: bool, width: int = 80) -> Console:
    return Console(
        file=StringIO(), force_terminal=is_terminal, width=width, height=24, color_system=None
    )


def text(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())


def panel(console: Console, *, total: int | None = 5) -> PanelView:
    return PanelView(console, total=total, done=0)


def now(view: PanelView) -> str:
    """Draw what the panel shows at this moment."""
    printer = console(is_terminal=False)
    printer.print(view.live.get_renderable())
    return text(printer)


def test_pipe_gets_plain_lines_and_a_terminal_a_panel() -> None:
    with opened_view(console(is_terminal=False), total=1, done=0) as plain:
        assert isinstance(plain, PlainView)
    with opened_view(console(is_terminal=True), total=1, done=0) as live:
        assert isinstance(live, PanelView)


def test_plain_view_prints_one_line_per_trial_with_intervals(space: SearchSpace) -> None:
    printer = console(is_terminal=False, width=40)  # narrower than the line
    view = PlainView(printer)
    record = record_of(0, measured(next(space.deployments())))

    view.began(0, record.outcome.deployment)
    view.phase("measure")
    view.ended(record, front(space, [record]))
    view.note("a [note] in brackets")

    first, second = text(printer).splitlines()
    assert first.startswith("   0 front      large fp32 b1 c1 threads=1  latency_p99_ms 1 [")
    assert second == "a [note] in brackets"


def test_line_says_where_the_trial_stands(space: SearchSpace) -> None:
    ones = list(space.deployments())
    best, worse = sorted(ones[:2], key=lambda one: measured(one).metric("latency_p99_ms").value)
    records = [
        record_of(0, measured(best)),
        record_of(1, measured(worse)),
        record_of(2, infeasible(ones[2])),
        record_of(3, failed(ones[3])),
    ]

    lines = [line_of(one, front(space, records), with_intervals=False) for one in records]

    assert [line.split()[1] for line in lines] == ["front", "dominated", "infeasible", "failed"]
    assert lines[2].endswith(": needs 25 GB of 24 GB")
    assert "[" not in lines[0]


def test_panel_shows_which_deployment_runs_and_in_which_step(space: SearchSpace) -> None:
    view = panel(console(is_terminal=True))

    view.began(3, next(space.deployments()))
    view.phase("measure")

    assert "trial 3: large fp32 b1 c1 threads=1  measure 0 s" in now(view)


def test_panel_never_shows_the_step_of_an_earlier_trial(space: SearchSpace) -> None:
    view = panel(console(is_terminal=True))
    one, two = islice(space.deployments(), 2)
    record = record_of(0, measured(one))
    view.began(0, one)
    view.phase("score")

    view.ended(record, front(space, [record]))
    between = now(view)
    view.began(1, two)

    assert "score" not in between
    assert "between trials" in between
    assert "score" not in now(view)


def test_panel_shows_progress_bests_and_front(space: SearchSpace) -> None:
    view = panel(console(is_terminal=True), total=5)
    record = record_of(0, measured(next(space.deployments())))

    view.ended(record, front(space, [record]))

    shown = now(view)
    assert "1/5" in shown
    assert "best latency_p99_ms: 1 [0.99, 1.01]  trial 0" in shown
    assert "front 1 deployments, hypervolume" in shown


def test_retry_of_a_fault_does_not_advance_the_bar(space: SearchSpace) -> None:
    """The budget counts deployments, so a bar that counts trials would run over its end."""
    view = panel(console(is_terminal=True), total=2)
    one, two = islice(space.deployments(), 2)
    records = [record_of(0, failed(one)), record_of(1, failed(one)), record_of(2, failed(two))]

    for record in (*records, record_of(3, measured(two))):
        view.ended(record, front(space, []))

    assert "2/2" in now(view)


def test_panel_without_a_count_says_how_many_were_tried(space: SearchSpace) -> None:
    view = panel(console(is_terminal=True), total=None)
    record = record_of(0, measured(next(space.deployments())))

    view.ended(record, front(space, [record]))

    assert "1/?" in now(view)


def test_height_of_the_panel_does_not_jump_on_a_narrow_terminal(space: SearchSpace) -> None:
    """A line that wraps would move everything below it at each redraw."""
    view = panel(console(is_terminal=True))
    record = record_of(0, measured(next(space.deployments())))
    view.ended(record, front(space, [record]))

    printer = console(is_terminal=False, width=30)
    printer.print(view.live.get_renderable())

    objectives = len(space.objectives)
    assert len(text(printer).splitlines()) == 1 + 1 + objectives + 1  # bar, now, bests, front


def test_lines_of_ended_trials_stay_when_the_panel_has_gone(space: SearchSpace) -> None:
    printer = console(is_terminal=True)
    record = record_of(0, measured(next(space.deployments())))

    with opened_view(printer, total=1, done=0) as view:
        view.note("study 'tiny'")
        view.ended(record, front(space, [record]))

    shown = text(printer)
    assert "study 'tiny'" in shown
    assert "   0 front      large fp32 b1 c1 threads=1" in shown
