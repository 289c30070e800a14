"""The closed loop of a device: execution contexts that are kept busy, and the clocks that time it.

A device works apart from the host: a request is sent, which keeps the host busy for some
microseconds, and its end is seen later. Each context has a window of requests in flight: one that
runs and the next one in line, so that the device never waits for the host. ``contexts`` requests
are *served* at any moment; that is the concurrency of a deployment.

**Latency** is how long a context serves a request: from when the one before it was answered, or
from when it was sent if that was later, until its end was seen. It is what somebody waits for
whose request comes just when a context becomes free, as in a server that always has one waiting;
at an idle context the time to enqueue comes on top. So L = λW holds with L = ``contexts``. Apart
from that are recorded the time from sending, which includes waiting in line, the time that the
device ran (its own events around the run, without copies) and the time to enqueue.

**Who drives.** One thread drives all contexts in turns as long as it keeps up: it asks each
whether its oldest request is done, so that none waits for a slower one to be looked at. Where the
first stretch of load shows that it is busy enqueuing for most of its time, each context gets a
thread of its own, which waits without the interpreter's lock. Which it was is recorded.

Everything else is as in ``closed_loop``: each context ends with the first request of its own that
comes back after the time is over and the requests are enough, which counts; the window of a block
is the mean over the contexts of the time up to that; requests go on until all contexts are done.

References:
    NVIDIA, trtexec (samples/common/sampleInference.cpp): windows of two, events around the run.
"""

from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from math import fsum
from time import perf_counter_ns
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from trials.backend import QueuesRequests, RequestQueue, Tensors
from trials.measurement import Block, DeviceTimes, DeviceTiming
from trials.measuring.closed_loop import Quota
from trials.measuring.crew import Crew, collector_at_rest
from trials.measuring.littles_law import check_littles_law, check_room, check_window

ENQUEUE_BOUND = "enqueue_bound"
_BOUND_SHARE = 0.8  # of the device's time for a request, likewise trtexec's warning

_KEEPS_UP = 0.7  # busy enqueuing for more of its time, a thread is late for contexts that are done
_NS_PER_S = 1_000_000_000
_FIRST_CAPACITY = 1 << 12  # requests of a context; doubled when full, which the warm-up sees to

Clock = Callable[[], int]
Queues = Sequence[RequestQueue]


