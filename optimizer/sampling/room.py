"""How much hypervolume a point would add to a front: exact, and quick for many points.

The box between a point and the reference is cut at the coordinates of the front. In each cell
either all or nothing is dominated, so the free volume above a point is multilinear within a cell,
and a table of it at the corners gives it exactly everywhere.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

Costs = NDArray[np.float64]

_MOST_CELLS = 1_000_000  # of the table; beyond it neighbouring coordinates of the front are merged
_FLOOR = -0.5  # no point is taken to be better than the ideal by more than half the box


class Room:
    """The volume that a front leaves free below a reference of 1 in every cost.

    Args:
        front: Scaled costs to be minimized, shape ``(members, costs)``.
    """

    def __init__(self, front: Costs) -> None:
        count = front.shape[1]
        inside = np.clip(front[(front < 1).all(axis=1)], _FLOOR, 1)
        most = _most_edges(inside)
        self._edges = [_edges(inside[:, at], most[at]) for at in range(count)]
        shape = [len(edges) - 1 for edges in self._edges]
        taken = np.zeros(shape, dtype=bool)
        if len(inside):
            lowest = [
                np.searchsorted(edges, inside[:, at], side="left")
                for at, edges in enumerate(self._edges)
            ]
            within = np.all([low < size for low, size in zip(lowest, shape, strict=True)], axis=0)
            taken[tuple(low[within] for low in lowest)] = True
            for at in range(count):
                taken = np.logical_or.accumulate(taken, axis=at)
        volume = np.where(taken, 0.0, 1.0)
        for at, edges in enumerate(self._edges):
            sizes = [1] * count
            sizes[at] = -1
            volume = volume * np.diff(edges).reshape(sizes)
        table = np.zeros([size + 1 for size in shape])
        table[tuple(slice(0, size) for size in shape)] = volume
        for at in range(count):
            table = np.flip(np.flip(table, axis=at).cumsum(axis=at), axis=at)
        self._table = table
        self._flat = np.ascontiguousarray(table).ravel()
        self._strides = [int(np.prod(table.shape[at + 1 :])) for at in range(count)]

    def above(self, costs: Costs) -> Costs:
        """Return the free volume that each point would dominate.

        Args:
            costs: Scaled, shape ``(…, costs)``.

        Returns:
            Shape ``(…)``.
        """
        lows, shares = [], []
        for at, edges in enumerate(self._edges):
            value = np.clip(costs[..., at], edges[0], edges[-1])
            low = np.clip(np.searchsorted(edges, value, side="right") - 1, 0, len(edges) - 2)
            lows.append(low)
            shares.append((value - edges[low]) / (edges[low + 1] - edges[low]))
        base = np.zeros(costs.shape[:-1], dtype=np.int64)
        for low, stride in zip(lows, self._strides, strict=True):
            base += low * stride
        total = np.zeros(costs.shape[:-1])
        for corner in itertools.product((0, 1), repeat=len(lows)):
            weight = np.ones(costs.shape[:-1])
            for share, upper in zip(shares, corner, strict=True):
                weight *= share if upper else 1 - share
            offset = sum(
                stride for stride, upper in zip(self._strides, corner, strict=True) if upper
            )
            total += weight * self._flat[base + offset]
        return total


def _edges(values: Costs, most: int) -> Costs:
    """Return the cuts of one cost, ends included; merged upwards where they are too many."""
    inner = np.unique(values[(values > _FLOOR) & (values < 1)])
    if len(inner) > most:
        inner = inner[np.unique(np.linspace(0, len(inner) - 1, most).round().astype(int))]
    return np.concatenate([[_FLOOR], inner, [1.0]])


def _most_edges(front: Costs) -> list[int]:
    """Say how many cuts each cost may have, so that the table stays small."""
    counts = [len(np.unique(front[:, at])) for at in range(front.shape[1])]
    while np.prod([count + 2 for count in counts], dtype=float) > _MOST_CELLS and max(counts) > 1:
        largest = int(np.argmax(counts))
        counts[largest] = max(1, counts[largest] * 3 // 4)
    return counts
