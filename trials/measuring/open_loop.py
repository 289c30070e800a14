"""The open loop: requests that come on their own, a batcher, and lanes that serve the batches.

A closed loop waits for the engine, so an engine that stalls is asked less while it stalls, and
the requests that would have met the stall are never counted (coordinated omission). Here every
request has a due time that was drawn before anything ran, and its latency counts from there.

* **No generator thread.** The arrivals are known, so a free lane itself works out when the next
  batch is to leave (``batcher``), waits for that moment, and sends it. One lane waits at a time;
  it hands the queue on when its batch leaves, as the leader of a server's thread pool does.
* **Waiting**: sleep until 100 us before the moment, then spin. With several lanes the spin gives
  up the processor and the interpreter's lock at each turn (``sched_yield``): a spin that holds
  the lock keeps another lane's answer from being stamped, by up to 100 us on an engine of 130.
  A single lane has no neighbour and spins hot, which on a busy machine is more punctual.
* **Lateness** is what the generator itself added: from the later of the batcher's moment and the
  lane's becoming free until the batch left. It is part of the latencies, and is recorded.
* Sizes are bound beforehand, each with its own inputs; a size that is not bound (an engine of a
  fixed batch, batches too large to bind each size, or sizes that cost a context each) takes the
  next larger one, and its filling is counted as ``filled``, never as requests.

References:
    Schroeder, B., Wierman, A. and Harchol-Balter, M. (2006), Open versus closed: a cautionary
        tale. NSDI '06.
    Tene, G. (2013), How not to measure latency. On coordinated omission.
"""

import ctypes
import os
import sys
from array import array
from collections.abc import Iterator, Sequence
from itertools import cycle
from threading import Lock
from time import perf_counter_ns, sleep
from types import TracebackType
from typing import Self

import numpy as np

from trials.backend import Engine, Request
from trials.measuring.batcher import Batcher
from trials.measuring.crew import Crew, collector_at_rest
from trials.measuring.ladder import Ladder
from trials.measuring.served import NS_PER_S, Served, Timetable

_SPIN_NS = 100_000  # a sleep of this machine kind ends up to 80 us late (p50), 135 us (p99)
_NAP_NS = 50_000_000  # longer sleeps are cut, so that a cancelled loop ends soon
_LEAD_NS = 2_000_000  # for every lane to wake up before the first request is due
_LISTING_NS = 100  # a request on the timetable, before the lanes can begin
_PR_SET_TIMERSLACK = 29  # linux/prctl.h
_COLUMNS = 6  # of a lane's records: first, size, filled, moment, start, end


class OpenLoop:
    """Lanes that serve timetables on one engine; a context manager, used by one thread."""

    def __init__(self, engine: Engine, ladder: Ladder, *, lanes: int, batcher: Batcher) -> None:
        batches = ladder.batches()
        self._crew = Crew(lambda _: engine.lane(batches), threads=lanes)
        self._ladder = ladder
        self._batcher = batcher
        self._lanes = lanes
        self._origin_ns = perf_counter_ns()

    def __enter__(self) -> Self:
        """Start the lanes, each with its requests bound.

        Raises:
            MemoryLimitError: The buffers do not fit.
        """
        self._crew.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release the lanes."""
        self._crew.__exit__(kind, error, traceback)

    @property
    def threads(self) -> tuple[int, ...]:
        """Native ids of the lanes' threads."""
        return self._crew.threads

    def now_s(self) -> float:
        """Read the loop's clock, seconds since the loop was made."""
        return (perf_counter_ns() - self._origin_ns) / NS_PER_S

    def cold_call(self) -> float:
        """Let the first lane send one batch of the largest size alone and return its seconds."""
        job = _Touch(self._ladder, sizes=self._ladder.sizes[-1:], lanes=1, until_ns=None)
        self._crew.do(job)
        return job.took_ns / NS_PER_S

    def warm(self, until_s: float) -> None:
        """Send every bound size once on every lane, the largest first, as far as time allows."""
        until_ns = self._origin_ns + round(until_s * NS_PER_S)
        sizes = tuple(reversed(self._ladder.sizes))
        self._crew.do(_Touch(self._ladder, sizes=sizes, lanes=self._lanes, until_ns=until_ns))

    def serve(self, timetable: Timetable) -> Served:
        """Serve a timetable; raise what a lane raised. The garbage collector rests meanwhile."""
        job = _Service(timetable, self._ladder, self._batcher, lanes=self._lanes)
        with collector_at_rest():
            self._crew.do(job)
        return job.served(self._origin_ns)


