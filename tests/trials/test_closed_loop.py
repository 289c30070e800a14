"""The closed loop: who sends what when, what a block says, and that nothing is left behind."""

import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest

from trials.backend import Request, Tensors, TensorSpec
from trials.errors import FaultError, MemoryLimitError
from trials.measuring.closed_loop import ClosedLoop, Quota

pytestmark = pytest.mark.quiet

BATCHES: list[Tensors] = [{"x": np.array([float(at)])} for at in range(8)]


class ScriptedEngine:
    """Answers a request by calling ``answer`` with the number of its batch; keeps a log."""

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()

    def __init__(self, answer: Callable[[int], None]) -> None:
        self.answer = answer
        self.requests: list[tuple[str, int]] = []
        self.entered: list[str] = []
        self.left: list[str] = []

    def infer(self, inputs: Tensors) -> Tensors:
        return inputs

    @contextmanager
    def lane(self, batches: Sequence[Tensors]) -> Iterator[Sequence[Request]]:
        self.entered.append(threading.current_thread().name)
        try:
            yield [self._request(at) for at in range(len(batches))]
        finally:
            self.left.append(threading.current_thread().name)

    def _request(self, at: int) -> Request:
        def request() -> None:
            self.requests.append((threading.current_thread().name, at))
            self.answer(at)

        return request

    def close(self) -> None:
        pass


def sleeping(seconds: float) -> ScriptedEngine:
    return ScriptedEngine(lambda _: time.sleep(seconds))


def loop_over(engine: ScriptedEngine, *, workers: int) -> ClosedLoop:
    return ClosedLoop(engine, BATCHES, workers=workers, batch_size=1)


def quota(*, window_s: float = 0.0, requests: int = 1, each: int = 1, cap_s: float = 60) -> Quota:
    return Quota(window_s=window_s, requests=requests, each=each, cap_s=cap_s)


def test_each_worker_enters_and_leaves_a_lane_of_its_own() -> None:
    engine = sleeping(0.001)

    with loop_over(engine, workers=3) as loop:
        loop.block(quota(each=2))

    assert sorted(engine.entered) == ["load-0", "load-1", "load-2"]
    assert sorted(engine.left) == sorted(engine.entered)


def test_cold_call_is_one_request_alone() -> None:
    engine = sleeping(0.01)

    with loop_over(engine, workers=3) as loop:
        seconds = loop.cold_call()

    assert engine.requests == [("load-0", 0)]
    assert seconds >= 0.01


def test_workers_begin_at_different_inputs() -> None:
    engine = sleeping(0.001)

    with loop_over(engine, workers=4) as loop:
        loop.block(quota())

    first = dict(reversed(engine.requests))
    assert first == {"load-0": 0, "load-1": 2, "load-2": 4, "load-3": 6}


def test_inputs_go_on_where_the_last_block_ended() -> None:
    engine = sleeping(0.0)

    with loop_over(engine, workers=1) as loop:
        for _ in range(4):
            loop.block(quota(requests=3))

    assert [at for _, at in engine.requests] == [*range(8), *range(4)]


@pytest.mark.parametrize("workers", [1, 3])
def test_block_lasts_until_time_and_requests_are_reached(workers: int) -> None:
    with loop_over(sleeping(0.002), workers=workers) as loop:
        by_time = loop.block(quota(window_s=0.05))
        by_requests = loop.block(quota(requests=20))

    assert by_time.window_s >= 0.05
    assert by_requests.latencies_s.size >= 20
    assert by_requests.start_s >= by_time.start_s + by_time.window_s


def test_every_worker_sends_its_own_share() -> None:
    engine = sleeping(0.0005)

    with loop_over(engine, workers=3) as loop:
        loop.block(quota(each=20))

    senders = [name for name, _ in engine.requests]
    assert min(senders.count(name) for name in engine.entered) >= 20


def test_load_stays_up_until_the_last_worker_is_done() -> None:
    """A worker whose request takes 50 ms is not left alone; what the other adds is not counted."""
    engine = ScriptedEngine(lambda at: time.sleep(0.05 if at == 0 else 0.002))

    with ClosedLoop(engine, BATCHES[:2], workers=2, batch_size=1) as loop:
        block = loop.block(quota())

    assert block.latencies_s.size < len(engine.requests)


def test_latencies_stand_in_order_of_completion() -> None:
    engine = ScriptedEngine(lambda at: time.sleep(0.03 if at == 0 else 0.001))

    with ClosedLoop(engine, BATCHES[:3], workers=2, batch_size=1) as loop:
        block = loop.block(quota(window_s=0.02))

    assert block.latencies_s[0] < 0.03 <= block.latencies_s.max()


def test_more_requests_than_were_foreseen_are_all_kept() -> None:
    with ClosedLoop(sleepless(), BATCHES, workers=1, batch_size=1) as loop:
        block = loop.block(quota(requests=40_000))

    assert block.latencies_s.size == 40_000
    assert (block.latencies_s >= 0).all()
    assert block.latencies_s.sum() <= block.window_s


def sleepless() -> ScriptedEngine:
    return ScriptedEngine(lambda _: None)


