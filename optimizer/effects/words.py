"""An effect as a table and lines for people, and as one JSON document."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from optimizer.effects.effect import Effect, MetricEffect, Step, Trend
from optimizer.front.words import number, text_of

if TYPE_CHECKING:
    from rich.table import Table

_FEWEST = 6  # pairs; with fewer there is no interval


def table_of_effect(found: Effect) -> "Table":
    """Lay the steps out: how many pairs, and what each does to each metric."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(found.axis)
    for one in found.metrics:
        table.add_column(Text(one.metric.label), justify="right", overflow="fold")
    for at, step in enumerate(found.metrics[0].steps):
        cells = [_of_step(one, one.steps[at]) for one in found.metrics]
        table.add_row(*map(Text, (f"{step.before} → {step.after}", str(len(step.pairs)), *cells)))
    return table


def lines_of_effect(found: Effect) -> Iterator[str]:
    """Yield what stands below the table: turns, what cannot be told, and how to read it."""
    for one in found.metrics:
        if one.turn is not None:
            yield f"{one.metric.name} {one.turn}"
    lacking: dict[str, list[str]] = {}
    for one in found.metrics:
        for step in one.steps:
            if len(step.pairs) < _FEWEST:
                lacking.setdefault(f"{step.before} → {step.after}", []).append(one.metric.name)
    steps = (
        name if len(metrics) == len(found.metrics) else f"{name} in {' and '.join(metrics)}"
        for name, metrics in lacking.items()
    )
    if lacking:
        yield f"too few pairs to tell (fewer than {_FEWEST}): {', '.join(steps)}"
    if found.contended:
        yield f"{found.contended} of {found.trials} trials were measured beside other work"
    yield "× is the typical ratio after / before, + and - a difference; 95 % intervals in brackets"
    yield "behind it the number of pairs that differ in this axis alone; ? where it cannot be told"


def data_of_effect(found: Effect) -> dict[str, object]:
    """Return an effect as JSON data."""
    return {
        "axis": found.axis,
        "trials": found.trials,
        "contended": found.contended,
        "metrics": {
            one.metric.name: {
                "kind": "ratio" if one.is_ratio else "difference",
                "turn": one.turn,
                "steps": [asdict(step) for step in one.steps],
            }
            for one in found.metrics
        },
    }


def _of_step(one: MetricEffect, step: Step) -> str:
    if step.effect is None:
        return "no pair"
    sign = "×" if one.is_ratio else "+" if step.effect.value >= 0 else ""
    text = f"{sign}{text_of(step.effect)}"
    if step.effect.low is None:
        text = f"{sign}{number(step.effect.value)}"
    doubt = " ?" if step.trend is Trend.UNDECIDED else ""
    return f"{text}{doubt} ({len(step.pairs)})"
