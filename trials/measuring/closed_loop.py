"""The closed loop: worker threads that keep an engine busy, and the clock that times them.

Each worker sends its next request when the last one has come back, so ``workers`` requests are in
flight at any moment of a block. What makes the numbers honest:

* A request is two readings of the clock around one call; everything else is done between blocks.
  The stamps go into arrays that were allocated, and touched, before.
* Threads and bound buffers live as long as the loop; a block begins at a barrier and starts no
  thread.
* **Throughput is unbiased however short a block is.** Each worker ends with the first request of
  its own that comes back after the block's time is over and the requests are enough, and *that
  request counts*. The number of requests is then a stopping time, so by Wald's identity the
  requests and the time up to the worker's own last end, both summed over blocks, have the ratio
  1 / (mean time per request), be it two requests per block or a thousand. The window of a block is
  therefore the mean over the workers of (own last end - own begin). Up to the last end of all,
  early finishers would be counted as idle; cut at a fixed time, a request of 80 ms in a block of
  100 ms would lose a fifth of the work.
* A worker that is done goes on sending requests that are not counted until all are done, so that
  the last counted requests meet the same load as the others.

With several workers, requests of a few microseconds measure the interpreter's lock more than the
engine: two workers that send requests of 2 us get fewer through than one alone.

References:
    Wald, A. (1944), On cumulative sums of random variables. Ann. Math. Statist. 15, 283-296.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from time import perf_counter_ns
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from trials.backend import Engine, Request, Tensors
from trials.measurement import Block
from trials.measuring.crew import Crew, collector_at_rest
from trials.measuring.littles_law import check_littles_law, check_room, check_window

_NS_PER_S = 1_000_000_000
_FIRST_CAPACITY = 1 << 14  # stamps; doubled when full, which the warm-up sees to


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What a stretch of load must reach before it may end.

    Attributes:
        window_s: Least length, seconds.
        requests: Least number of requests of all workers together.
        each: Least number of requests of each worker, >= 1.
        cap_s: When to stop all the same, on the loop's clock: later, no request begins, except
            that each worker sends one.
    """

    window_s: float
    requests: int
    each: int = 1
    cap_s: float


class ClosedLoop:
    """Workers that drive one engine; a context manager, used by one thread.

    Any exception of a worker ends the loop and is raised, as it was, by the call that was waiting.
    """

    def __init__(
        self, engine: Engine, batches: Sequence[Tensors], *, workers: int, batch_size: int
    ) -> None:
        if not batches:
            raise ValueError("no batches make no load")
        self._crew = Crew(lambda _: engine.lane(batches), threads=workers)
        self._batch_size = batch_size
        self._origin_ns = perf_counter_ns()
        self._workers = tuple(_Worker() for _ in range(workers))

    def __enter__(self) -> Self:
        """Start the workers and wait until each has bound its requests.

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
        """Release the workers; a lane that breaks while it is left is an error too."""
        self._crew.__exit__(kind, error, traceback)

    @property
    def threads(self) -> tuple[int, ...]:
        """Native ids of the worker threads."""
        return self._crew.threads

    def now_s(self) -> float:
        """Read the loop's clock, seconds since the loop was made."""
        return (perf_counter_ns() - self._origin_ns) / _NS_PER_S

    def cold_call(self) -> float:
        """Let the first worker send one request alone and return its seconds."""
        self._crew.do(
            _Stretch(workers=self._workers, window_ns=0, requests=1, each=0, cap_ns=0, alone=True)
        )
        return self._workers[0].last_ns / _NS_PER_S

    def block(self, quota: Quota) -> Block:
        """Keep the engine busy until the quota is reached; raise what a worker raised.

        The garbage collector rests meanwhile.

        Raises:
            StampsError: The stamps contradict the block (Little's law).
        """
        stretch = _Stretch(
            workers=self._workers,
            window_ns=round(quota.window_s * _NS_PER_S),
            requests=quota.requests,
            each=quota.each,
            cap_ns=self._origin_ns + round(quota.cap_s * _NS_PER_S),
        )
        with collector_at_rest():
            self._crew.do(stretch)
        starts_ns = np.concatenate([worker.starts_ns() for worker in self._workers])
        ends_ns = np.concatenate([worker.ends_ns() for worker in self._workers])
        order = np.argsort(ends_ns, kind="stable")
        begin_ns = min(worker.begin_ns for worker in self._workers)
        window_ns = sum(worker.window_ns() for worker in self._workers) / len(self._workers)
        block = Block(
            start_s=(begin_ns - self._origin_ns) / _NS_PER_S,
            window_s=window_ns / _NS_PER_S,
            latencies_s=(ends_ns - starts_ns)[order] / _NS_PER_S,
            batch_size=self._batch_size,
        )
        check_littles_law(block, begins_ns=starts_ns, ends_ns=ends_ns, window_ns=window_ns)
        check_window(
            starts_ns,
            ends_ns,
            from_ns=begin_ns,
            window_ns=window_ns,
            room=len(self._workers),
        )
        check_room(starts_ns, ends_ns, room=len(self._workers))
        return block