class _Touch:
    """Send single batches, for warmth."""

    def __init__(
        self, ladder: Ladder, *, sizes: Sequence[int], lanes: int, until_ns: int | None
    ) -> None:
        self._ladder = ladder
        self._sizes = sizes
        self._lanes = lanes
        self._until_ns = until_ns
        self.took_ns = 0

    def work(self, number: int, lane: Sequence[Request]) -> None:
        if number >= self._lanes:
            return
        for size in self._sizes:
            start = perf_counter_ns()
            if self._until_ns is not None and start >= self._until_ns:
                return
            lane[self._ladder.places(size)[0]]()
            self.took_ns = perf_counter_ns() - start

    def cancel(self) -> None:
        self._until_ns = 0


class _Service:
    """One timetable under way, shared by the lanes; whoever holds ``_turn`` owns the queue."""

    def __init__(
        self, timetable: Timetable, ladder: Ladder, batcher: Batcher, *, lanes: int
    ) -> None:
        self._ladder = ladder
        self._batcher = batcher
        after_ns = np.round(timetable.due_s * NS_PER_S).astype(np.int64)
        self._begin_ns = perf_counter_ns() + _LEAD_NS + _LISTING_NS * after_ns.size
        self._due_ns = self._begin_ns + after_ns
        self._due: list[int] = self._due_ns.tolist()  # plain integers are the fastest to look at
        self._counted = timetable.counted
        self._stop_ns = self._begin_ns + round(timetable.patience_s * NS_PER_S)
        self._records = tuple(array("q") for _ in range(lanes))
        self._spins_hot = lanes == 1 or not hasattr(os, "sched_yield")
        self._turn = Lock()
        self._head = 0
        self._answered = 0
        self._is_cancelled = False

    def cancel(self) -> None:
        self._is_cancelled = True

    def work(self, number: int, lane: Sequence[Request]) -> None:
        """Serve batches until all that count are answered; the loop to keep tight."""
        _sharpen_sleep()
        clock, turn, next_batch, due = (
            perf_counter_ns,
            self._turn,
            self._batcher.next_batch,
            self._due,
        )
        requests, filled = self._requests(lane), self._ladder.filled
        record = self._records[number].extend
        done = 0
        while True:
            free = clock()
            with turn:
                self._answered += done
                first = self._head
                if self._is_over(first, free):
                    return
                moment, size = next_batch(due, first, free)
                self._wait_until(moment)
                self._head = first + size
                start = clock()
            next(requests[size])()
            record((first, size, filled[size], moment, start, clock()))
            done = size

    def served(self, origin_ns: int) -> Served:
        """Put the lanes' records together."""
        rows = np.concatenate([np.frombuffer(one, dtype=np.int64) for one in self._records])
        table = rows.reshape(-1, _COLUMNS)
        table = table[np.argsort(table[:, 0], kind="stable")]
        _, sizes, filled, moments, starts, ends = table.T
        return Served(
            begin_ns=self._begin_ns - origin_ns,
            due_ns=self._due_ns - origin_ns,
            sizes=sizes.astype(np.int32),
            filled=filled.astype(np.int32),
            moments_ns=moments - origin_ns,
            starts_ns=starts - origin_ns,
            ends_ns=ends - origin_ns,
        )

    def _requests(self, lane: Sequence[Request]) -> list[Iterator[Request]]:
        """Return what to run for each number of waiting requests, from 0 on."""
        bound = {
            size: cycle([lane[at] for at in self._ladder.places(size)])
            for size in self._ladder.sizes
        }
        return [bound[size] for size in self._ladder.filled]

    def _is_over(self, first: int, now_ns: int) -> bool:
        return (
            self._answered >= self._counted
            or first >= len(self._due)
            or now_ns >= self._stop_ns
            or self._is_cancelled
        )

    def _wait_until(self, moment_ns: int) -> None:
        clock = perf_counter_ns
        while (left_ns := moment_ns - clock() - _SPIN_NS) > 0 and not self._is_cancelled:
            sleep(min(left_ns, _NAP_NS) / NS_PER_S)
        if self._spins_hot:
            while clock() < moment_ns:
                pass
        else:
            give_way = os.sched_yield
            while clock() < moment_ns:
                give_way()


def _sharpen_sleep() -> None:
    """Let this thread's sleeps end on time: Linux may round them up by 50 us for others' sake."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
