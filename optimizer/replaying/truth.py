"""What is to be found in a table, and how much of it a search has found."""

import numpy as np

from optimizer.front.volume import Costs, costs_of_values, hypervolume, nondominated
from optimizer.replaying.table import DeploymentTable


class Truth:
    """What is to be found in a table: feasible rows, their costs, the front and its volume.

    Attributes:
        feasible: Shape ``(rows,)``; measured, and every bound of the space is met.
        costs: Shape ``(rows, objectives)``; NaN where nothing was measured.
        members: Shape ``(members,)``; the rows on the front, ascending.
    """

    def __init__(self, table: DeploymentTable) -> None:
        self.feasible = table.completed.copy()
        for bound in table.space.constraints:
            column = table.metrics.column(bound.metric.name)
            meets = column <= bound.bound if bound.upper else column >= bound.bound
            self.feasible &= meets
        columns = [
            costs_of_values(table.metrics.column(one.metric.name), one)
            for one in table.space.objectives
        ]
        self.costs: Costs = np.stack(columns, axis=1)
        rows = np.flatnonzero(self.feasible)
        feasible = self.costs[rows]
        self.members = rows[nondominated(feasible)]
        # only the ends of the frame count; two rows are as good as all
        self._frame = np.stack([feasible.min(axis=0), feasible.max(axis=0)]) if rows.size else None
        self._whole = self.volume(self.costs[self.members])

    def volume(self, front: Costs) -> float:
        """Return the volume that points dominate in the frame of all feasible rows."""
        if self._frame is None or not len(front):
            return 0.0
        return hypervolume(np.unique(front, axis=0), self._frame)

    def share(self, front: Costs) -> float:
        """Return the volume that points dominate as a share of the full table's."""
        return self.volume(front) / self._whole if self._whole else 0.0


class GrowingFront:
    """The front of the rows that were tried so far.

    Attributes:
        share: Of the full table's hypervolume, in [0, 1].
    """

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._front: Costs = np.empty((0, truth.costs.shape[1]))
        self.share = 0.0

    def add(self, row: int) -> None:
        """Count a row; most change nothing, and cost next to nothing."""
        if not self._truth.feasible[row]:
            return
        cost = self._truth.costs[row]
        if (self._front <= cost).all(axis=1).any():
            return
        kept = self._front[~(cost <= self._front).all(axis=1)]
        self._front = np.vstack([kept, cost])
        self.share = max(self.share, self._truth.share(self._front))
