"""What is known of objectives before anything was measured."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from optimizer.sampling.kernel import Matrix
from optimizer.sampling.lattice import Lattice, Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class LittlesLaw:
    """Latency times throughput is what is in flight (Little 1961): two objectives are almost one.

    Both objectives are told as logarithms to base 10, the throughput to be maximized.

    Attributes:
        latencies: Places of the objectives that are latencies.
        throughput: Place of the throughput.
        amounts: By parameter, the log10 of the factor that each of its values puts in flight
            (a batch size, a concurrency).
    """

    latencies: tuple[int, ...]
    throughput: int
    amounts: Mapping[str, tuple[float, ...]]

    def in_flight(self, lattice: Lattice) -> Matrix:
        """Return the log10 of what each point has in flight, shape ``(points,)``."""
        total = np.zeros(len(lattice))
        for place, axis in enumerate(lattice.axes):
            if axis.name in self.amounts:
                total += np.array(self.amounts[axis.name])[lattice.points[:, place]]
        return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """What a sampler may count on.

    Attributes:
        of_engine: Places of the objectives that are the same for all points of one engine, as an
            accuracy is.
        bounds_of_engine: Names of the constraints of which that is so.
        law: How latency and throughput hang together; None where they do not.
    """

    of_engine: frozenset[int] = field(default_factory=frozenset)
    bounds_of_engine: frozenset[str] = field(default_factory=frozenset)
    law: LittlesLaw | None = None


class Coordinates:
    """Objectives as they are modelled: of a latency, what Little's law does not say already.

    Args:
        lattice: The space.
        law: See :class:`Knowledge`.
    """

    def __init__(self, lattice: Lattice, law: LittlesLaw | None) -> None:
        self._law = law
        self._in_flight = None if law is None else law.in_flight(lattice)

    def modelled(self, costs: Matrix, rows: Rows) -> Matrix:
        """Return what is modelled of costs, shape ``(n, objectives)``, at points ``(n,)``."""
        return self._shifted(costs, rows, sign=-1.0)

    def costs(self, modelled: Matrix, rows: Rows) -> Matrix:
        """Return the costs again, shape ``(n, …, objectives)``."""
        return self._shifted(modelled, rows, sign=1.0)

    def summed(self, variances: Matrix) -> Matrix:
        """Return the variances of costs, from those of what is modelled."""
        return self.lowest(variances)

    def lowest(self, spreads: Matrix) -> Matrix:
        """Return how far costs may fall when all that is modelled falls by so much."""
        found = spreads.copy()
        if self._law is not None:
            for latency in self._law.latencies:
                found[..., latency] += spreads[..., self._law.throughput]
        return found

    def _shifted(self, values: Matrix, rows: Rows, *, sign: float) -> Matrix:
        if self._law is None or self._in_flight is None:
            return values
        found = values.copy()
        in_flight = self._in_flight[rows].reshape(-1, *[1] * (values.ndim - 2))
        # the cost of a throughput is its negative logarithm
        expected = values[..., self._law.throughput] + in_flight
        for latency in self._law.latencies:
            found[..., latency] = values[..., latency] + sign * expected
        return found
