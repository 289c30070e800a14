"""The closed loop of a device: what it sends when, what it says, and who drives it."""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from threading import current_thread
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from gpu_scripted import ScriptedGpu
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_clock import VirtualClock

from search_spaces.space import MeasuringPlan
from trials.backend import Request, Tensors, TensorSpec
from trials.devices.clocks import Clock, RealClock
from trials.devices.fake import FakeDevice
from trials.devices.fake_things import Costs
from trials.errors import FaultError
from trials.machine.gpu_source import GpuEnergy
from trials.measurement import Block, DeviceTimes
from trials.measuring.closed_loop import Quota
from trials.measuring.device_loop import (
    ENQUEUE_BOUND,
    DeviceLoop,
    is_enqueue_bound,
    timing_of,
)
from trials.measuring.load import drive

if TYPE_CHECKING:
    from trials.devices.device import Event

BATCHES: list[Tensors] = [{"x": np.zeros(1)} for _ in range(4)]
US = 1_000


@dataclass(kw_only=True)
class Engine:
    """Requests that are one kernel each, on a computed device.

    Attributes:
        kernel_us: How long each runs, in turns.
        each_us: Likewise for each context; as ``kernel_us`` where none is given.
        busy_us: How long the host is busy besides with a request of each context.
        places: Which batch each context sent, in the order of sending.
        breaks_at: The request of a context that fails.
    """

    device: FakeDevice
    kernel_us: Sequence[float] = (100.0,)
    each_us: Sequence[Sequence[float]] = ()
    busy_us: Sequence[float] = ()
    depth: int = 2
    breaks_at: int | None = None
    transfers: str = "include"
    uses_graphs: bool = True
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    entered: list[str] = field(default_factory=list)
    places: list[list[int]] = field(default_factory=list)

    @contextmanager
    def queue(self, batches: Sequence[Tensors]) -> "Iterator[Queue]":
        self.entered.append(current_thread().name)
        self.places.append([])
        with self.device.current():
            yield Queue(self, number=len(self.places) - 1, batches=len(batches))

    def infer(self, inputs: Tensors) -> Tensors:
        return inputs

    @contextmanager
    def lane(self, batches: Sequence[Tensors]) -> Iterator[Sequence[Request]]:
        del batches
        yield ()

    def close(self) -> None:
        pass


class Queue:
    """One context."""

    def __init__(self, engine: Engine, *, number: int, batches: int) -> None:
        self._engine = engine
        self._batches = batches
        self._places = engine.places[number]
        self._kernel_us = engine.each_us[number] if engine.each_us else engine.kernel_us
        self._busy_us = engine.busy_us[number] if engine.busy_us else 0.0
        self._stream = engine.device.stream()
        self._flight: deque[tuple[Event, Event]] = deque()
        self.depth = engine.depth

    def send(self, at: int) -> None:
        engine, device = self._engine, self._engine.device
        assert len(self._flight) < self.depth, "more are sent than may be in flight"
        if len(self._places) == engine.breaks_at:
            raise FaultError("the runtime broke")
        assert at in range(self._batches)
        kernel_us = self._kernel_us[len(self._places) % len(self._kernel_us)]
        begin, end = device.event(), device.event()
        self._places.append(at)
        device.clock.spend(round(self._busy_us * US))
        self._stream.record(begin)
        device.launch_kernel(self._stream.handle, kernel_us * 1e-6, lambda _: None)
        self._stream.record(end)
        self._flight.append((begin, end))

    def is_done(self) -> bool:
        return self._flight[0][1].is_done()

    def wait(self) -> None:
        self._flight[0][1].wait()

    def finish(self) -> float:
        begin, end = self._flight.popleft()
        return end.elapsed_s(begin)


def engine_on(clock: Clock, *, call_us: float = 1.0, at_once: int = 1, **more: object) -> Engine:
    costs = Costs(call_ns=round(call_us * US), ask_ns=200)
    device = FakeDevice(clock=clock, costs=costs, kernels_at_once=at_once)
    return Engine(device=device, **more)  # type: ignore[arg-type] # as the dataclass takes them


