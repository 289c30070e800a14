"""How probable it is that a deployment belongs on the front: the front of each of many draws."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from optimizer.front.draws import BlocksOf, Drawer, Draws
from optimizer.front.front import Front
from optimizer.front.volume import costs_of_values, nondominated
from optimizer.study.records import TrialRecord
from search_spaces.space import Constraint, Objective

DRAWS = 500  # a probability of one half is then known to 4 points


def with_probabilities(front: Front, blocks_of: BlocksOf, *, draws: int = DRAWS) -> Front:
    """Return the front with the probability of each candidate that it belongs there.

    A candidate belongs where it meets all bounds and no other candidate that does is better. What
    was measured is drawn again and again (see ``draws``), and the share of fronts that have it is
    the probability.

    Args:
        front: Whose candidates compete; who is beaten for certain does not.
        blocks_of: Where raw blocks are to be had.
        draws: Number of draws, >= 1.
    """
    drawer = Drawer(blocks_of, draws=draws)
    return with_drawn_probabilities(front, drawer.drawn, draws=draws)


def with_drawn_probabilities(
    front: Front,
    drawn_of: Callable[[TrialRecord, Sequence[str]], dict[str, Draws]],
    *,
    draws: int,
) -> Front:
    """Do the same with draws from anywhere.

    Args:
        front: Whose candidates compete.
        drawn_of: Gives metrics of a candidate by name, each of shape ``(draws,)``.
        draws: Number of draws, >= 1.
    """
    objectives, constraints = front.objectives, front.constraints
    wanted: tuple[Objective | Constraint, ...] = (*objectives, *constraints)
    names = {one.metric.name for one in wanted}
    drawn = [drawn_of(one.record, sorted(names)) for one in front.candidates]
    shape = (draws, len(drawn), len(objectives))
    costs = np.empty(shape)
    within = np.ones(shape[:2], dtype=bool)
    for column, metrics in enumerate(drawn):
        for place, objective in enumerate(objectives):
            costs[:, column, place] = costs_of_values(metrics[objective.metric.name], objective)
        for one in constraints:
            within[:, column] &= _meets(metrics[one.metric.name], one)
    on_front = np.zeros(len(drawn))
    for cost, allowed in zip(costs, within, strict=True):
        on_front[np.flatnonzero(allowed)[nondominated(cost[allowed])]] += 1
    return replace(
        front,
        candidates=tuple(
            replace(one, probability=float(times) / draws)
            for one, times in zip(front.candidates, on_front, strict=True)
        ),
    )


def _meets(values: NDArray[np.float64], constraint: Constraint) -> NDArray[np.bool_]:
    met: NDArray[np.bool_] = (
        values <= constraint.bound if constraint.upper else values >= constraint.bound
    )
    return met
