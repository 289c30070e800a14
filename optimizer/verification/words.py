"""Findings as lines for people and as one JSON document."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from optimizer.front.words import label, text_of, text_of_difference
from optimizer.verification.findings import Findings, ScoreFinding
from trials.measuring.comparison import Verdict
from trials.scoring.agreement import Agreement, Predictions

if TYPE_CHECKING:
    from rich.table import Table


def lines_of(findings: Findings) -> Iterator[str]:
    """Yield everything but the speeds, which are a table of their own."""
    yield findings.subject
    yield from findings.facts
    for output in findings.outputs:
        yield _of_output(output)
    if findings.predictions is not None:
        yield _of_predictions(findings.predictions)
    for score in findings.scores:
        yield _of_score(score)
    for one in findings.unchecked:
        yield f"not checked: {one}"


def table_of_speeds(findings: Findings) -> "Table":
    """Lay the speeds out: then, now, their ratio, and what it decides."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("speed, with 95 % intervals")
    for name in ("then", "now", "now / then"):
        table.add_column(name, justify="right")
    table.add_column(f"within ±{100 * findings.margin:g} %")
    for one in findings.speeds:
        cells = (label(one.metric), *map(text_of, (one.old, one.new, one.ratio)), one.verdict)
        table.add_row(*map(Text, cells))
    return table


def verdict_of(findings: Findings) -> str:
    """Say in one line what it all comes to."""
    failures = list(findings.failures())
    if failures:
        return f"failed: {'; '.join(failures)}"
    undecided = (
        *(one.metric for one in findings.scores if one.verdict is Verdict.UNDECIDED),
        *(one.metric for one in findings.speeds if one.verdict is Verdict.UNDECIDED),
    )
    if undecided:
        names = ", ".join(undecided)
        return f"passed, but undecided: {names}; a quieter machine or more --sessions may decide"
    return "passed" if not findings.unchecked else "passed, as far as it could be checked"


def data_of(findings: Findings) -> dict[str, object]:
    """Return the findings as JSON data."""
    return {
        "passed": findings.passed,
        "failures": list(findings.failures()),
        "outputs": [_data_of_output(one) for one in findings.outputs],
        "predictions": None
        if findings.predictions is None
        else {"samples": len(findings.predictions), "agree": findings.predictions.agree},
        "scores": [asdict(one) for one in findings.scores],
        "speeds": [asdict(one) for one in findings.speeds],
        "margin": findings.margin,
        "facts": list(findings.facts),
        "unchecked": list(findings.unchecked),
        "subject": findings.subject,
    }


def _data_of_output(output: Agreement) -> dict[str, object]:
    """Return an output as JSON data; an infinite deviation is null there."""
    deviation = output.deviation if math.isfinite(output.deviation) else None
    return {**asdict(output), "deviation": deviation, "holds": output.holds}


def _of_output(output: Agreement) -> str:
    if output.bound == 0:
        how = "the same, bit by bit" if output.holds else f"differs by {output.deviation:.2g}"
        return f"output {output.output}: {how}"
    within = "within" if output.holds else "beyond"
    return (
        f"output {output.output}: differs by {output.deviation:.2g} of the largest value, "
        f"{within} the bound of {output.bound:g}"
    )


def _of_predictions(found: Predictions) -> str:
    return f"predictions: the same on {found.agree:,} of {len(found):,} references"


def _of_score(score: ScoreFinding) -> str:
    return (
        f"{label(score.metric)} on {score.data}: {text_of(score.new)}, then {text_of(score.old)}; "
        f"difference {text_of_difference(score.difference)}, {score.verdict}"
    )
