"""The pictures of a report: which trials they show, and what they tell who cannot see them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias

from optimizer.front.draws import BlocksOf
from optimizer.front.front import Front
from optimizer.front.words import number, short, text_of
from optimizer.report import pictures
from optimizer.report.pictures import Measured
from optimizer.saturation.figure import figure_of_saturation
from optimizer.saturation.result import Saturation
from optimizer.saturation.words import lines_of
from optimizer.study.records import TrialRecord
from trials.measurement import Calibration, Quality
from trials.outcome import Completed

_TAILS = 8  # lines that can be told apart
_SERIES = 12
_LEAST_SERIES = 2  # levels of concurrency that make a line


SaturationOf: TypeAlias = Callable[[str], Saturation | None]
"""Return the saturation of a trial by its uid, None where it was not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture and what somebody who cannot see it should know."""

    svg: str
    text: str


def measured_members(front: Front, blocks_of: BlocksOf) -> tuple[Measured, ...]:
    """Return the front's members whose raw blocks are to be had, the knee first."""
    return tuple(sorted(_measured(front, blocks_of), key=lambda one: one.record is not front.knee))


def distributions_of(members: Sequence[Measured]) -> Picture | None:
    """Show where the latencies of each member lie, in the order of their medians."""
    if not members:
        return None
    ordered = sorted(members, key=lambda one: one.outcome.metric("latency_p50_ms").value)
    told = "; ".join(
        f"{one.name}: {text_of(one.outcome.metric('latency_p99_ms'))}" for one in ordered
    )
    return Picture(
        svg=pictures.svg_of_distributions(ordered), text=f"Latencies. p99 in ms: {told}"
    )


def tails_of(members: Sequence[Measured]) -> Picture | None:
    """Show the tails of the first few members."""
    if not members:
        return None
    shown = members[:_TAILS]
    return Picture(
        svg=pictures.svg_of_tails(shown),
        text=f"Tails of {len(shown)} of {len(members)} members of the front, the knee first.",
    )


def _measured(front: Front, blocks_of: BlocksOf) -> Iterator[Measured]:
    for record in front.members:
        blocks = blocks_of(record.uid)
        if blocks is not None:
            assert isinstance(record.outcome, Completed)
            yield Measured(record=record, outcome=record.outcome, blocks=blocks)


def concurrency_of(records: Sequence[TrialRecord]) -> Picture | None:
    """Show what was served at several concurrencies, all else being equal."""
    measured = [one for one in records if isinstance(one.outcome, Completed)]
    measured.sort(key=lambda one: (_but_concurrency(one), one.outcome.deployment.concurrency))
    series = {}
    for name, group in groupby(measured, key=_but_concurrency):
        levels = {one.outcome.deployment.concurrency: one for one in group}
        if len(levels) >= _LEAST_SERIES:
            series[name] = tuple(levels.values())
    longest = sorted(series, key=lambda name: (-len(series[name]), name))[:_SERIES]
    if not longest:
        return None
    return Picture(
        svg=pictures.svg_of_concurrency({name: series[name] for name in longest}),
        text="Throughput over concurrency of what was served at several: " + "; ".join(longest),
    )


def _but_concurrency(record: TrialRecord) -> str:
    words = short(record.outcome.deployment).split(" ")
    return " ".join(word for at, word in enumerate(words) if at != 3)  # noqa: PLR2004 (c2, see short)


def saturations_of(front: Front, saturation_of: SaturationOf) -> tuple[Picture, ...]:
    """Show how far each member of the front can be loaded, where that was measured."""
    found = (saturation_of(record.uid) for record in front.members)
    return tuple(
        Picture(
            svg=pictures.svg_of(figure_of_saturation(one)),
            text=f"Trial {one.trial}: {'; '.join(lines_of(one))}.",
        )
        for one in found
        if one is not None
    )


def cohorts_of(engines: Mapping[str, Quality]) -> Picture | None:
    """Show the scores of each engine by cohort, where there are cohorts."""
    scores = {
        name: [(cohort.cohort, cohort.score) for cohort in quality.cohorts]
        for name, quality in engines.items()
        if quality.cohorts
    }
    if not scores:
        return None
    told = "; ".join(
        f"{engine}: {', '.join(f'{cohort} {text_of(score)}' for cohort, score in each)}"
        for engine, each in scores.items()
    )
    return Picture(svg=pictures.svg_of_cohorts(scores), text=f"Scores by cohort. {told}")


def reliability_of(engines: Mapping[str, Quality]) -> Picture | None:
    """Show how far the confidences of each engine can be believed."""
    calibrations: dict[str, Calibration] = {
        name: quality.calibration
        for name, quality in engines.items()
        if quality.calibration is not None
    }
    if not calibrations:
        return None
    told = "; ".join(
        f"{name}: ECE {number(one.ece)}, by chance alone {number(one.ece_null)}"
        for name, one in calibrations.items()
    )
    return Picture(svg=pictures.svg_of_reliability(calibrations), text=f"Reliability. {told}")
