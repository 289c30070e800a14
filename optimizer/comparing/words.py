"""A comparison as lines and a table for people, and as one JSON document."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from optimizer.comparing.compare import Comparison
from optimizer.comparing.scores import ScoreCompared
from optimizer.front.words import label, number, text_of, text_of_difference
from trials.measuring.comparison import Verdict
from trials.scoring.paired import PairedDifference

if TYPE_CHECKING:
    from rich.table import Table

_CERTAIN = 0.05  # doubt below which two scores differ

SPEED_WORDS = {
    Verdict.BETTER: "faster",
    Verdict.WORSE: "slower",
    Verdict.EQUIVALENT: "equivalent",
    Verdict.UNDECIDED: "undecided",
}
"""What people call a verdict on a speed of B against A."""


def heading_of(found: Comparison) -> Iterator[str]:
    """Yield what was compared, and how."""
    yield f"A: {found.stories[0]}"
    yield f"B: {found.stories[1]}"
    if found.live:
        yield (
            f"{found.pairs} pairs of neighbouring blocks in {found.sessions} sessions; other work "
            f"took the processor in {found.contended:.0%} of the blocks"
        )


def table_of_speeds(found: Comparison) -> "Table":
    """Lay the speeds out: A, B, their ratio, and what it decides."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("speed, with 95 % intervals")
    for name in ("A", "B", "B / A"):
        table.add_column(name, justify="right")
    table.add_column(f"B is, beyond ±{100 * found.margin:g} %")
    for one in found.speeds:
        words = SPEED_WORDS[one.verdict]
        cells = (label(one.metric), text_of(one.old), text_of(one.new), text_of(one.ratio), words)
        table.add_row(*map(Text, cells))
    return table


def lines_below(found: Comparison) -> Iterator[str]:
    """Yield scores, cautions, and what it all comes to."""
    for score in found.scores:
        yield _of_score(score)
        for cohort, paired in score.cohorts:
            if paired.doubt < _CERTAIN:
                yield f"  in cohort {cohort}: {_of_paired(paired)}"
        if score.cohorts and all(paired.doubt >= _CERTAIN for _, paired in score.cohorts):
            yield f"  in none of {len(score.cohorts)} cohorts do the two differ for certain"
    if found.live and found.speeds:
        yield (
            "B / A is typical of neighbouring blocks, which met the same machine; the columns "
            "hold all blocks, also those that others disturbed"
        )
    yield from found.cautions
    yield verdict_of(found)


def verdict_of(found: Comparison) -> str:
    """Say in one line what it all comes to."""
    groups: dict[str, list[str]] = {}
    for speed in found.speeds:
        groups.setdefault(SPEED_WORDS[speed.verdict], []).append(speed.metric)
    for score in found.scores:
        groups.setdefault(str(score.verdict), []).append(score.metric)
    return "B is " + "; ".join(f"{word} in {', '.join(names)}" for word, names in groups.items())


def data_of(found: Comparison) -> dict[str, object]:
    """Return a comparison as JSON data."""
    return {
        "a": found.stories[0],
        "b": found.stories[1],
        "live": found.live,
        "pairs": found.pairs,
        "sessions": found.sessions,
        "contended": found.contended,
        "margin": found.margin,
        "speeds": [asdict(one) | {"verdict": SPEED_WORDS[one.verdict]} for one in found.speeds],
        "scores": [asdict(one) | {"cohorts": _cohorts_of(one)} for one in found.scores],
        "cautions": list(found.cautions),
        "b_is_worse": found.is_worse,
    }


def _cohorts_of(score: ScoreCompared) -> dict[str, object]:
    return {cohort: asdict(paired) for cohort, paired in score.cohorts}


def _of_score(score: ScoreCompared) -> str:
    non = "" if score.non_inferior else "not "
    return (
        f"{label(score.metric)} on {score.data}: A {number(score.old.value)}, "
        f"B {number(score.new.value)}; {_of_paired(score.paired)}; {score.verdict} within "
        f"±{score.margin:g}, {non}shown to be no worse"
    )


def _of_paired(paired: PairedDifference) -> str:
    return (
        f"difference {text_of_difference(paired.difference)}, {paired.differing:,} of "
        f"{paired.samples:,} samples differ, p = {paired.doubt:.2g}"
    )
