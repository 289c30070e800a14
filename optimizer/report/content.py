"""What a report says: plain values, worked out before anything is written as HTML."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

from optimizer.front.asking import Question
from optimizer.front.draws import BlocksOf
from optimizer.front.front import Front
from optimizer.front.words import short, standing_of
from optimizer.report.album import (
    Picture,
    SaturationOf,
    cohorts_of,
    concurrency_of,
    distributions_of,
    measured_members,
    reliability_of,
    saturations_of,
    tails_of,
)
from optimizer.report.tables import (
    Table,
    engines_of,
    table_of_axes,
    table_of_candidates,
    table_of_choices,
    table_of_devices,
    table_of_environments,
    table_of_flags,
    table_of_left_out,
    table_of_scores,
)
from optimizer.study.records import TrialRecord
from optimizer.study.study import SearchStudy
from search_spaces.metrics import Direction
from trials.outcome import Completed


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A measured trial as the interactive front shows it.

    Attributes:
        standing: ``member``, ``tie``, ``dominated`` or ``missed``.
        note: How surely it is on the front.
        metrics: (value, low, high) by metric; None where a limit is not known.
    """

    trial: int
    name: str
    standing: str
    note: str
    metrics: dict[str, tuple[float, float | None, float | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What lies beside a study's records, found by a trial's uid."""

    blocks_of: BlocksOf
    saturation_of: SaturationOf


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Everything that a report shows, in the order in which it shows it."""

    study: str
    made_at: str
    trifront: str
    question: tuple[str, ...]
    summary: tuple[str, ...]
    choices: Table
    objectives: tuple[str, ...]
    knee: int | None
    points: tuple[Point, ...]
    front: Table
    distributions: Picture | None
    tails: Picture | None
    concurrency: Picture | None
    saturations: tuple[Picture, ...]
    devices: Table
    scores: Table
    cohorts: Picture | None
    reliability: Picture | None
    left_out: Table
    axes: Table
    space_file: str
    inputs: Table
    environments: Table
    flags: Table


def content_of(
    study: SearchStudy, front: Front, question: Question, evidence: Evidence
) -> Content:
    """Work out what a report of a study says.

    Args:
        study: Whose trials.
        front: Its front, with probabilities.
        question: What was asked of it.
        evidence: Where raw blocks and saturations are to be had.
    """
    records = question.chosen(study.records())
    verdicts = study.verdicts()
    engines = engines_of(front)
    members = measured_members(front, evidence.blocks_of)
    return Content(
        study=study.name,
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        trifront=version("trifront"),
        question=tuple(_question(study, question)),
        summary=tuple(_summary(front, records)),
        choices=table_of_choices(front),
        objectives=tuple(one.metric.name for one in front.objectives),
        knee=None if front.knee is None else front.knee.number,
        points=tuple(_points(front)),
        front=table_of_candidates(front, verdicts),
        distributions=distributions_of(members),
        tails=tails_of(members),
        concurrency=concurrency_of(records),
        saturations=saturations_of(front, evidence.saturation_of),
        devices=table_of_devices(front),
        scores=table_of_scores(front, verdicts),
        cohorts=cohorts_of(engines),
        reliability=reliability_of(engines),
        left_out=table_of_left_out(front),
        axes=table_of_axes(study),
        space_file=study.space_file,
        inputs=Table(columns=("input", "SHA-256"), rows=tuple(sorted(study.digests.items()))),
        environments=table_of_environments(records),
        flags=table_of_flags(front),
    )


def _question(study: SearchStudy, question: Question) -> Iterator[str]:
    space = study.space
    variants = ", ".join(str(value) for value in space.axis("variant").values)
    better = {Direction.MINIMIZE: "lower", Direction.MAXIMIZE: "higher"}
    wanted = "; ".join(
        f"{one.metric.label}, {better[one.direction]} is better" for one in question.objectives
    )
    yield f"Which deployments of {variants} (backend {space.backend}) trade off best: {wanted}?"
    if question.constraints:
        yield f"Bounds: {'; '.join(str(one) for one in question.constraints)}."
    if question.rules:
        yield f"Only deployments with {'; '.join(one.text for one in question.rules)}."


def _summary(front: Front, records: Sequence[TrialRecord]) -> Iterator[str]:
    measured = sum(isinstance(record.outcome, Completed) for record in records)
    yield f"{len(records)} trials, {measured} of them measured"
    yield f"{len(front.members)} on the front, {len(front.ties)} cannot be told apart from it"
    if front.certified is not None:
        yield front.certified
    yield f"{len(front.dominated)} beaten beyond both intervals, {len(front.missed)} miss a bound"
    if front.infeasible or front.failed:
        yield f"{len(front.infeasible)} cannot run, {len(front.failed)} failed"


def _points(front: Front) -> Iterator[Point]:
    for candidate in front.candidates:
        standing = "member" if candidate.is_member else "tie"
        yield _point(candidate.record, standing, note=standing_of(candidate))
    for standing, records in (("dominated", front.dominated), ("missed", front.missed)):
        for record in records:
            yield _point(record, standing, note="")


def _point(record: TrialRecord, standing: str, *, note: str) -> Point:
    assert isinstance(record.outcome, Completed)
    return Point(
        trial=record.number,
        name=short(record.outcome.deployment),
        standing=standing,
        note=note,
        metrics={
            name: (estimate.value, estimate.low, estimate.high)
            for name, estimate in record.outcome.metrics().items()
        },
    )
