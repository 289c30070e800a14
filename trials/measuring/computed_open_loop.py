"""An open loop whose time is computed: the same batcher and lanes on a virtual clock. Pure."""

import heapq

import numpy as np
from numpy.typing import NDArray

from trials.abilities import ComputesServices
from trials.measuring.batcher import Batcher
from trials.measuring.served import NS_PER_S, Served, Timetable

_CHUNK = 1024  # batches whose times are drawn at once, for every size


class ComputedOpenLoop:
    """Lanes over an engine that computes how long batches take; used by one thread."""

    threads: tuple[int, ...] = ()

    def __init__(self, engine: ComputesServices, *, lanes: int, batcher: Batcher) -> None:
        self._engine = engine
        self._lanes = lanes
        self._batcher = batcher
        self._now_ns = 0

    def now_s(self) -> float:
        """Read the virtual clock, seconds."""
        return self._now_ns / NS_PER_S

    def cold_call(self) -> float:
        """Let one batch of the largest size pass and return its seconds."""
        took_s = float(self._engine.computed_services(start_s=self.now_s(), batches=1)[0, -1])
        self._now_ns += round(took_s * NS_PER_S)
        return took_s

    def warm(self, until_s: float) -> None:
        """Do nothing: nothing warms up."""

    def serve(self, timetable: Timetable) -> Served:
        """Serve a timetable on virtual time."""
        begin_ns = self._now_ns
        due_ns = begin_ns + np.round(timetable.due_s * NS_PER_S).astype(np.int64)
        stop_ns = begin_ns + round(timetable.patience_s * NS_PER_S)
        due: list[int] = due_ns.tolist()
        free_ns = [begin_ns] * self._lanes
        rows: list[tuple[int, int, int]] = []
        took_ns = np.empty((0, 0), dtype=np.int64)
        first = 0
        while first < timetable.counted and free_ns[0] < stop_ns:
            moment_ns, size = self._batcher.next_batch(due, first, free_ns[0])
            if len(rows) % _CHUNK == 0:
                took_ns = self._drawn_ns(moment_ns)
            end_ns = moment_ns + int(took_ns[len(rows) % _CHUNK, size - 1])
            heapq.heapreplace(free_ns, end_ns)
            rows.append((size, moment_ns, end_ns))
            first += size
        table = np.array(rows, dtype=np.int64).reshape(-1, 3)
        self._now_ns = int(table[:, 2].max(initial=begin_ns + 1))
        return Served(
            begin_ns=begin_ns,
            due_ns=due_ns,
            sizes=table[:, 0].astype(np.int32),
            filled=table[:, 0].astype(np.int32),
            moments_ns=table[:, 1],
            starts_ns=table[:, 1],
            ends_ns=table[:, 2],
        )

    def _drawn_ns(self, moment_ns: int) -> NDArray[np.int64]:
        """Draw how long the next batches take, shape ``(_CHUNK, largest)``, nanoseconds."""
        drawn_s = self._engine.computed_services(start_s=moment_ns / NS_PER_S, batches=_CHUNK)
        return np.round(drawn_s * NS_PER_S).astype(np.int64)