def loop_over(
    engine: Engine, *, contexts: int, batches: Sequence[Tensors] = BATCHES
) -> DeviceLoop:
    return DeviceLoop(
        engine, batches, contexts=contexts, batch_size=1, clock=engine.device.clock.now_ns
    )


def quota(*, window_s: float = 0.0, requests: int = 1, each: int = 1, cap_s: float = 60) -> Quota:
    return Quota(window_s=window_s, requests=requests, each=each, cap_s=cap_s)


def test_device_never_waits_for_the_host_while_the_next_request_is_in_line() -> None:
    engine = engine_on(VirtualClock(), call_us=5.0)

    with loop_over(engine, contexts=1) as loop:
        block = loop.block(quota(requests=200))

    assert block.latencies_s.size == 200
    # but for the first one, which nothing is before
    assert np.median(block.latencies_s) == pytest.approx(100e-6, rel=0.01)
    assert block.window_s == pytest.approx(200 * 100e-6, rel=0.01)


def test_device_waits_for_the_host_where_no_request_is_in_line() -> None:
    """What a window of two is for: three calls of 5 us each in front of every request."""
    engine = engine_on(VirtualClock(), call_us=5.0, depth=1)

    with loop_over(engine, contexts=1) as loop:
        block = loop.block(quota(requests=200))

    assert block.window_s == pytest.approx(200 * 110e-6)


def test_time_of_the_gpu_the_host_and_the_line_are_told_apart() -> None:
    engine = engine_on(VirtualClock(), call_us=5.0)

    with loop_over(engine, contexts=1) as loop:
        block = loop.block(quota(requests=50))

    assert block.device is not None
    assert block.device.gpu_s[1:] == pytest.approx(np.full(49, 100e-6), abs=6e-6)
    assert block.device.enqueue_s == pytest.approx(np.full(50, 15e-6))
    assert np.median(block.device.wall_s) == pytest.approx(200e-6, rel=0.1)  # two in line
    assert (block.device.wall_s >= block.latencies_s).all()


def test_cold_call_is_one_request_alone() -> None:
    engine = engine_on(VirtualClock(), call_us=5.0)

    with loop_over(engine, contexts=3) as loop:
        seconds = loop.cold_call()

    assert seconds == pytest.approx(110e-6, abs=6e-6)
    assert sum(map(len, engine.places)) == 1


def test_each_context_cycles_over_all_batches_and_begins_apart() -> None:
    engine = engine_on(VirtualClock())

    with loop_over(engine, contexts=2) as loop:
        loop.block(quota(each=6))

    first, second = engine.places
    for sent in (first, second):
        assert all((after - before) % 4 == 1 for before, after in pairwise(sent))
    assert (first[0], second[0]) == (0, 2)


def test_contexts_of_unequal_speed_do_not_wait_for_each_other() -> None:
    """In turns that wait for the oldest, the fast one would be as slow as the slow one."""
    engine = engine_on(VirtualClock(), at_once=2, each_us=((20.0,), (400.0,)))

    with loop_over(engine, contexts=2) as loop:
        loop.block(quota(window_s=0.05))

    fast, slow = map(len, engine.places)
    assert fast > 10 * slow


def test_times_of_a_request_stay_together_in_the_order_of_ends() -> None:
    """Contexts end in between each other, and a slow request is slow by every clock."""
    engine = engine_on(VirtualClock(), at_once=2, each_us=((20.0,), (400.0,)), busy_us=(0.0, 40.0))
    loop = loop_over(engine, contexts=2)
    loop._is_chosen = True  # a virtual clock is for one thread

    with loop:
        loop.block(quota(each=5))
        block = loop.block(quota(window_s=0.02))

    found = block.device
    assert found is not None
    is_slow = block.latencies_s > 200e-6
    assert np.count_nonzero(np.diff(is_slow)) > 20  # they come in turns
    assert np.array_equal(found.gpu_s > 200e-6, is_slow)
    assert np.array_equal(found.enqueue_s > 20e-6, is_slow)
    assert np.array_equal(found.wall_s > 400e-6, is_slow)


