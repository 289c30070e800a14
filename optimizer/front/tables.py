"""Fronts and trials as text, tables and plain data."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from io import StringIO
from typing import TYPE_CHECKING

from optimizer.front.front import Front
from optimizer.study.records import TrialRecord
from search_spaces.deployment import Deployment, Scalar
from search_spaces.metrics import METRICS
from trials.measurement import Estimate, Quality
from trials.outcome import Completed, Failed, Infeasible

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_SIGNIFICANT = 3
_THOUSAND = 999.5  # rounds to 1,000
_LEAST_DEPLOYMENT = 11  # characters; below it the deployment's words break


def text_of(estimate: Estimate) -> str:
    """Write a value with its interval, as ``1.23 [1.20, 1.27]``; ``∞`` where it is unbounded."""
    low = "−∞" if estimate.low is None else number(estimate.low)
    high = "∞" if estimate.high is None else number(estimate.high)
    if estimate.low == estimate.value == estimate.high:
        return number(estimate.value)
    return f"{number(estimate.value)} [{low}, {high}]"


def number(value: float) -> str:
    """Write a number with three significant digits, large ones whole and in thousands."""
    if abs(value) >= _THOUSAND:
        return f"{value:,.0f}"
    return f"{value:.{_SIGNIFICANT}g}"


def table_of_front(front: Front, verdicts: Mapping[int, Quality], *, width: int) -> "Table":
    """Lay the front out for a terminal of ``width`` characters, the knee marked.

    On a narrow terminal the interval stands below its value, on a very narrow one its limits below
    each other: nothing is cut off.
    """
    from rich.table import Table
    from rich.text import Text  # brackets are markup to rich, and intervals to us

    table = Table(header_style="bold", pad_edge=False, box=None, collapse_padding=True)
    table.add_column("trial", justify="right", no_wrap=True)
    labels = [objective.metric.label for objective in front.objectives]
    if verdicts:
        labels.append(f"{_verdict_label(verdicts)} on report split")
    rows = [_estimates(record, front, verdicts) for record in front.members]
    names = [short(record.outcome.deployment) for record in front.members]
    numbers = [f"{'*' if front.knee is one else ''}{one.number}" for one in front.members]
    taken = max(map(len, ("trial", *numbers))) + 1
    write, widths = _layout(rows, labels, names, width - taken)
    table.add_column("deployment", overflow="fold", width=widths[0])
    for label, wide in zip(labels, widths[1:], strict=True):
        table.add_column(Text(label), justify="right", overflow="fold", width=wide)
    for shown, name, estimates in zip(numbers, names, rows, strict=True):
        table.add_row(
            shown,
            Text(name),
            *(Text("" if one is None else write(one)) for one in estimates),
            style="bold" if shown.startswith("*") else None,
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


def topics_of_trial(
    record: TrialRecord, verdict: Quality | None
) -> Iterator[tuple[str, Sequence[tuple[str, str]]]]:
    """Yield everything about one trial: a heading and rows of (name, value), topic by topic."""
    outcome = record.outcome
    yield (
        f"trial {record.number} of study {record.study}: {outcome.state}",
        [(axis, str(value)) for axis, value in outcome.deployment.axes()],
    )
    if not isinstance(outcome, Completed):
        yield "why", [(outcome.kind, outcome.reason)]
        yield "environment", outcome.environment.facts
        return
    flags = f" ({', '.join(outcome.flags)})" if outcome.flags else ""
    yield f"measured, with 95 % intervals{flags}", _written(outcome.metrics().items())
    if verdict is not None:
        yield f"on the report split, {verdict.samples:,} samples", _written(verdict.scores)
    if outcome.quality is not None and outcome.quality.cohorts:
        yield (
            "by cohort",
            [
                (f"{cohort.cohort} ({cohort.samples})", text_of(cohort.score))
                for cohort in outcome.quality.cohorts
            ],
        )
    costs = asdict(outcome.costs).items()
    yield (
        "cost, 0 where the store had it",
        [(_in_seconds(one), number(value)) for one, value in costs],
    )
    yield "engine", [(name, str(value)) for name, value in asdict(outcome.engine).items()]
    yield "environment", outcome.environment.facts


def tables_of_trial(
    record: TrialRecord, verdict: Quality | None
) -> Iterator["tuple[Text, Table]"]:
    """Lay everything about one trial out: a heading and a table a topic."""
    from rich.table import Table
    from rich.text import Text

    for heading, rows in topics_of_trial(record, verdict):
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(style="dim")
        table.add_column(overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        yield Text(heading, style="italic"), table


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


def _written(estimates: Iterable[tuple[str, Estimate]]) -> list[tuple[str, str]]:
    return [(_label(name), text_of(estimate)) for name, estimate in estimates]


def _in_seconds(cost: str) -> str:
    return f"{cost.removesuffix('_s').replace('_', ' ')} [s]"


def _label(name: str) -> str:
    return METRICS[name].label if name in METRICS else name


def _estimates(
    record: TrialRecord, front: Front, verdicts: Mapping[int, Quality]
) -> list[Estimate | None]:
    """Return what stands in a member's row; the last is its verdict where there are any."""
    assert isinstance(record.outcome, Completed)
    found: list[Estimate | None] = [
        record.outcome.metric(objective.metric.name) for objective in front.objectives
    ]
    if verdicts:
        verdict = verdicts.get(record.number)
        found.append(None if verdict is None else verdict.scores[0][1])
    return found


def _verdict_label(verdicts: Mapping[int, Quality]) -> str:
    return _label(next(iter(verdicts.values())).scores[0][0])


def _layout(
    rows: Sequence[Sequence[Estimate | None]],
    labels: Sequence[str],
    names: Sequence[str],
    width: int,
) -> tuple[Callable[[Estimate], str], list[int | None]]:
    """Choose how intervals are written: in the fewest lines that fit ``width``.

    Returns:
        What writes an estimate, and the widths of the columns from ``deployment`` on, which rich
        would else squeeze where it should not.
    """
    columns = list(zip(*rows, strict=True)) or [() for _ in labels]
    longest = max((len("deployment"), *map(len, names)))
    for write, least in (
        (text_of, longest),
        (_in_two_lines, _LEAST_DEPLOYMENT),
        (_in_three_lines, _LEAST_DEPLOYMENT),
    ):
        widths = [
            _widest([label.replace(" ", "\n"), *(write(one) for one in column if one is not None)])
            for label, column in zip(labels, columns, strict=True)
        ]
        # one space behind every column, the last one too
        left = width - 1 - sum(1 + one for one in widths)
        if left >= least:
            return write, [min(left, longest), *widths]
    return _in_three_lines, [None] * (1 + len(labels))  # so narrow that numbers break


def _widest(texts: Iterable[str]) -> int:
    return max(len(line) for text in texts for line in text.splitlines())


def _in_two_lines(estimate: Estimate) -> str:
    return text_of(estimate).replace(" [", "\n[", 1)


def _in_three_lines(estimate: Estimate) -> str:
    return _in_two_lines(estimate).replace(", ", ",\n", 1)