class _Worker:
    """What one thread owns: its requests and its stamps, in nanoseconds of the raw clock."""

    __slots__ = ("_ends", "_is_bound", "_starts", "begin_ns", "count", "last_ns", "requests")

    def __init__(self) -> None:
        self.requests: Iterator[Request] = iter(())
        self._is_bound = False
        self._starts = array("q", bytes(8 * _FIRST_CAPACITY))
        self._ends = array("q", bytes(8 * _FIRST_CAPACITY))
        self.begin_ns = 0
        self.last_ns = 0
        self.count = 0

    def bind(self, lane: Sequence[Request], *, offset: int) -> None:
        """Take the requests of a lane from ``offset`` on, the first time; then go on with them."""
        if not self._is_bound:
            self._is_bound = True
            self.requests = cycle([*lane[offset:], *lane[:offset]])

    def send_alone(self) -> None:
        """Send one request and keep how long it took."""
        request = next(self.requests)
        start = perf_counter_ns()
        request()
        self.last_ns = perf_counter_ns() - start

    def send(self, number: int, stretch: "_Stretch") -> None:
        """Send requests until the stretch has enough; the loop to keep tight."""
        clock, requests, is_enough = perf_counter_ns, self.requests, stretch.is_enough
        starts, ends = self._starts, self._ends
        first = 0
        self.begin_ns = clock()
        stop = min(self.begin_ns + stretch.window_ns, stretch.cap_ns)
        while True:
            # zip asks the range first, so that no request is skipped when the arrays are full
            for at, request in zip(range(first, len(starts)), requests):  # noqa: B905 (endless)
                start = clock()
                request()
                end = clock()
                starts[at] = start
                ends[at] = end
                if end >= stop and is_enough(number, at + 1, end):
                    self.count = at + 1
                    return
            first = len(starts)
            starts.extend(starts)
            ends.extend(ends)

    def starts_ns(self) -> NDArray[np.int64]:
        """Copy out when requests began, shape ``(count,)``."""
        return np.frombuffer(self._starts, dtype=np.int64)[: self.count].copy()

    def ends_ns(self) -> NDArray[np.int64]:
        """Copy out when requests ended, shape ``(count,)``."""
        return np.frombuffer(self._ends, dtype=np.int64)[: self.count].copy()

    def window_ns(self) -> int:
        """Return the time from this worker's begin to its last end."""
        return self._ends[self.count - 1] - self.begin_ns


@dataclass(slots=True, kw_only=True, eq=False)
class _Stretch:
    """One stretch of load, a crew's job; its lists rely on the interpreter's lock."""

    workers: tuple[_Worker, ...]
    window_ns: int
    requests: int
    each: int
    cap_ns: int
    alone: bool = False
    is_cancelled: bool = False
    _counts: list[int] = field(init=False)
    _done: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._counts = [0] * len(self.workers)
        self._done = []

    def cancel(self) -> None:
        self.is_cancelled = True

    def work(self, number: int, lane: Sequence[Request]) -> None:
        worker, workers = self.workers[number], len(self.workers)
        # workers begin apart, so that they do not send the same inputs in step
        worker.bind(lane, offset=number * len(lane) // workers)
        if self.alone:
            if number == 0:
                worker.send_alone()
            return
        try:
            worker.send(number, self)
        finally:
            self._done.append(number)  # a broken worker must not keep the others waiting
        clock, requests, done = perf_counter_ns, worker.requests, self._done
        while len(done) < workers and not self.is_cancelled and clock() < self.cap_ns:
            next(requests)()

    def is_enough(self, number: int, count: int, now_ns: int) -> bool:
        """Tell a worker whose time is over whether it may end; counts it in."""
        counts = self._counts
        counts[number] = count
        if now_ns >= self.cap_ns or self.is_cancelled:
            return True
        return count >= self.each and sum(counts) >= self.requests