class DeviceLoop:
    """Contexts of one engine under load; a context manager, used by one thread.

    Any exception of a driving thread ends the loop and is raised, as it was, by the call that was
    waiting.
    """

    def __init__(
        self,
        engine: QueuesRequests,
        batches: Sequence[Tensors],
        *,
        contexts: int,
        batch_size: int,
        clock: Clock = perf_counter_ns,
    ) -> None:
        """Plan a load.

        Args:
            engine: Used by nobody else meanwhile.
            batches: Inputs that requests cycle over, at least one.
            contexts: Requests that are served at a time, >= 1.
            batch_size: Samples in each batch.
            clock: Reads nanoseconds.

        Raises:
            ValueError: No batch, or no context.
        """
        if contexts < 1 or not batches:
            raise ValueError(f"{contexts} contexts and {len(batches)} batches make no load")
        self._engine = engine
        self._batches = batches
        self._batch_size = batch_size
        self._clock = clock
        self._origin_ns = clock()
        # contexts begin apart, so that they do not send the same inputs in step
        self._contexts = tuple(
            _Context(offset=number * len(batches) // contexts, batches=len(batches))
            for number in range(contexts)
        )
        self._crew = self._crew_of(1)
        self._is_chosen = contexts == 1

    def __enter__(self) -> Self:
        """Start one thread and wait until it has bound the requests of all contexts.

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
        """Release the threads; a context that breaks while it is left is an error too."""
        self._crew.__exit__(kind, error, traceback)

    @property
    def threads(self) -> tuple[int, ...]:
        """Native ids of the driving threads."""
        return self._crew.threads

    def now_s(self) -> float:
        """Read the loop's clock, seconds since the loop was made."""
        return (self._clock() - self._origin_ns) / _NS_PER_S

    def cold_call(self) -> float:
        """Let the first context serve one request alone and return its seconds."""
        alone = _Alone(self._contexts[0], self._clock)
        self._crew.do(alone)
        return alone.took_ns / _NS_PER_S

    def block(self, quota: Quota) -> Block:
        """Keep the device busy until the quota is reached; raise what a thread raised.

        The first one also decides who drives, and is repeated where that changes.

        Raises:
            StampsError: The stamps contradict the block (Little's law).
        """
        block = self._block(quota)
        if not self._is_chosen:
            self._is_chosen = True
            if _enqueue_share([block], threads=1) > _KEEPS_UP:
                self._give_each_a_thread()
                block = self._block(quota)
        return block

    def timing(self, blocks: Sequence[Block]) -> DeviceTiming:
        """Say who drives, and where the time of requests went in blocks of this loop.

        Args:
            blocks: At least one.
        """
        return timing_of(blocks, depth=self._contexts[0].depth, threads=len(self.threads))

    def _crew_of(self, threads: int) -> Crew[Queues]:
        mine = len(self._contexts) // threads
        return Crew(lambda _: self._queues(mine), threads=threads)

    @contextmanager
    def _queues(self, count: int) -> Iterator[Queues]:
        """Bind the requests of that many contexts, in the thread that drives them."""
        with ExitStack() as held:
            opened: list[AbstractContextManager[RequestQueue]] = [
                self._engine.queue(self._batches) for _ in range(count)
            ]
            yield [held.enter_context(each) for each in opened]

    def _give_each_a_thread(self) -> None:
        self._crew.__exit__(None, None, None)
        self._crew = self._crew_of(len(self._contexts))
        self._crew.__enter__()

    def _block(self, quota: Quota) -> Block:
        contexts = self._contexts
        stretch = _Stretch(
            contexts=contexts,
            threads=len(self.threads),
            clock=self._clock,
            window_ns=round(quota.window_s * _NS_PER_S),
            requests=quota.requests,
            each=quota.each,
            cap_ns=self._origin_ns + round(quota.cap_s * _NS_PER_S),
        )
        with collector_at_rest():
            self._crew.do(stretch)
        return self._checked_block(_joined(contexts))

    def _checked_block(self, seen: "_Seen") -> Block:
        """Make a block of stamps, and hold it against them."""
        contexts = self._contexts
        order = np.argsort(seen.ends_ns, kind="stable")
        begin_ns = min(context.begin_ns for context in contexts)
        window_ns = sum(context.window_ns() for context in contexts) / len(contexts)
        block = Block(
            start_s=(begin_ns - self._origin_ns) / _NS_PER_S,
            window_s=window_ns / _NS_PER_S,
            latencies_s=(seen.ends_ns - seen.begins_ns)[order] / _NS_PER_S,
            batch_size=self._batch_size,
            device=DeviceTimes(
                gpu_s=seen.gpu_s[order],
                enqueue_s=seen.enqueue_ns[order] / _NS_PER_S,
                wall_s=(seen.ends_ns - seen.sent_ns)[order] / _NS_PER_S,
            ),
        )
        check_littles_law(
            block, begins_ns=seen.begins_ns, ends_ns=seen.ends_ns, window_ns=window_ns
        )
        check_window(
            seen.begins_ns,
            seen.ends_ns,
            from_ns=begin_ns,
            window_ns=window_ns,
            room=len(contexts),
        )
        check_room(seen.begins_ns, seen.ends_ns, room=len(contexts))
        check_room(seen.sent_ns, seen.ends_ns, room=len(contexts) * contexts[0].depth)
        return block


def timing_of(blocks: Sequence[Block], *, depth: int, threads: int) -> DeviceTiming:
    """Say where the time of requests went in blocks of a device.

    Args:
        blocks: At least one that has times of a device.
        depth: Requests in flight in each execution context, >= 1.
        threads: Of the host, that drove the contexts, >= 1.
    """
    times = [block.device for block in blocks if block.device is not None]
    gpu_s = np.concatenate([one.gpu_s for one in times])
    enqueue_s = np.concatenate([one.enqueue_s for one in times])
    wall_s = np.concatenate([one.wall_s for one in times])
    return DeviceTiming(
        depth=depth,
        threads=threads,
        enqueue_share=_enqueue_share(blocks, threads=threads),
        gpu_mean_s=fsum(gpu_s) / gpu_s.size,  # the same to the last digit on every processor
        gpu_p50_s=float(np.quantile(gpu_s, 0.5)),
        gpu_p99_s=float(np.quantile(gpu_s, 0.99)),
        enqueue_p50_s=float(np.quantile(enqueue_s, 0.5)),
        enqueue_p99_s=float(np.quantile(enqueue_s, 0.99)),
        wall_p50_s=float(np.quantile(wall_s, 0.5)),
        wall_p99_s=float(np.quantile(wall_s, 0.99)),
    )


def is_enqueue_bound(found: DeviceTiming) -> bool:
    """Tell whether asking for a request takes about as long as the device needs for it.

    The device may then wait for the host, and the speed is that of the host.
    """
    return found.enqueue_p50_s > _BOUND_SHARE * found.gpu_p50_s


def _enqueue_share(blocks: Sequence[Block], *, threads: int) -> float:
    """Return the share of its time that each thread was busy asking for requests."""
    busy_s = fsum(each for block in blocks if block.device for each in block.device.enqueue_s)
    return busy_s / (threads * fsum(block.window_s for block in blocks))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Seen:
    """Requests of all contexts, in no order; each of shape ``(requests,)``."""

    begins_ns: NDArray[np.int64]
    sent_ns: NDArray[np.int64]
    enqueue_ns: NDArray[np.int64]
    ends_ns: NDArray[np.int64]
    gpu_s: NDArray[np.float64]


def _joined(contexts: "Sequence[_Context]") -> _Seen:
    pieces = [context.seen() for context in contexts]
    return _Seen(
        begins_ns=np.concatenate([one.begins_ns for one in pieces]),
        sent_ns=np.concatenate([one.sent_ns for one in pieces]),
        enqueue_ns=np.concatenate([one.enqueue_ns for one in pieces]),
        ends_ns=np.concatenate([one.ends_ns for one in pieces]),
        gpu_s=np.concatenate([one.gpu_s for one in pieces]),
    )


class _Context:
    """One execution context: what it was asked in which order, and the stamps of what it served.

    Used by the thread that drives it, and between blocks by the loop.
    """

    __slots__ = (
        *("_ends", "_enqueues", "_flight", "_gpu", "_places", "_sent"),
        *("begin_ns", "count", "depth", "is_counting", "queue", "stop_ns"),
    )

    def __init__(self, *, offset: int, batches: int) -> None:
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

    def seen(self) -> _Seen:
        """Copy out what counts; a request begins when the one before it has ended."""
        sent, ends = self._copied(self._sent, np.int64), self._copied(self._ends, np.int64)
        before = np.concatenate([[self.begin_ns], ends[:-1]])
        return _Seen(
            begins_ns=np.maximum(sent, before),
            sent_ns=sent,
            enqueue_ns=self._copied(self._enqueues, np.int64),
            ends_ns=ends,
            gpu_s=self._copied(self._gpu, np.float64),
        )

    def _copied(self, stamps: "array[Any]", dtype: type[np.generic]) -> NDArray[Any]:
        return np.frombuffer(stamps, dtype=dtype)[: self.count].copy()


class _Alone:
    """One request of one context, a crew's job."""

    def __init__(self, context: _Context, clock: Clock) -> None:
        self._context = context
        self._clock = clock
        self.took_ns = 0

    def cancel(self) -> None:
        """Do nothing: it is over soon."""

    def work(self, number: int, queues: Queues) -> None:
        if number > 0:
            return
        self._context.take(queues[0])
        start = self._clock()
        self._context.send(self._clock)
        self._context.queue.wait()
        self.took_ns = self._clock() - start
        self._context.drain()


@dataclass(slots=True, kw_only=True, eq=False)
class _Stretch:
    """One stretch of load, a crew's job; its lists rely on the interpreter's lock."""

    contexts: tuple[_Context, ...]
    threads: int
    clock: Clock
    window_ns: int
    requests: int
    each: int
    cap_ns: int
    is_cancelled: bool = False
    _done: list[int] = field(default_factory=list)

    def cancel(self) -> None:
        self.is_cancelled = True

    def work(self, number: int, queues: Queues) -> None:
        mine = self.contexts[number :: self.threads]
        for context, queue in zip(mine, queues, strict=True):
            context.take(queue)
        for context in mine:
            context.begin(self.clock, window_ns=self.window_ns, cap_ns=self.cap_ns)
        drive = self._drive_one if len(mine) == 1 else self._drive_all
        drive(mine)
        for context in mine:
            context.drain()

    def _drive_one(self, mine: Sequence[_Context]) -> None:
        clock, context = self.clock, mine[0]
        while not self._is_over():
            context.queue.wait()
            context.end(now := clock())
            self._note(context, now)
            context.send(clock)

    def _drive_all(self, mine: Sequence[_Context]) -> None:
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

    def _note(self, context: _Context, now_ns: int) -> None:
        """Let a context rest whose time is over, if all together have served enough."""
        if not context.is_counting or now_ns < context.stop_ns:
            return
        served = sum(one.count for one in self.contexts)
        is_enough = context.count >= self.each and served >= self.requests
        if is_enough or now_ns >= self.cap_ns or self.is_cancelled:
            context.is_counting = False
            self._done.append(context.count)
