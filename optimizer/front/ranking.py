"""Rank the members of a front for somebody who has preferences."""

from collections.abc import Mapping, Sequence

import numpy as np

from optimizer.front.front import Candidate, Front, front_of
from optimizer.front.volume import costs_of, scaled_to_range
from search_spaces.space import Objective


def by_weights(front: Front, weights: Mapping[str, float]) -> tuple[Candidate, ...]:
    """Order the members by a weighted sum of their costs, best first.

    Costs are scaled to the front's own range, latencies and throughputs by ratio, so that a weight
    says what going from the worst to the best of the front is worth.

    Args:
        front: Whose members are ranked.
        weights: By the name of an objective, >= 0; others weigh nothing.
    """
    members = _members(front)
    if not members:
        return ()
    share = [weights.get(objective.metric.name, 0.0) for objective in front.objectives]
    costs = costs_of([one.record for one in members], front.objectives)
    sums = scaled_to_range(costs) @ np.array(share)
    return tuple(members[index] for index in np.argsort(sums, kind="stable"))


def by_preference(front: Front, order: Sequence[Objective]) -> tuple[Candidate, ...]:
    """Order the members by what matters first, best first.

    Of the members that nothing is certain to beat in the first objective, the second decides, and
    so on: what cannot be told apart decides nothing. Then the values do, in the same order.
    """
    left = _members(front)
    ranked = []
    while left:
        best = _best(left, order)
        ranked.append(best)
        left.remove(best)
    return tuple(ranked)


def _best(members: Sequence[Candidate], order: Sequence[Objective]) -> Candidate:
    chosen = list(members)
    for objective in order:
        alike = front_of([one.record for one in chosen], (objective,), ())
        numbers = {one.record.number for one in alike.candidates}
        chosen = [one for one in chosen if one.record.number in numbers]
    costs = costs_of([one.record for one in chosen], order)
    return chosen[int(np.lexsort(costs.T[::-1])[0])]


def _members(front: Front) -> list[Candidate]:
    return [one for one in front.candidates if one.is_member]
