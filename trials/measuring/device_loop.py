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

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from math import fsum
from time import perf_counter_ns
from types import TracebackType
from typing import Self

import numpy as np

from trials.abilities import QueuesRequests, RequestQueue
from trials.backend import Tensors
from trials.measurement import Block, DeviceTimes, DeviceTiming
from trials.measuring.closed_loop import Quota
from trials.measuring.crew import Crew, collector_at_rest
from trials.measuring.device_stretch import (
    Alone,
    Clock,
    Context,
    Queues,
    Seen,
    Stretch,
    joined,
)
from trials.measuring.littles_law import check_littles_law, check_room, check_window

ENQUEUE_BOUND = "enqueue_bound"
_BOUND_SHARE = 0.8  # of the device's time for a request, likewise trtexec's warning

_KEEPS_UP = 0.7  # busy enqueuing for more of its time, a thread is late for contexts that are done
_NS_PER_S = 1_000_000_000


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
            Context(offset=number * len(batches) // contexts, batches=len(batches))
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
        alone = Alone(self._contexts[0], self._clock)
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
        stretch = Stretch(
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
        return self._checked_block(joined(contexts))

    def _checked_block(self, seen: Seen) -> Block:
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
