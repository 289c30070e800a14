"""Fronts and trials as text, tables and plain data."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from io import StringIO
from typing import TYPE_CHECKING

from optimizer.front import Front
from optimizer.records import TrialRecord
from search_spaces.deployment import Deployment, Scalar
from search_spaces.metrics import METRICS
from search_spaces.space import Objective
from trials.measurement import Estimate, Quality
from trials.outcome import Completed, Failed, Infeasible

if TYPE_CHECKING:
    from rich.table import Table

_SIGNIFICANT = 3
_MANY_DIGITS = 1e5
_NARROW = 40  # characters of trial and deployment
_CELL, _WIDE_CELL = 15, 30  # characters of an interval alone, and with its value before it


def text_of(estimate: Estimate) -> str:
    """Write a value with its interval, as ``1.23 [1.20, 1.27]``; ``∞`` where it is unbounded."""
    low = "−∞" if estimate.low is None else number(estimate.low)
    high = "∞" if estimate.high is None else number(estimate.high)
    if estimate.low == estimate.value == estimate.high:
        return number(estimate.value)
    return f"{number(estimate.value)} [{low}, {high}]"


def number(value: float) -> str:
    """Write a number with three significant digits, large ones in thousands."""
    if abs(value) >= _MANY_DIGITS:
        return f"{value:,.0f}"
    if abs(value) >= 10**_SIGNIFICANT:
        return f"{value:,.0f}"
    return f"{value:.{_SIGNIFICANT}g}"


def table_of_front(front: Front, verdicts: Mapping[int, Quality], *, width: int) -> "Table":
    """Lay the front out for a terminal of ``width`` characters, the knee marked.

    On a narrow terminal the interval stands below its value: nothing is cut off.
    """
    from rich.table import Table
    from rich.text import Text  # brackets are markup to rich, and intervals to us

    table = Table(header_style="bold", pad_edge=False, box=None, collapse_padding=True)
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("deployment", overflow="fold")
    labels = [objective.metric.label for objective in front.objectives]
    if verdicts:
        labels.append(f"{_verdict_label(verdicts)} on report split")
    for label in labels:
        table.add_column(Text(label), justify="right", min_width=_CELL)
    is_narrow = width < _NARROW + len(labels) * _WIDE_CELL
    for record in front.members:
        estimates: list[Estimate | None] = [
            _measured(record, objective) for objective in front.objectives
        ]
        if verdicts:
            verdict = verdicts.get(record.number)
            estimates.append(None if verdict is None else verdict.scores[0][1])
        is_knee = front.knee is record
        table.add_row(
            f"{'*' if is_knee else ''}{record.number}",
            Text(short(record.outcome.deployment)),
            *(Text(_cell(estimate, is_narrow=is_narrow)) for estimate in estimates),
            style="bold" if is_knee else None,
        )
    return table


def short(deployment: Deployment) -> str:
    """Write a deployment in few characters, as ``cnn int8 b8 c2 threads=1``."""
    options = " ".join(f"{name}={value}" for name, value in deployment.options)
    return (
        f"{deployment.variant} {deployment.precision.value} b{deployment.batch_size} "
        f"c{deployment.concurrency} {options}"
    ).rstrip()


def summary_of_front(front: Front) -> Iterator[str]:
    """Yield the lines below the table: counts, hypervolume, and why deployments are missing."""
    counts = {
        "on the front": len(front.members),
        "dominated": len(front.dominated),
        "missing a bound": len(front.missed),
        "infeasible": len(front.infeasible),
        "failed": len(front.failed),
    }
    yield ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "no trials"
    if front.members:
        yield "b is the batch size, c the concurrency; 95 % intervals in brackets; * is the knee"
        yield f"hypervolume {front.hypervolume:.3f} of the box around the measured deployments"
    reasons: dict[str, int] = {}
    for record in (*front.infeasible, *front.failed):
        assert isinstance(record.outcome, Infeasible | Failed)
        reason = f"{record.outcome.state} ({record.outcome.kind}): {record.outcome.reason}"
        reasons[reason] = reasons.get(reason, 0) + 1
    for reason, count in sorted(reasons.items(), key=lambda item: -item[1]):
        yield f"{count} × {reason}"


def tables_of_trial(record: TrialRecord, verdict: Quality | None) -> Iterator["Table"]:
    """Lay everything about one trial out, a table a topic."""
    outcome = record.outcome
    yield _table(
        f"trial {record.number} of study {record.study}: {outcome.state}",
        [(axis, str(value)) for axis, value in outcome.deployment.axes()],
    )
    if not isinstance(outcome, Completed):
        yield _table("why", [(outcome.kind, outcome.reason)])
        return
    metrics = outcome.metrics()
    yield _table(
        "measured, with 95 % intervals"
        + (f" ({', '.join(outcome.flags)})" if outcome.flags else ""),
        [(_label(name), text_of(estimate)) for name, estimate in metrics.items()],
    )
    if verdict is not None:
        yield _table(
            f"on the report split, {verdict.samples} samples",
            [(_label(name), text_of(estimate)) for name, estimate in verdict.scores],
        )
    if outcome.quality is not None and outcome.quality.cohorts:
        yield _table(
            "by cohort",
            [
                (f"{cohort.cohort} ({cohort.samples})", text_of(cohort.score))
                for cohort in outcome.quality.cohorts
            ],
        )
    yield _table(
        "cost [s]",
        [(name, number(value)) for name, value in asdict(outcome.costs).items()],
    )
    yield _table("engine", [(name, str(value)) for name, value in asdict(outcome.engine).items()])
    yield _table("environment", list(outcome.environment.facts))


def data_of_front(front: Front, verdicts: Mapping[int, Quality]) -> dict[str, object]:
    """Return the front as one JSON document."""
    return {
        "objectives": {
            objective.metric.name: objective.direction.value for objective in front.objectives
        },
        "front": [data_of_trial(record, verdicts.get(record.number)) for record in front.members],
        "knee": None if front.knee is None else front.knee.number,
        "hypervolume": front.hypervolume,
        "counts": {
            "front": len(front.members),
            "dominated": len(front.dominated),
            "missed": len(front.missed),
            "infeasible": len(front.infeasible),
            "failed": len(front.failed),
        },
    }


def data_of_trial(record: TrialRecord, verdict: Quality | None) -> dict[str, object]:
    """Return one trial as JSON data."""
    outcome = record.outcome
    data: dict[str, object] = {
        "trial": record.number,
        "uid": record.uid,
        "study": record.study,
        "state": outcome.state,
        "deployment": dict(outcome.deployment.axes()),
    }
    if not isinstance(outcome, Completed):
        return data | {"kind": outcome.kind, "reason": outcome.reason}
    data["metrics"] = {
        name: {"value": estimate.value, "low": estimate.low, "high": estimate.high}
        for name, estimate in outcome.metrics().items()
    }
    data["flags"] = list(outcome.flags)
    if verdict is not None:
        data["report"] = {
            name: {"value": estimate.value, "low": estimate.low, "high": estimate.high}
            for name, estimate in verdict.scores
        }
    return data


def csv_of_records(records: Sequence[TrialRecord]) -> str:
    """Return trials as CSV: axes, then value, low and high of every metric."""
    rows = [_row(record) for record in records]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    buffer = StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _row(record: TrialRecord) -> dict[str, Scalar | None]:
    row: dict[str, Scalar | None] = {"trial": record.number, "state": record.outcome.state}
    row.update(record.outcome.deployment.axes())
    if isinstance(record.outcome, Completed):
        for name, estimate in record.outcome.metrics().items():
            row |= {
                name: estimate.value,
                f"{name}.low": estimate.low,
                f"{name}.high": estimate.high,
            }
    return row


def _table(title: str, rows: Sequence[tuple[str, str]]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(title), title_justify="left", show_header=False, box=None, pad_edge=False
    )
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _label(name: str) -> str:
    return METRICS[name].label if name in METRICS else name


def _measured(record: TrialRecord, objective: Objective) -> Estimate:
    assert isinstance(record.outcome, Completed)
    return record.outcome.metric(objective.metric.name)


def _verdict_label(verdicts: Mapping[int, Quality]) -> str:
    return _label(next(iter(verdicts.values())).scores[0][0])


def _cell(estimate: Estimate | None, *, is_narrow: bool) -> str:
    if estimate is None:
        return ""
    text = text_of(estimate)
    return text.replace(" [", "\n[", 1) if is_narrow else text