def test_timing_says_of_each_clock_what_it_showed() -> None:
    ranks = np.arange(101) / 100  # whose quantiles are their own levels
    times = DeviceTimes(gpu_s=1 + ranks**2, enqueue_s=3 + ranks, wall_s=5 + ranks)
    one = Block(start_s=0.0, window_s=800.0, latencies_s=times.wall_s, batch_size=1, device=times)

    found = timing_of([one, one], depth=2, threads=3)

    assert asdict(found) == pytest.approx(
        {
            "depth": 2,
            "threads": 3,
            "enqueue_share": 3.5 * 202 / (3 * 1600),
            "gpu_mean_s": 1.335,  # of squares: 201 / 600
            "gpu_p50_s": 1.25,
            "gpu_p99_s": 1.9801,
            "enqueue_p50_s": 3.5,
            "enqueue_p99_s": 3.99,
            "wall_p50_s": 5.5,
            "wall_p99_s": 5.99,
        }
    )


@settings(deadline=None, max_examples=30)
@given(
    places=st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)),
    kernel_us=st.lists(st.floats(1.0, 300.0), min_size=1, max_size=7),
    call_us=st.floats(0.1, 4.0),
)
def test_requests_that_are_served_obey_littles_law(
    places: tuple[int, int, int], kernel_us: list[float], call_us: float
) -> None:
    """L = λW, with L as many as there are contexts, and window × contexts from sending on."""
    contexts, depth, at_once = places
    clock = VirtualClock()
    engine = engine_on(clock, call_us=call_us, at_once=at_once, kernel_us=kernel_us, depth=depth)
    loop = loop_over(engine, contexts=contexts)
    loop._is_chosen = True  # a virtual clock is for one thread

    with loop:
        loop.block(quota(each=5))  # the first one fills the line
        block = loop.block(quota(requests=200 * contexts, each=100))

    rate = block.latencies_s.size / block.window_s
    served = rate * block.latencies_s.mean()
    assert block.device is not None
    in_line = rate * block.device.wall_s.mean()
    assert served <= contexts * (1 + 1e-9)
    assert in_line <= depth * contexts * 1.02
    if depth > 1:
        assert served == pytest.approx(contexts, rel=0.15)


def test_one_thread_drives_all_contexts_while_it_keeps_up() -> None:
    engine = engine_on(VirtualClock(), call_us=5.0, kernel_us=(500.0,))

    with loop_over(engine, contexts=3) as loop:
        block = loop.block(quota(window_s=0.05))
        threads = loop.threads
        found = loop.timing([block])

    assert len(threads) == found.threads == 1
    assert engine.entered == ["load-0"] * 3
    assert found.enqueue_share < 0.2


@pytest.mark.quiet
def test_contexts_get_threads_of_their_own_where_one_is_busy_enqueuing() -> None:
    engine = engine_on(RealClock(), call_us=300.0, kernel_us=(10.0,), at_once=3)

    with loop_over(engine, contexts=3) as loop:
        first = loop.block(quota(window_s=0.05))
        second = loop.block(quota(window_s=0.05))
        found = loop.timing([first, second])

    assert found.threads == 3
    assert engine.entered[:3] == ["load-0"] * 3
    assert sorted(engine.entered[3:]) == ["load-0", "load-1", "load-2"]
    assert first.latencies_s.size > 10


def test_single_context_keeps_its_one_thread_however_busy() -> None:
    engine = engine_on(VirtualClock(), call_us=50.0, kernel_us=(10.0,))

    with loop_over(engine, contexts=1) as loop:
        block = loop.block(quota(window_s=0.02))

    assert loop.timing([block]).threads == 1
    assert is_enqueue_bound(loop.timing([block]))


