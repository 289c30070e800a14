"""Execution contexts of a device under one stretch of load: what is sent, seen and stamped.

The rules are those of ``device_loop``, which makes blocks of the stamps. What stands here runs
while a device is timed, in the threads that drive it.
"""

from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trials.abilities import RequestQueue

_FIRST_CAPACITY = 1 << 12  # requests of a context; doubled when full, which the warm-up sees to

Clock = Callable[[], int]
Queues = Sequence[RequestQueue]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """Requests of all contexts, in no order; each of shape ``(requests,)``."""

    begins_ns: NDArray[np.int64]
    sent_ns: NDArray[np.int64]
    enqueue_ns: NDArray[np.int64]
    ends_ns: NDArray[np.int64]
    gpu_s: NDArray[np.float64]


def joined(contexts: "Sequence[Context]") -> Seen:
    """Put together what all contexts have seen, at least one."""
    pieces = [context.seen() for context in contexts]
    return Seen(
        begins_ns=np.concatenate([one.begins_ns for one in pieces]),
        sent_ns=np.concatenate([one.sent_ns for one in pieces]),
        enqueue_ns=np.concatenate([one.enqueue_ns for one in pieces]),
        ends_ns=np.concatenate([one.ends_ns for one in pieces]),
        gpu_s=np.concatenate([one.gpu_s for one in pieces]),
    )


class Context:
    """One execution context: what it was asked in which order, and the stamps of what it served.

    Used by the thread that drives it, and between blocks by the loop.
    """

    __slots__ = (
        *("_ends", "_enqueues", "_flight", "_gpu", "_places", "_sent"),
        *("begin_ns", "count", "depth", "is_counting", "queue", "stop_ns"),
    )

    def __init__(self, *, offset: int, batches: int) -> None:
        """Begin with the batch at ``offset``, and go round through all of them."""
        self.queue: RequestQueue
        self.depth = 1  # until a queue says otherwise
        self.begin_ns = 0
        self.stop_ns = 0
        self.count = 0
        self.is_counting = False
        places = range(batches)
        self._places = cycle([*places[offset:], *places[:offset]])
        self._flight: deque[tuple[int, int]] = deque()
        self._sent = array("q", bytes(8 * _FIRST_CAPACITY))
        self._enqueues = array("q", bytes(8 * _FIRST_CAPACITY))
        self._ends = array("q", bytes(8 * _FIRST_CAPACITY))
        self._gpu = array("d", bytes(8 * _FIRST_CAPACITY))

    def take(self, queue: RequestQueue) -> None:
        """Go on with the requests that a thread has bound."""
        self.queue, self.depth = queue, queue.depth

    def begin(self, clock: Clock, *, window_ns: int, cap_ns: int) -> None:
        """Fill the window."""
        self.count, self.is_counting = 0, True
        self.begin_ns = clock()
        self.stop_ns = min(self.begin_ns + window_ns, cap_ns)
        for _ in range(self.depth):
            self.send(clock)

    def send(self, clock: Clock) -> None:
        """Ask for the next request; of the loop to keep tight, as is ``end``."""
        place = next(self._places)
        start = clock()
        self.queue.send(place)
        self._flight.append((start, clock() - start))

    def end(self, now_ns: int) -> None:
        """Take the oldest request out of flight, whose end was seen now."""
        sent, enqueue = self._flight.popleft()
        gpu_s = self.queue.finish()
        if not self.is_counting:
            return
        at = self.count
        if at == len(self._sent):
            for stamps in (self._sent, self._enqueues, self._ends, self._gpu):
                stamps.extend(stamps)  # type: ignore[arg-type] # of its own type
        self._sent[at] = sent
        self._enqueues[at] = enqueue
        self._ends[at] = now_ns
        self._gpu[at] = gpu_s
        self.count = at + 1

    def drain(self) -> None:
        """Wait for what is still in flight; it does not count."""
        while self._flight:
            self.queue.wait()
            self._flight.popleft()
            self.queue.finish()

    def window_ns(self) -> int:
        """Return the time from this context's begin to its last end."""
        return self._ends[self.count - 1] - self.begin_ns

    def seen(self) -> Seen:
        """Copy out what counts; a request begins when the one before it has ended."""
        sent, ends = self._copied(self._sent, np.int64), self._copied(self._ends, np.int64)
        before = np.concatenate([[self.begin_ns], ends[:-1]])
        return Seen(
            begins_ns=np.maximum(sent, before),
            sent_ns=sent,
            enqueue_ns=self._copied(self._enqueues, np.int64),
            ends_ns=ends,
            gpu_s=self._copied(self._gpu, np.float64),
        )

    def _copied(self, stamps: "array[Any]", dtype: type[np.generic]) -> NDArray[Any]:
        return np.frombuffer(stamps, dtype=dtype)[: self.count].copy()


class Alone:
    """One request of one context, a crew's job."""

    def __init__(self, context: Context, clock: Clock) -> None:
        self._context = context
        self._clock = clock
        self.took_ns = 0

    def cancel(self) -> None:
        """Do nothing: it is over soon."""

    def work(self, number: int, queues: Queues) -> None:
        """Let the first thread serve it and take its time."""
        if number > 0:
            return
        self._context.take(queues[0])
        start = self._clock()
        self._context.send(self._clock)
        self._context.queue.wait()
        self.took_ns = self._clock() - start
        self._context.drain()


@dataclass(slots=True, kw_only=True, eq=False)
class Stretch:
    """One stretch of load, a crew's job; its lists rely on the interpreter's lock."""

    contexts: tuple[Context, ...]
    threads: int
    clock: Clock
    window_ns: int
    requests: int
    each: int
    cap_ns: int
    is_cancelled: bool = False
    _done: list[int] = field(default_factory=list)

    def cancel(self) -> None:
        """Let all contexts rest with their next request."""
        self.is_cancelled = True

    def work(self, number: int, queues: Queues) -> None:
        """Drive every context of this thread until all contexts have what they need."""
        mine = self.contexts[number :: self.threads]
        for context, queue in zip(mine, queues, strict=True):
            context.take(queue)
        for context in mine:
            context.begin(self.clock, window_ns=self.window_ns, cap_ns=self.cap_ns)
        drive = self._drive_one if len(mine) == 1 else self._drive_all
        drive(mine)
        for context in mine:
            context.drain()

    def _drive_one(self, mine: Sequence[Context]) -> None:
        clock, context = self.clock, mine[0]
        while not self._is_over():
            context.queue.wait()
            context.end(now := clock())
            self._note(context, now)
            context.send(clock)

    def _drive_all(self, mine: Sequence[Context]) -> None:
        clock = self.clock
        while not self._is_over():
            for context in mine:
                if context.queue.is_done():
                    context.end(now := clock())
                    self._note(context, now)
                    context.send(clock)

    def _is_over(self) -> bool:
        """Tell whether all have what they need; late ones must not wait for those that rest."""
        return len(self._done) == len(self.contexts) or self.is_cancelled

    def _note(self, context: Context, now_ns: int) -> None:
        """Let a context rest whose time is over, if all together have served enough."""
        if not context.is_counting or now_ns < context.stop_ns:
            return
        served = sum(one.count for one in self.contexts)
        is_enough = context.count >= self.each and served >= self.requests
        if is_enough or now_ns >= self.cap_ns or self.is_cancelled:
            context.is_counting = False
            self._done.append(context.count)
