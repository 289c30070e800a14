"""Costs of measured deployments, and what can be computed from costs alone.

Costs are objectives that are all to be minimized, logarithmic where ratios count. Dominance,
hypervolume and ranks come from the moocore library; this module decides what goes in.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement, pairwise

import numpy as np
from numpy.typing import NDArray

from optimizer.study.objectives import value_from_metric
from optimizer.study.records import TrialRecord
from search_spaces.metrics import Direction, Scale
from search_spaces.space import Objective
from trials.outcome import Completed

Costs = NDArray[np.float64]

_WEIGHT_STEPS = 20  # 231 weightings of three objectives: enough to rank a front of dozens
_MARGIN = 0.1  # the reference point lies this share of the range beyond the worst value


def cost_of(value: float, objective: Objective) -> float:
    """Return a metric's value as a cost.

    Raises:
        ValueError: A value <= 0 on a log scale.
    """
    scaled = value_from_metric(value, objective.metric)
    return scaled if objective.direction is Direction.MINIMIZE else -scaled


def costs_of_values(values: NDArray[np.float64], objective: Objective) -> NDArray[np.float64]:
    """Return a metric's values as costs; one that is <= 0 on a log scale is infinitely low.

    Args:
        values: Any shape, in people's units.
        objective: Gives scale and direction.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.log10(values) if objective.metric.scale is Scale.LOG else values
    scaled = np.where(np.isnan(scaled), -np.inf, scaled)
    return scaled if objective.direction is Direction.MINIMIZE else -scaled


def costs_of(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> Costs:
    """Return the costs of measured records.

    Returns:
        Shape ``(records, objectives)``.
    """
    rows = []
    for record in records:
        assert isinstance(record.outcome, Completed)
        metric = record.outcome.metric
        rows.append([cost_of(metric(one.metric.name).value, one) for one in objectives])
    return np.asarray(rows, dtype=float).reshape(len(rows), len(objectives))


def nondominated(costs: Costs) -> NDArray[np.bool_]:
    """Tell which points nothing beats; equal points are all among them.

    Args:
        costs: Shape ``(points, objectives)``.
    """
    import moocore

    if not len(costs):
        return np.zeros(0, dtype=bool)
    # weakly: equal points are all members, for neither is better
    found: NDArray[np.bool_] = moocore.is_nondominated(costs, keep_weakly=True)
    return found


def hypervolume(costs: Costs, frame: Costs) -> float:
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


def knee_weights(costs: Costs) -> NDArray[np.float64]:
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
    weights = np.asarray(list(_simplex(objectives)))
    utilities = scaled_to_range(costs) @ weights.T
    first, second = np.partition(utilities, 1, axis=0)[:2]
    np.add.at(losses, utilities.argmin(axis=0), second - first)
    return losses / len(weights)


def scaled_to_range(costs: Costs) -> Costs:
    """Scale each cost to [0, 1] over the points; one that all share becomes 0.

    Args:
        costs: Shape ``(points, objectives)``, at least one point.
    """
    low, high = costs.min(axis=0), costs.max(axis=0)
    scaled: Costs = (costs - low) / np.where(high > low, high - low, 1.0)
    return scaled


def _simplex(objectives: int) -> Iterator[list[float]]:
    """Yield weights that sum to 1, on a regular lattice."""
    for cuts in combinations_with_replacement(range(_WEIGHT_STEPS + 1), objectives - 1):
        edges = (0, *cuts, _WEIGHT_STEPS)
        yield [(right - left) / _WEIGHT_STEPS for left, right in pairwise(edges)]
