"""What the data can tell of two deployments, and of one and a bound.

A deployment is worse than another for certain only where their 95 % intervals lie apart. Two
exceptions know more than intervals: scores of one engine are the same number however often it is
served, and two engines that were scored on the same samples are compared sample by sample.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from optimizer.front.volume import Costs, cost_of
from optimizer.study.records import TrialRecord
from search_spaces.metrics import Direction
from search_spaces.space import Constraint, Objective
from trials.measurement import Estimate, Quality
from trials.outcome import Completed
from trials.scoring.paired import certain_gap
from trials.scoring.sample_scores import unpacked

_FIRST_ROOM = 64


class Verdict(StrEnum):
    """Whether a deployment meets its bounds, as far as the data can tell."""

    MEETS = "meets"
    MISSES = "misses"
    UNDECIDED = "undecided"


def verdict_of_bound(outcome: Completed, constraint: Constraint) -> Verdict:
    """Judge a metric's whole interval against a bound."""
    estimate = outcome.metric(constraint.metric.name)
    near, far = estimate.low, estimate.high
    if constraint.upper:
        near, far = far, near
    if near is not None and constraint.violation(near) <= 0:
        return Verdict.MEETS
    if far is not None and constraint.violation(far) > 0:
        return Verdict.MISSES
    return Verdict.UNDECIDED


def verdict_of_bounds(outcome: Completed, constraints: Iterable[Constraint]) -> Verdict:
    """Judge all bounds: one that is missed for certain decides, so does one that is open."""
    verdicts = {verdict_of_bound(outcome, constraint) for constraint in constraints}
    for verdict in (Verdict.MISSES, Verdict.UNDECIDED):
        if verdict in verdicts:
            return verdict
    return Verdict.MEETS


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weighed:
    """The costs of one record with their limits, each of shape ``(objectives,)``.

    Attributes:
        low: Lower limits; minus infinity where the data give none.
        high: Upper limits; infinity where the data give none.
        quality: Of its engine.
        scored: Names of the metrics that rest on the engine's answers.
        engine_key: Equal keys, equal answers.
    """

    costs: Costs
    low: Costs
    high: Costs
    quality: Quality | None
    scored: frozenset[str]
    engine_key: str


def weighed(record: TrialRecord, objectives: Sequence[Objective]) -> Weighed:
    """Weigh a measured record.

    Raises:
        KeyError: An objective was not measured.
    """
    assert isinstance(record.outcome, Completed)
    outcome = record.outcome
    ends = [_ends(outcome.metric(one.metric.name), one) for one in objectives]
    low, value, high = np.asarray(ends, dtype=float).reshape(len(ends), 3).T
    return Weighed(
        costs=value,
        low=low,
        high=high,
        quality=outcome.quality,
        scored=frozenset() if outcome.quality is None else frozenset(outcome.quality.metrics()),
        engine_key=outcome.engine.engine_key,
    )


class Certainty:
    """Decides for certain, or not at all, which of a growing number of deployments beats which.

    Comparisons of engines are kept, so that each pair of engines is compared once.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self._names = [objective.metric.name for objective in objectives]
        self._known: list[Weighed] = []
        # lower and upper limits of the known, with room that is doubled when it is full
        self._limits = np.empty((2, _FIRST_ROOM, len(self._names)))
        self._gaps: dict[tuple[str, str], float] = {}
        self._scores: dict[str, NDArray[np.float64]] = {}

    def add(self, one: Weighed) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Compare a deployment with all that were added before, and add it.

        Beating is being better in something and worse in nothing, both for certain.

        Returns:
            Which of the others it beats, and which of them beat it; both of shape ``(others,)``.
        """
        low, high = self._limits[:, : len(self._known)]
        better, no_worse = one.high < low, one.high <= low
        worse, no_better = high < one.low, high <= one.low
        for column, name in enumerate(self._names):
            if name not in one.scored:
                continue
            gaps = [self._known_gap(one, other, name) for other in self._known]
            rows = [row for row, gap in enumerate(gaps) if gap is not None]
            gap = np.array([gaps[row] for row in rows], dtype=float)
            better[rows, column], no_worse[rows, column] = gap > 0, gap >= 0
            worse[rows, column], no_better[rows, column] = gap < 0, gap <= 0
        self._remember(one)
        return _all_told(better, no_worse), _all_told(worse, no_better)

    def _remember(self, one: Weighed) -> None:
        count, room = len(self._known), self._limits.shape[1]
        if count == room:
            self._limits = np.concatenate([self._limits, np.empty_like(self._limits)], axis=1)
        self._limits[:, count] = one.low, one.high
        self._known.append(one)

    def _known_gap(self, one: Weighed, other: Weighed, name: str) -> float | None:
        """Say how two engines' scores differ, where more is known than intervals tell.

        Returns:
            Above 0 where the one scores better for certain, 0 where both score alike, NaN where
            that cannot be told, None where there is nothing to go by but the intervals.
        """
        ours, theirs = one.quality, other.quality
        if ours is None or theirs is None:
            return None
        if ours.split_digest != theirs.split_digest:
            return None
        if one.engine_key == other.engine_key:
            return 0.0
        if name != ours.scores[0][0] or ours.per_sample is None or theirs.per_sample is None:
            return None
        key = (one.engine_key, other.engine_key)
        if key not in self._gaps:
            self._gaps[key] = certain_gap(self._scores_of(one), self._scores_of(other))
            self._gaps[key[::-1]] = -self._gaps[key]
        return self._gaps[key]

    def _scores_of(self, one: Weighed) -> NDArray[np.float64]:
        if one.engine_key not in self._scores:
            assert one.quality is not None
            assert one.quality.per_sample is not None
            self._scores[one.engine_key] = unpacked(one.quality.per_sample)
        return self._scores[one.engine_key]


def _all_told(better: NDArray[np.bool_], no_worse: NDArray[np.bool_]) -> NDArray[np.bool_]:
    beats: NDArray[np.bool_] = np.any(better, axis=1) & np.all(no_worse, axis=1)
    return beats


def _ends(estimate: Estimate, objective: Objective) -> tuple[float, float, float]:
    """Return lower limit, value and upper limit as costs."""
    value = cost_of(estimate.value, objective)
    known = [
        math.nan if end is None else _end_cost(end, objective)
        for end in (estimate.low, estimate.high)
    ]
    if objective.direction is Direction.MAXIMIZE:
        known.reverse()
    low, high = known
    return (-math.inf if math.isnan(low) else low), value, (math.inf if math.isnan(high) else high)


def _end_cost(end: float, objective: Objective) -> float:
    """Return a limit's cost; the limit of a log scale may be 0, of which nothing is known."""
    try:
        return cost_of(end, objective)
    except ValueError:
        return math.nan
