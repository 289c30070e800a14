"""The Pareto front of the deployments that were measured, its knee and its hypervolume.

Everything is computed from outcomes, never from the values that the sampler was told. Deployments
that miss a constraint, and those that cannot run, are not on the front. Dominance, hypervolume and
ranks come from the moocore library; this module decides what goes in.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, compress, pairwise

import numpy as np
from numpy.typing import NDArray

from optimizer.study.objectives import meets, value_from_metric
from optimizer.study.records import TrialRecord
from search_spaces.metrics import Direction
from search_spaces.space import Constraint, Objective
from trials.outcome import Completed, Failed, Infeasible

_WEIGHT_STEPS = 20  # 231 weightings of three objectives: enough to rank a front of dozens
_MARGIN = 0.1  # the reference point lies this share of the range beyond the worst value


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """The front of one study.

    Attributes:
        objectives: What it trades off.
        members: On the front, in order of the first objective, best first.
        dominated: Measured, within all bounds, beaten by a member.
        missed: Measured, but a bound is missed.
        infeasible: Cannot run.
        failed: Broke and were not retried with success.
        knee: The member that would be missed most, or None on an empty front.
        hypervolume: Share of the box between the ideal and the reference point, in [0, 1].
    """

    objectives: tuple[Objective, ...]
    members: tuple[TrialRecord, ...]
    dominated: tuple[TrialRecord, ...]
    missed: tuple[TrialRecord, ...]
    infeasible: tuple[TrialRecord, ...]
    failed: tuple[TrialRecord, ...]
    knee: TrialRecord | None
    hypervolume: float


class FrontKeeper:
    """Computes the front of a growing set of records, each of which is weighed only once."""

    def __init__(self, objectives: Sequence[Objective], constraints: Sequence[Constraint]) -> None:
        self._objectives = tuple(objectives)
        self._constraints = tuple(constraints)
        self._costs: dict[str, NDArray[np.float64] | None] = {}

    def front(self, records: Sequence[TrialRecord]) -> Front:
        """Sort records into front, dominated, missed, infeasible and failed.

        The same front comes out whatever the order of the records. Of repeated trials of one
        deployment, each is a point of its own.
        """
        ordered = sorted(records, key=lambda record: record.number)
        measured = [record for record in ordered if isinstance(record.outcome, Completed)]
        weighed = [(record, self._weighed(record)) for record in measured]
        feasible = [record for record, cost in weighed if cost is not None]
        costs = np.asarray([cost for _, cost in weighed if cost is not None], dtype=float)
        costs = costs.reshape(len(feasible), len(self._objectives))
        on_front = _nondominated(costs)
        members = list(compress(feasible, on_front))
        losses = knee_weights(costs[on_front])
        return Front(
            objectives=self._objectives,
            members=tuple(members[index] for index in np.lexsort(costs[on_front].T[::-1])),
            dominated=tuple(compress(feasible, ~on_front)),
            missed=tuple(record for record, cost in weighed if cost is None),
            infeasible=tuple(_of_kind(ordered, Infeasible)),
            failed=_lost(ordered),
            knee=members[int(np.argmax(losses))] if members else None,
            hypervolume=hypervolume(costs, costs),
        )

    def _weighed(self, record: TrialRecord) -> NDArray[np.float64] | None:
        """Return a measured record's costs, or None where it misses a bound."""
        if record.uid not in self._costs:
            assert isinstance(record.outcome, Completed)
            within = meets(record.outcome, self._constraints)
            costs = costs_of([record], self._objectives)[0] if within else None
            self._costs[record.uid] = costs
        return self._costs[record.uid]


def front_of(
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
) -> Front:
    """Compute one front; see :meth:`FrontKeeper.front`."""
    return FrontKeeper(objectives, constraints).front(records)


def costs_of(
    records: Sequence[TrialRecord], objectives: Sequence[Objective]
) -> NDArray[np.float64]:
    """Return measured objectives, all to be minimized, logarithmic where ratios count.

    Returns:
        Shape ``(records, objectives)``.
    """
    rows = []
    for record in records:
        assert isinstance(record.outcome, Completed)
        outcome = record.outcome
        rows.append(
            [
                _sign(objective)
                * value_from_metric(outcome.metric(objective.metric.name).value, objective.metric)
                for objective in objectives
            ]
        )
    return np.asarray(rows, dtype=float).reshape(len(rows), len(objectives))


def hypervolume(costs: NDArray[np.float64], frame: NDArray[np.float64]) -> float:
    """Return the share of a box that points dominate, in [0, 1].

    The box spans the best of each cost in ``frame`` to a little beyond the worst. Shares are
    comparable only within one frame: history and competitors must use a common one.

    Args:
        costs: Shape ``(points, objectives)``, minimized.
        frame: Shape ``(n, objectives)``; sets the box.
    """
    import moocore

    if not len(costs):
        return 0.0
    ideal, worst = frame.min(axis=0), frame.max(axis=0)
    width = np.where(worst > ideal, worst - ideal, 1.0)
    scaled = (costs - ideal) / width
    reference = 1.0 + _MARGIN
    volume = moocore.hypervolume(scaled, ref=np.full(costs.shape[1], reference))
    return float(volume / reference ** costs.shape[1])


def knee_weights(costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how much each front member would be missed, the largest being the knee.

    Expected marginal utility (Branke, Deb, Dierolf & Osswald 2004, "Finding knees in
    multi-objective optimization"): over all linear weightings of the costs, scaled to the front's
    own range, the loss if the member were not there.

    Args:
        costs: Shape ``(members, objectives)``, minimized.

    Returns:
        Shape ``(members,)``, >= 0.
    """
    members, objectives = costs.shape
    losses = np.zeros(members)
    if members < 2:  # noqa: PLR2004 - a lone member has nobody to be compared with
        return losses
    low, high = costs.min(axis=0), costs.max(axis=0)
    scaled = (costs - low) / np.where(high > low, high - low, 1.0)
    weights = np.asarray(list(_simplex(objectives)))
    utilities = scaled @ weights.T
    first, second = np.partition(utilities, 1, axis=0)[:2]
    np.add.at(losses, utilities.argmin(axis=0), second - first)
    return losses / len(weights)


def _nondominated(costs: NDArray[np.float64]) -> NDArray[np.bool_]:
    import moocore

    if not len(costs):
        return np.zeros(0, dtype=bool)
    # weakly: equal points are all members, for neither is better
    found: NDArray[np.bool_] = moocore.is_nondominated(costs, keep_weakly=True)
    return found


def _simplex(objectives: int) -> Iterator[list[float]]:
    """Yield weights that sum to 1, on a regular lattice."""
    for cuts in combinations_with_replacement(range(_WEIGHT_STEPS + 1), objectives - 1):
        edges = (0, *cuts, _WEIGHT_STEPS)
        yield [(right - left) / _WEIGHT_STEPS for left, right in pairwise(edges)]


def _sign(objective: Objective) -> int:
    return 1 if objective.direction is Direction.MINIMIZE else -1


def _lost(ordered: Sequence[TrialRecord]) -> tuple[TrialRecord, ...]:
    """Return the failed trials of deployments of which no other trial tells anything."""
    told = {
        record.outcome.deployment for record in ordered if not isinstance(record.outcome, Failed)
    }
    failed = _of_kind(ordered, Failed)
    return tuple(record for record in failed if record.outcome.deployment not in told)


def _of_kind(
    records: Sequence[TrialRecord], kind: type[Infeasible | Failed]
) -> Iterator[TrialRecord]:
    return (record for record in records if isinstance(record.outcome, kind))
