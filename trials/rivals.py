"""Rivals: deployments that were measured before, against which another may be hopeless.

A search asks for the front. A deployment that another one beats for certain, in every objective at
once, is not on it, and no narrower interval of its would bring it there, so nothing more of it
needs to be measured. What speeds are compared with here is one of another minute, and machines
move by a few per cent between minutes: a rival must be better by 5 % beyond all limits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from search_spaces.metrics import Direction
from search_spaces.space import Constraint, Objective
from trials.measurement import Estimate, Quality
from trials.measuring.comparison import SPEEDS
from trials.outcome import Completed
from trials.scoring.paired import certain_gap
from trials.scoring.sample_scores import unpacked

LEAD = 1.05  # by which a speed must be better, beyond the limits of both
_SIZE = "engine_size_mb"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """A deployment that meets its bounds for certain.

    Attributes:
        engine_key: Equal keys, equal answers.
        metrics: (name, estimate) of what is traded off.
    """

    engine_key: str
    quality: Quality | None
    metrics: tuple[tuple[str, Estimate], ...]


def rival_of(outcome: Completed, objectives: Iterable[Objective]) -> Rival:
    """Keep of a measured deployment what others can be held against.

    Raises:
        KeyError: An objective was not measured.
    """
    names = [objective.metric.name for objective in objectives]
    return Rival(
        engine_key=outcome.engine.engine_key,
        quality=outcome.quality,
        metrics=tuple((name, outcome.metric(name)) for name in names),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Unloaded:
    """What is known of a deployment before it is driven.

    Attributes:
        engine_key: As of a rival, likewise ``quality``.
        size_mb: Of the engine's file.
    """

    engine_key: str
    quality: Quality
    size_mb: float


def hurdles_of(
    rivals: Iterable[Rival], objectives: Sequence[Objective], own: Unloaded
) -> tuple[tuple[Constraint, ...], ...]:
    """Return the bounds of speed all of which a deployment misses where a rival beats it.

    Args:
        rivals: What it is held against.
        objectives: Of the space.
        own: What is known of it by now.

    Returns:
        For each rival that is no worse for certain in all that is known by now, one bound for
        each objective that is a speed. None at all where no objective is.
    """
    speeds = [one for one in objectives if one.metric.name in SPEEDS]
    known = [one for one in objectives if one.metric.name not in SPEEDS]
    found = []
    for rival in rivals:
        metrics = dict(rival.metrics)
        if all(_is_no_worse(rival, one, metrics[one.metric.name], own) for one in known):
            bounds = [_hurdle(metrics[one.metric.name], one) for one in speeds]
            found.append(tuple(bound for bound in bounds if bound is not None))
    return tuple(bounds for bounds in found if len(bounds) == len(speeds) > 0)


def _hurdle(theirs: Estimate, objective: Objective) -> Constraint | None:
    """Return the bound that is missed where a rival leads; None where its limit is unknown."""
    falls = objective.direction is Direction.MINIMIZE
    limit = theirs.high if falls else theirs.low
    if limit is None:
        return None
    bound = limit * LEAD if falls else limit / LEAD
    return Constraint(metric=objective.metric, upper=falls, bound=bound)


def _is_no_worse(rival: Rival, objective: Objective, theirs: Estimate, own: Unloaded) -> bool:
    """Tell whether a rival is no worse for certain in something that needs no load."""
    name = objective.metric.name
    if name == _SIZE:
        return not objective.better(own.size_mb, theirs.value)
    scores, ours = rival.quality, own.quality.metrics().get(name)
    if ours is None or scores is None or scores.split_digest != own.quality.split_digest:
        return False  # such as the memory, which is looked at last
    if rival.engine_key == own.engine_key:
        return True
    raises = objective.direction is Direction.MAXIMIZE
    if name == scores.scores[0][0] and scores.per_sample and own.quality.per_sample:
        gap = certain_gap(unpacked(scores.per_sample), unpacked(own.quality.per_sample))
        return gap >= 0 if raises else gap <= 0
    worst, best = (theirs.low, ours.high) if raises else (theirs.high, ours.low)
    return worst is not None and best is not None and not objective.better(best, worst)
