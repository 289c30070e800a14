"""How the front grew: its hypervolume against a reference that never moves.

The hypervolume of ``front`` is a share of the box around what was measured, which grows with every
extreme, so that yesterday's share cannot be compared with today's. Here the reference is each
objective's ``metric.worst``, a constant of this package, so that a point of the curve is final as
soon as its trial has ended, and curves of several searches share one scale.

For a deployment x and an objective of metric m, the gain over the worst is::

    log10(worst / x)   a log metric that is minimized        (decades)
    log10(x / worst)   a log metric that is maximized        (decades)
    |x - worst|        a linear metric                       (the metric's unit)

never less than 0. The volume is that of the union, over all feasible deployments measured so far,
of the boxes from 0 to their gains (Zitzler & Thiele 1998). With latency, throughput and accuracy
as objectives its unit is decades² × accuracy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.front.volume import costs_of
from optimizer.study.objectives import meets, value_from_metric
from optimizer.study.records import TrialRecord
from search_spaces.metrics import Direction
from search_spaces.space import Constraint, Objective
from trials.outcome import Completed


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthPoint:
    """The volume when a trial had ended.

    Attributes:
        uid: Of the trial; ``number`` likewise.
        finished_s: When it ended, seconds since the epoch.
        volume: See the module.
    """

    uid: str
    number: int
    finished_s: float
    volume: float


def fixed_hypervolume(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> float:
    """Return the volume that measured, feasible deployments dominate, as the module defines it."""
    return _volume(-costs_of(records, objectives) - _worst(objectives))


def growth_of(
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
) -> tuple[GrowthPoint, ...]:
    """Return the curve: one point per ended trial, in the order in which they ended."""
    points = []
    worst = _worst(objectives)
    front = np.empty((0, len(objectives)))
    volume = 0.0
    for record in sorted(records, key=lambda one: (one.finished_s, one.number)):
        if isinstance(record.outcome, Completed) and meets(record.outcome, constraints):
            gains = -costs_of([record], objectives) - worst
            if not np.all(front >= gains, axis=1).any():
                front = np.vstack([front[~np.all(front <= gains, axis=1)], gains])
                volume = _volume(front)
        points.append(
            GrowthPoint(
                uid=record.uid,
                number=record.number,
                finished_s=record.finished_s,
                volume=volume,
            )
        )
    return tuple(points)


def csv_of_growth(points: Sequence[GrowthPoint]) -> str:
    """Write the curve as CSV."""
    lines = ["trial,finished_s,hypervolume"]
    lines += [f"{one.number},{one.finished_s:.3f},{one.volume!r}" for one in points]
    return "\n".join(lines) + "\n"


def _volume(gains: NDArray[np.float64]) -> float:
    """Return the volume of the union of boxes from the origin; shape ``(points, objectives)``."""
    import moocore

    inside = gains[np.all(gains > 0, axis=1)]
    if not len(inside):
        return 0.0
    return float(moocore.hypervolume(-inside, ref=np.zeros(gains.shape[1])))


def _worst(objectives: Sequence[Objective]) -> NDArray[np.float64]:
    """Return what each objective's worst value would gain, shape ``(objectives,)``."""
    return np.asarray(
        [
            value_from_metric(one.metric.worst, one.metric)
            * (-1 if one.direction is Direction.MINIMIZE else 1)
            for one in objectives
        ]
    )
