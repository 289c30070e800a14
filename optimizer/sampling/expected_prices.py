"""What trying a point would cost: seconds for its engine, unless it is there, and of its own."""

from collections.abc import Sequence

import numpy as np

from optimizer.sampling.history import Observation
from optimizer.sampling.kernel import Matrix
from optimizer.sampling.lattice import Lattice, Rows

_RIDGE = 0.3  # of an observation: one value of an axis is believed for about three quarters
_LEAST_S = 1e-3


class ExpectedPrices:
    """What trials will cost, from what others did.

    Logarithms of prices are taken to be sums of effects of the axes, shrunk to the mean (ridge
    regression), so that a costly variant is known for one after its first engine.
    """

    def __init__(self, lattice: Lattice, seen: Sequence[Observation]) -> None:
        self._lattice = lattice
        self._places = [at for at, axis in enumerate(lattice.axes) if len(axis.codes) > 1]
        self._shared = [at for at in self._places if lattice.axes[at].is_shared]
        self._seen = seen
        rows = np.array([one.row for one in seen], dtype=np.int64)
        self._stored = np.zeros(int(lattice.engines.max()) + 1, dtype=bool)
        self._stored[lattice.engines[rows]] = True

    def expected(self, rows: Rows, *, pending: Rows) -> tuple[Matrix, Matrix]:
        """Return what points will cost: of what is shared, and of their own, seconds.

        Args:
            rows: Shape ``(n,)``.
            pending: Points whose engines are being built.

        Returns:
            Each of shape ``(n,)``; the first is 0 where the engine is there.
        """
        stored = self._stored.copy()
        stored[self._lattice.engines[pending]] = True
        paid = [one for one in self._seen if one.shared_s > 0]
        shared_s = self._effects(
            [one.row for one in paid], [one.shared_s for one in paid], rows, self._shared
        )
        # what could not run was not measured, and ended early or with a build that took long
        ran = [one for one in self._seen if one.costs is not None] or self._seen
        own_s = self._effects(
            [one.row for one in ran], [one.own_s for one in ran], rows, self._places
        )
        return np.where(stored[self._lattice.engines[rows]], 0.0, shared_s), own_s

    def _effects(
        self, known: list[int], seconds: list[float], rows: Rows, places: list[int]
    ) -> Matrix:
        if not known:
            return np.zeros(len(rows))
        logs = np.log(np.maximum(seconds, _LEAST_S))
        center = logs.mean()
        if not places:
            return np.full(len(rows), float(np.exp(center)))
        design = self._indicators(np.array(known, dtype=np.int64), places)
        square = design.T @ design + _RIDGE * np.eye(design.shape[1])
        effects = np.linalg.solve(square, design.T @ (logs - center))
        return np.asarray(np.exp(center + self._indicators(rows, places) @ effects))

    def _indicators(self, rows: Rows, places: list[int]) -> Matrix:
        points = self._lattice.points[rows]
        blocks = [np.eye(len(self._lattice.axes[at].codes))[points[:, at]] for at in places]
        return np.concatenate(blocks, axis=1)