@pytest.mark.parametrize("call_us", [5.0, 300.0], ids=["one thread", "a thread for each"])
@pytest.mark.quiet
def test_error_of_a_context_is_raised_as_it_was(call_us: float) -> None:
    engine = engine_on(RealClock(), call_us=call_us, kernel_us=(40.0,), breaks_at=60)

    def load() -> None:
        with loop_over(engine, contexts=3) as loop:
            loop.block(quota(each=2))
            loop.block(quota(each=100))

    with pytest.raises(FaultError, match="the runtime broke"):
        load()


def test_loop_of_nothing_is_refused() -> None:
    engine = engine_on(VirtualClock())

    with pytest.raises(ValueError, match="0 contexts and 4 batches"):
        loop_over(engine, contexts=0)
    with pytest.raises(ValueError, match="1 contexts and 0 batches"):
        loop_over(engine, contexts=1, batches=[])


def test_cap_ends_a_block_with_one_request_of_each_context() -> None:
    engine = engine_on(VirtualClock(), kernel_us=(1000.0,))

    with loop_over(engine, contexts=2) as loop:
        block = loop.block(quota(window_s=10, requests=1000, cap_s=0))

    assert block.latencies_s.size == 2


@dataclass(kw_only=True)
class MeteredEngine(Engine):
    """Its energy counter tells how many contexts were bound."""

    @contextmanager
    def gpu(self) -> Iterator[ScriptedGpu]:
        yield BindingsMeter(self)


class BindingsMeter(ScriptedGpu):
    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine

    def energy(self) -> GpuEnergy:
        return GpuEnergy(at_s=perf_counter(), total_j=float(len(self._engine.entered)))


@pytest.mark.quiet
def test_no_block_counts_whose_meters_were_read_over_a_change_of_who_drives() -> None:
    """As the first would where the cold call took the time of the warm-up."""
    slow_once = (200_000.0, *[10.0] * 100_000)
    each_us = (slow_once, *[(10.0,)] * 5)
    costs = Costs(call_ns=300 * US, ask_ns=200)
    device = FakeDevice(clock=RealClock(), costs=costs, kernels_at_once=3)
    engine = MeteredEngine(device=device, each_us=each_us)
    plan = MeasuringPlan(max_s=0.8, block_s=0.2, warmup_s=0.02, block_requests=20)

    driven = drive(engine, BATCHES, concurrency=3, batch_size=1, plan=plan)

    told = [block.gpu for block in driven.blocks if block.gpu is not None]
    assert driven.timing is not None
    assert driven.timing.threads == 3
    assert len(told) == len(driven.blocks)
    assert {(one.begin_j, one.end_j) for one in told} == {(6.0, 6.0)}


@pytest.mark.quiet
def test_drive_records_how_requests_went_to_the_device() -> None:
    engine = engine_on(RealClock(), call_us=4.0, kernel_us=(300.0,), at_once=2)
    plan = MeasuringPlan(max_s=1.0, block_s=0.05, warmup_s=0.02, block_requests=50)

    driven = drive(engine, BATCHES, concurrency=2, batch_size=8, plan=plan)

    found = driven.timing
    assert found is not None
    assert found.depth == 2
    assert found.gpu_p50_s == pytest.approx(300e-6, rel=0.2)
    assert 12e-6 <= found.enqueue_p50_s < 100e-6
    assert ENQUEUE_BOUND not in driven.flags
    assert driven.quiet.cpu_s_per_request is None
    assert all(isinstance(block, Block) and block.device is not None for block in driven.blocks)


@pytest.mark.quiet
def test_drive_warns_of_a_host_that_is_as_slow_as_the_device() -> None:
    engine = engine_on(RealClock(), call_us=30.0, kernel_us=(50.0,))
    plan = MeasuringPlan(max_s=0.5, block_s=0.05, warmup_s=0.02, block_requests=50)

    driven = drive(engine, BATCHES, concurrency=1, batch_size=1, plan=plan)

    assert ENQUEUE_BOUND in driven.flags
