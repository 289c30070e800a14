"""Notes in Markdown on a study and on its trials, made from what the study knows.

They hold facts that stay true: whether a trial is on the front changes with every other trial, so
the front stands in the study's note alone. What users named (variants, reasons, hosts) is escaped,
so that a pipe in a name breaks no table.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from optimizer.certifying.certificate import Certificate, Certified
from optimizer.certifying.showing import lines_of_certificate, rows_of_certificate
from optimizer.front.certainty import Verdict, verdict_of_bounds
from optimizer.front.front import Candidate, Front
from optimizer.front.tables import topics_of_trial
from optimizer.front.words import (
    label,
    percent_of,
    short,
    standing_of,
    summary_of_front,
    text_of,
)
from optimizer.study.records import TrialRecord
from search_spaces.space import SearchSpace
from trials.measurement import Quality
from trials.outcome import Completed

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|&~#])")
_MOST_ROWS = 60  # a front of hundreds is for `trifront front` and the figure
_JUDGED = {
    Verdict.MEETS: "meets",
    Verdict.MISSES: "**misses**",
    Verdict.UNDECIDED: "may meet or miss",
}
_TOPICS_OF_STUDY = ("environment", "engine", "cost")  # long, and alike for all trials


def note_of_study(
    front: Front,
    space: SearchSpace,
    *,
    name: str,
    verdicts: Mapping[int, Quality],
    certificate: Certificate | None,
    digests: Mapping[str, str],
    environment: Mapping[str, str],
) -> str:
    """Say what was asked, of what, where, and what came out so far.

    Args:
        front: The front as it is now.
        space: What is searched.
        name: Of the study.
        verdicts: Qualities on the report split by trial number.
        certificate: Of the front, where it was certified.
        digests: SHA-256 by ``variant:<name>`` and ``data:<split>``.
        environment: Versions and device facts when the study was made.
    """
    parts = [
        f"# {_plain(name)}",
        _question(space),
        "## Front",
        "\n".join(f"- {_plain(line)}" for line in summary_of_front(front)),
        *_front_table(front, verdicts),
        *(() if certificate is None else _certificate(certificate, front)),
        "## Space",
        _table(("axis", "values"), ((axis.name, _listed(axis.values)) for axis in space.axes)),
        *(f"- rule: {_plain(rule.text)}" for rule in space.rules),
        "## Inputs",
        _table(("what", "SHA-256"), sorted(digests.items())),
    ]
    if environment:
        parts += ["## Environment", _table(("what", "found"), sorted(environment.items()))]
    return "\n\n".join(parts) + "\n"


def note_of_trial(
    record: TrialRecord,
    space: SearchSpace,
    *,
    verdict: Quality | None,
    certified: Certified | None,
    pictures: Sequence[str],
) -> str:
    """Say what was tried and what came of it, with intervals, flags and reasons.

    Args:
        record: The trial.
        space: What was asked of it.
        verdict: Its quality on the report split.
        certified: What the study's certificate says of it.
        pictures: Addresses of pictures to show.
    """
    outcome = record.outcome
    parts = [f"## {_plain(short(outcome.deployment))}"]
    if isinstance(outcome, Completed):
        parts.append("\n".join(f"- {line}" for line in _bounds(outcome, space)))
    for heading, rows in topics_of_trial(record, verdict):
        if not heading.startswith(_TOPICS_OF_STUDY):
            parts += [f"### {_plain(heading)}", _table(("", ""), rows)]
    if certified is not None:
        heading = f"### certified, in {certified.sessions} sessions"
        parts += [heading, _table(("", ""), _certified(certified))]
    parts += [f"![]({address})" for address in pictures]
    return "\n\n".join(filter(None, parts)) + "\n"


def _question(space: SearchSpace) -> str:
    wanted = (f"{one.direction.value} {one.metric.label}" for one in space.objectives)
    bounds = "".join(f", with {one}" for one in space.constraints)
    return (
        f"Of all the ways to deploy this model, which one? Space {_plain(space.name)}, "
        f"backend {_plain(space.backend)}: {_plain(', '.join(wanted) + bounds)}."
    )


def _front_table(front: Front, verdicts: Mapping[int, Quality]) -> Iterator[str]:
    if not front.candidates:
        return
    labels = [one.metric.label for one in front.objectives]
    if verdicts:
        metric = next(iter(verdicts.values())).scores[0][0]
        labels.append(f"{label(metric)} on the report split")
    rows = (_front_row(one, front, verdicts) for one in front.candidates[:_MOST_ROWS])
    yield _table(("trial", "deployment", "standing", *labels), rows)
    if len(front.candidates) > _MOST_ROWS:
        yield f"and {len(front.candidates) - _MOST_ROWS} more; `trifront front` lists them all"


def _certificate(certificate: Certificate, front: Front) -> Iterator[str]:
    """Yield what measuring the candidates again came to: when, how surely, and each speed."""
    yield "## Certificate"
    lines = lines_of_certificate(certificate, trials=certificate.trials)
    yield "\n".join(f"- {_plain(line)}" for line in lines)
    header, rows = rows_of_certificate(certificate, front)
    yield _table(header, rows[:_MOST_ROWS])


def _certified(certified: Certified) -> Iterator[tuple[str, str]]:
    yield "on front", percent_of(certified.probability)
    for name, estimate in certified.speeds:
        yield label(name), text_of(estimate)


def _front_row(
    candidate: Candidate, front: Front, verdicts: Mapping[int, Quality]
) -> Iterator[str]:
    record = candidate.record
    outcome = record.outcome
    assert isinstance(outcome, Completed)
    yield f"{'*' if record is front.knee else ''}{record.number}"
    yield short(outcome.deployment)
    yield standing_of(candidate)
    for objective in front.objectives:
        yield text_of(outcome.metric(objective.metric.name))
    if verdicts:
        verdict = verdicts.get(record.number)
        yield "" if verdict is None else text_of(verdict.scores[0][1])


def _bounds(outcome: Completed, space: SearchSpace) -> Iterator[str]:
    for bound in space.constraints:
        word = _JUDGED[verdict_of_bounds(outcome, (bound,))]
        value = text_of(outcome.metric(bound.metric.name))
        yield f"{word} {_plain(str(bound))}: {_plain(value)}"


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _table(header: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [header, ["---"] * len(header), *([_plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Escape what Markdown would read as its own; a line stays one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))
