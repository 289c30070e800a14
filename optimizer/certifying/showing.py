"""A certificate on the front of its study, as a table, and as JSON data."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from optimizer.certifying.certificate import Certificate
from optimizer.front.front import Front
from optimizer.front.words import label, short, standing_of, text_of
from trials.measuring.comparison import SPEEDS

if TYPE_CHECKING:
    from rich.table import Table

_WORDS = ("deployment", "on front")  # columns; the others are numbers


def with_certificate(front: Front, certificate: Certificate, *, trials: int) -> Front:
    """Return the front with certified probabilities.

    Args:
        front: Of the study's own question.
        certificate: Of the same study.
        trials: Ended trials of the study now.
    """
    known = certificate.probabilities()
    return replace(
        front,
        candidates=tuple(
            replace(one, probability=known.get(one.record.number, one.probability))
            for one in front.candidates
        ),
        certified=words_of(certificate, trials=trials),
    )


def words_of(certificate: Certificate, *, trials: int) -> str:
    """Say when a front was certified, how surely, and what came later."""
    at = datetime.fromtimestamp(certificate.at_s, UTC).date().isoformat()
    how = "decided" if certificate.decided else "not decided"
    later = trials - certificate.trials
    since = f", before the last {later} trials" if later else ""
    return f"certified {at} in {certificate.sessions} sessions, {how}{since}"


def rows_of_certificate(
    certificate: Certificate, front: Front
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return a header, and of each candidate its probability and its speeds over sessions."""
    names = [one.metric.name for one in front.objectives if one.metric.name in SPEEDS]
    rows = []
    for one in front.candidates:
        certified = certificate.of_trial(one.record.number)
        if certified is None:
            continue
        speeds = dict(certified.speeds)
        rows.append(
            (
                str(certified.trial),
                short(one.record.outcome.deployment),
                standing_of(replace(one, probability=certified.probability)),
                str(certified.sessions),
                *(text_of(speeds[name]) for name in names),
            )
        )
    return ("trial", "deployment", "on front", "sessions", *map(label, names)), rows


def table_of_certificate(certificate: Certificate, front: Front) -> "Table":
    """Lay out each candidate with its probability and its speeds over sessions."""
    from rich.table import Table
    from rich.text import Text

    header, rows = rows_of_certificate(certificate, front)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in header:
        side: Literal["left", "right"] = "left" if name in _WORDS else "right"
        table.add_column(Text(name), justify=side)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def lines_of_certificate(certificate: Certificate, *, trials: int) -> Iterator[str]:
    """Yield what stands below the table."""
    yield words_of(certificate, trials=trials)
    if certificate.contended:
        share = f"{certificate.contended:.0%}"
        yield f"other work took the processor during {share} of the measurements"
    yield "on front: how probable it is that the deployment belongs there"
    if not certificate.decided:
        yield "not decided: the same command, with more --time or --sessions, goes on from here"


def data_of_certificate(certificate: Certificate) -> dict[str, object]:
    """Return a certificate as JSON data."""
    return asdict(certificate)