@pytest.mark.parametrize("workers", [1, 4])
def test_littles_law_holds(workers: int) -> None:
    """L = X W: requests in flight are the rate times the mean latency, but for our own time."""
    with loop_over(sleeping(0.004), workers=workers) as loop:
        blocks = [loop.block(quota(window_s=0.05)) for _ in range(6)]

    requests = sum(block.latencies_s.size for block in blocks)
    rate = requests / sum(block.window_s for block in blocks)
    mean_latency = sum(block.latencies_s.sum() for block in blocks) / requests
    assert rate * mean_latency == pytest.approx(workers, rel=0.03)


@pytest.mark.parametrize("workers", [1, 4])
def test_short_blocks_of_slow_requests_do_not_bias_throughput(workers: int) -> None:
    """Blocks of 15 ms, requests of 2 or 18 ms: a window to the last end of all is a quarter off.

    The truth is the mean of all requests that the engine served, counted or not. Four workers
    serve some 700, so that the rate of those that count has a standard error of 3 %.
    """
    generator = np.random.default_rng(1)
    served: list[float] = []

    def answer(_: int) -> None:
        start = time.perf_counter()
        time.sleep(0.018 if generator.random() < 0.5 else 0.002)
        served.append(time.perf_counter() - start)

    with loop_over(ScriptedEngine(answer), workers=workers) as loop:
        blocks = [loop.block(quota(window_s=0.015)) for _ in range(60)]

    rate = sum(b.latencies_s.size for b in blocks) / sum(b.window_s for b in blocks)
    assert rate == pytest.approx(workers / np.mean(served), rel=0.14)


def test_cap_ends_a_block_whatever_it_lacks() -> None:
    engine = sleeping(0.02)

    with loop_over(engine, workers=1) as loop:
        block = loop.block(quota(window_s=30, requests=1000, cap_s=loop.now_s() + 0.1))

    assert 1 <= block.latencies_s.size <= 6


def test_cap_that_is_over_lets_each_worker_send_one() -> None:
    with loop_over(sleeping(0.001), workers=3) as loop:
        block = loop.block(quota(window_s=30, requests=1000, cap_s=0.0))

    assert block.latencies_s.size == 3


@pytest.mark.parametrize("workers", [1, 3])
def test_error_of_a_request_is_raised_as_it_was(workers: int) -> None:
    error = FaultError("the runtime broke")
    engine = ScriptedEngine(raising(error, after=5))

    with pytest.raises(FaultError) as caught, loop_over(engine, workers=workers) as loop:
        loop.block(quota(window_s=0.01, requests=10**9))

    assert caught.value is error
    assert sorted(engine.left) == sorted(engine.entered)
    assert not any(thread.name.startswith("load-") for thread in threading.enumerate())


def raising(error: Exception, *, after: int) -> Callable[[int], None]:
    """Answer ``after`` requests and break at every later one."""
    served: list[int] = []

    def answer(at: int) -> None:
        served.append(at)
        time.sleep(0.001)
        if len(served) > after:
            raise error

    return answer


def test_error_of_the_cold_call_is_raised_as_it_was() -> None:
    error = FaultError("the runtime broke")
    engine = ScriptedEngine(raising(error, after=0))

    with pytest.raises(FaultError) as caught, loop_over(engine, workers=2) as loop:
        loop.cold_call()

    assert caught.value is error


def test_lane_that_does_not_fit_is_raised_before_any_load() -> None:
    class Full(ScriptedEngine):
        @contextmanager
        def lane(self, batches: Sequence[Tensors]) -> Iterator[Sequence[Request]]:
            if threading.current_thread().name == "load-1":
                raise MemoryLimitError("no room for the second lane")
            with super().lane(batches) as requests:
                yield requests

    engine = Full(lambda _: None)

    with pytest.raises(MemoryLimitError, match="second lane"), loop_over(engine, workers=3):
        pytest.fail("there is no loop without its lanes")
    assert engine.requests == []


def test_lane_that_breaks_while_it_is_left_is_an_error() -> None:
    class Leaky(ScriptedEngine):
        @contextmanager
        def lane(self, batches: Sequence[Tensors]) -> Iterator[Sequence[Request]]:
            with super().lane(batches) as requests:
                yield requests
            raise FaultError("buffers were not released")

    with (
        pytest.raises(FaultError, match="not released"),
        loop_over(Leaky(lambda _: None), workers=2) as loop,
    ):
        loop.block(quota())


def test_collector_rests_in_a_block_and_is_restored() -> None:
    seen: list[bool] = []
    engine = ScriptedEngine(lambda _: seen.append(gc.isenabled()))

    with loop_over(engine, workers=1) as loop:
        loop.block(quota(requests=3))

    assert seen == [False] * 3
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_collector_is_restored_after_an_error() -> None:
    engine = ScriptedEngine(raising(FaultError("broken"), after=0))

    with pytest.raises(FaultError), loop_over(engine, workers=1) as loop:
        loop.block(quota())

    assert gc.isenabled()


def test_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with loop_over(sleeping(0.0), workers=1) as loop:
            loop.block(quota())

        assert not gc.isenabled()
    finally:
        gc.enable()


def test_threads_are_known_to_the_system_while_they_work() -> None:
    with loop_over(sleeping(0.0), workers=3) as loop:
        threads = loop.threads

    assert len(set(threads)) == 3
    assert 0 not in threads


@pytest.mark.parametrize(("workers", "batches"), [(0, BATCHES), (1, [])])
def test_load_of_nothing_is_refused(workers: int, batches: list[Tensors]) -> None:
    with pytest.raises(ValueError, match="make no load"):
        ClosedLoop(sleeping(0.0), batches, workers=workers, batch_size=1)
