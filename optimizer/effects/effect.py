"""What changing one axis does with all others held: from pairs of trials that differ in it alone.

A search tries points all over the space, so two values of an axis are tried among different
neighbours, and the means over all trials of each compare those neighbours as well. Here only pairs
count that are alike in everything else. The effect of a step is the centre of the pairs' log
ratios (of differences, for scores), with the limits of Wilcoxon's signed ranks: the *typical*
effect over what was tried, and its interval holds the noise and that the effect differs from pair
to pair. With fewer than six pairs there is no interval, and the data cannot tell.

Scores and sizes belong to an engine. Two trials of the same two engines say the same of them
twice, and count once.

Numbers are stepped through in order, names are held against the first one. Each interval is of
95 % by itself.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import numpy as np

from optimizer.errors import StudyError, UsageError
from optimizer.study.records import TrialRecord
from search_spaces.deployment import Scalar
from search_spaces.metrics import METRICS, Metric, Scale
from search_spaces.space import Axis
from trials.measurement import Estimate
from trials.measuring.load import CONTENDED
from trials.measuring.ranks import exponential, signed_rank_centre
from trials.measuring.statistics import CONFIDENCE
from trials.outcome import Completed

_SIZE = "engine_size_mb"


class Trend(StrEnum):
    """What a step does to a metric, as far as the data can tell."""

    RISES = "rises"
    FALLS = "falls"
    UNCHANGED = "unchanged"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What going from one value of the axis to another does to one metric.

    Attributes:
        pairs: (trial before, trial after) that differ in the axis alone.
        effects: Of each pair: after / before, or after - before on a linear scale.
        effect: Their centre; limits are None with fewer than six pairs.
    """

    before: Scalar
    after: Scalar
    pairs: tuple[tuple[int, int], ...]
    effects: tuple[float, ...]
    effect: Estimate | None
    trend: Trend


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricEffect:
    """What the axis does to one metric.

    Attributes:
        is_ratio: Effects are ratios, else differences in the metric's unit.
        turn: Where the metric turns around, in words; None for an axis without an order.
    """

    metric: Metric
    is_ratio: bool
    steps: tuple[Step, ...]
    turn: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What an axis does, metric by metric.

    Attributes:
        ordered: Its values are numbers, stepped through; else each is held against the first.
        trials: That are part of a pair.
        contended: Of these, while how many others took the processor.
    """

    axis: str
    ordered: bool
    metrics: tuple[MetricEffect, ...]
    trials: int
    contended: int


def effect_of(
    axis: Axis,
    records: Sequence[TrialRecord],
    names: Sequence[str],
    *,
    against: Scalar | None = None,
) -> Effect:
    """Say what changing an axis alone does.

    Args:
        axis: Of the study's space.
        records: The study's trials; of repeated ones the last counts.
        names: Metrics.
        against: A value of the axis that all others are held against; None for steps of numbers,
            and for the first of names.

    Raises:
        StudyError: No two trials differ in the axis alone.
        UsageError: A metric that was not measured.
    """
    assert against is None or against in axis.values, "whoever names a value looks it up"
    groups = _groups(axis.name, records)
    ordered = against is None and all(_is_number(value) for value in axis.values)
    reference = axis.values[0] if against is None else against
    steps = (
        tuple(pairwise(axis.values))
        if ordered
        else tuple((reference, value) for value in axis.values if value != reference)
    )
    used = {
        record.number: record
        for before, after in steps
        for pair in _pairs(groups, before, after)
        for record in pair
    }
    if not used:
        raise StudyError(
            f"no two measured trials differ in {axis.name} alone",
            hint="search on: `trifront search` with more --trials, or a smaller space",
        )
    metrics = tuple(
        _metric_effect(_metric(name, used), groups, steps, ordered=ordered) for name in names
    )
    return Effect(
        axis=axis.name,
        ordered=ordered,
        metrics=metrics,
        trials=len(used),
        contended=sum(CONTENDED in _outcome(one).flags for one in used.values()),
    )


_Group = Mapping[Scalar, TrialRecord]


def _groups(axis: str, records: Sequence[TrialRecord]) -> list[_Group]:
    """Group measured trials that are alike in all other axes, by their value on this one."""
    groups: dict[tuple[tuple[str, Scalar], ...], dict[Scalar, TrialRecord]] = {}
    for record in sorted(records, key=lambda record: record.number):
        if isinstance(record.outcome, Completed):
            values = dict(record.outcome.deployment.axes())
            value = values.pop(axis)
            groups.setdefault(tuple(values.items()), {})[value] = record
    return list(groups.values())


def _pairs(
    groups: Sequence[_Group], before: Scalar, after: Scalar
) -> Iterator[tuple[TrialRecord, TrialRecord]]:
    return (
        (group[before], group[after]) for group in groups if before in group and after in group
    )


def _distinct(
    metric: Metric, pairs: Sequence[tuple[TrialRecord, TrialRecord]]
) -> list[tuple[TrialRecord, TrialRecord]]:
    """Keep one pair of each two engines, for metrics that belong to the engine."""
    quality = _outcome(pairs[0][0]).quality if pairs else None
    of_engines = {_SIZE} if quality is None else {_SIZE, *quality.metrics()}
    if metric.name not in of_engines:
        return list(pairs)
    by_engines = {
        (_outcome(one).engine.engine_key, _outcome(other).engine.engine_key): (one, other)
        for one, other in pairs
    }
    return list(by_engines.values())


def _metric(name: str, used: Mapping[int, TrialRecord]) -> Metric:
    known = set.intersection(*(set(_outcome(record).metrics()) for record in used.values()))
    if name not in known:
        raise UsageError(f"{name} was not measured", hint=f"there are: {', '.join(sorted(known))}")
    return METRICS[name]


def _metric_effect(
    metric: Metric,
    groups: Sequence[_Group],
    steps: Sequence[tuple[Scalar, Scalar]],
    *,
    ordered: bool,
) -> MetricEffect:
    is_ratio = metric.scale is Scale.LOG
    found = tuple(_step(metric, groups, before, after) for before, after in steps)
    return MetricEffect(
        metric=metric,
        is_ratio=is_ratio,
        steps=found,
        turn=turn_of(found) if ordered else None,
    )


def _step(metric: Metric, groups: Sequence[_Group], before: Scalar, after: Scalar) -> Step:
    is_ratio = metric.scale is Scale.LOG
    pairs = _distinct(metric, list(_pairs(groups, before, after)))
    values = [
        (_outcome(one).metric(metric.name).value, _outcome(other).metric(metric.name).value)
        for one, other in pairs
    ]
    changes = np.array(
        [math.log(new / old) if is_ratio else new - old for old, new in values], dtype=float
    )
    effect = None if not pairs else signed_rank_centre(changes, confidence=CONFIDENCE)
    return Step(
        before=before,
        after=after,
        pairs=tuple((one.number, other.number) for one, other in pairs),
        effects=tuple(float(one) for one in (np.exp(changes) if is_ratio else changes)),
        effect=exponential(effect) if effect is not None and is_ratio else effect,
        trend=_trend(effect),
    )


def _trend(effect: Estimate | None) -> Trend:
    """Judge a change, 0 for none."""
    if effect is None or effect.low is None or effect.high is None:
        return Trend.UNDECIDED
    if effect.low == effect.high == 0:
        return Trend.UNCHANGED
    if effect.low > 0:
        return Trend.RISES
    return Trend.FALLS if effect.high < 0 else Trend.UNDECIDED


def turn_of(steps: Sequence[Step]) -> str:
    """Say where a metric turns around along an ordered axis, or that the data cannot tell."""
    certain = [one for one in steps if one.trend in (Trend.RISES, Trend.FALLS)]
    for earlier, later in pairwise(certain):
        if earlier.trend is not later.trend:
            if earlier.after == later.before:
                where = f"at {earlier.after}"
            else:
                where = f"between {earlier.after} and {later.before}"
            return f"{earlier.trend} and turns {where}"
    is_open = any(one.trend is Trend.UNDECIDED for one in steps)
    if not certain:
        return "cannot be told" if is_open else "does not change"
    rest = ", as far as the data can tell" if is_open else " throughout"
    return f"{certain[0].trend}{rest}"


def _outcome(record: TrialRecord) -> Completed:
    assert isinstance(record.outcome, Completed)
    return record.outcome


def _is_number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
