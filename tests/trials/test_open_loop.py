"""The open loop on a real clock: when requests leave, in which batches, and what a stall shows."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest

from trials.backend import Request, Tensors, TensorSpec
from trials.errors import FaultError
from trials.measuring.batcher import Batcher
from trials.measuring.ladder import ladder_over
from trials.measuring.open_loop import OpenLoop
from trials.measuring.served import Served, Timetable, check_served

pytestmark = pytest.mark.quiet

MS = 1_000_000


class SizedEngine:
    """Answers a request by calling ``answer`` with the samples in its batch; keeps a log."""

    inputs: tuple[TensorSpec, ...] = (TensorSpec(name="x", dtype="float64", shape=(None, 1)),)
    outputs: tuple[TensorSpec, ...] = ()

    def __init__(self, answer: Callable[[int], None] = lambda _: None) -> None:
        self.answer = answer
        self.sizes: list[int] = []

    def infer(self, inputs: Tensors) -> Tensors:
        return inputs

    @contextmanager
    def lane(self, batches: Sequence[Tensors]) -> Iterator[Sequence[Request]]:
        yield [self._request(len(batch["x"])) for batch in batches]

    def _request(self, size: int) -> Request:
        def request() -> None:
            self.sizes.append(size)
            self.answer(size)

        return request

    def close(self) -> None:
        pass


def loop_over(
    engine: SizedEngine, *, batch: int = 1, lanes: int = 1, delay_ns: int = 0, fixed: bool = False
) -> OpenLoop:
    inputs = [{"x": np.full((batch, 1), at, dtype=np.float64)} for at in range(4)]
    ladder = ladder_over(inputs, size=batch, lanes=lanes, is_fixed=fixed)
    return OpenLoop(
        engine, ladder, lanes=lanes, batcher=Batcher(largest=batch, max_delay_ns=delay_ns)
    )


def timetable(due_s: Sequence[float], *, patience_s: float = 30.0) -> Timetable:
    return Timetable(due_s=np.array(due_s), counted=len(due_s), patience_s=patience_s)


def latencies_s(served: Served) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    batch = np.repeat(np.arange(served.sizes.size), served.sizes)
    return np.asarray((served.ends_ns[batch] - served.due_ns[: batch.size]) / 1e9)


def test_no_request_leaves_before_it_is_due() -> None:
    with loop_over(SizedEngine(), lanes=2) as loop:
        served = loop.serve(timetable([0.0, 0.001, 0.004, 0.004, 0.02]))

    assert served.answered == 5
    assert (served.starts_ns >= served.moments_ns).all()
    assert (served.moments_ns >= served.due_ns).all()
    check_served(served, lanes=2)


def test_stall_shows_in_the_p99_that_users_would_see() -> None:
    """100 ms of standstill at 1,000 requests/s: the last 1 % of 1 s waited for 90 ms or more.

    Requests of the standstill wait for what is left of it, 0 to 100 ms evenly, so the quantile p
    of T seconds is 0.1 s - (1 - p) T. From the start of each request, only one saw it.
    """
    answers = iter(range(1_000))
    engine = SizedEngine(lambda _: time.sleep(0.1) if next(answers) == 500 else None)

    with loop_over(engine) as loop:
        served = loop.serve(timetable([at / 1_000 for at in range(1_000)]))

    analytic_s = 0.1 - 0.01 * 1.0
    services_s = (served.ends_ns - served.starts_ns) / 1e9
    assert np.quantile(latencies_s(served), 0.99) >= 0.9 * analytic_s
    assert np.quantile(services_s, 0.99) < 0.1 * analytic_s


def test_backlog_is_served_in_batches_in_order_of_arrival() -> None:
    answers = iter(range(100))
    engine = SizedEngine(lambda _: time.sleep(0.05) if next(answers) == 0 else None)

    with loop_over(engine, batch=4) as loop:
        served = loop.serve(timetable([0.0, 0.001, 0.002, 0.003, 0.004, 0.005]))

    assert served.sizes.tolist() == [1, 4, 1]
    assert engine.sizes == [1, 4, 1]


def test_engine_of_a_fixed_batch_is_filled_up_and_the_filling_is_counted() -> None:
    engine = SizedEngine()

    with loop_over(engine, batch=4, fixed=True) as loop:
        served = loop.serve(timetable([0.0]))

    assert engine.sizes == [4]
    assert (served.sizes.tolist(), served.filled.tolist()) == ([1], [4])


def test_requests_wait_for_others_as_long_as_they_may() -> None:
    with loop_over(SizedEngine(), batch=4, delay_ns=30 * MS) as loop:
        served = loop.serve(timetable([0.0, 0.001]))

    assert served.sizes.tolist() == [2]
    assert served.starts_ns[0] - served.due_ns[0] >= 30 * MS


def test_lanes_serve_at_the_same_time() -> None:
    together = threading.Barrier(2)
    engine = SizedEngine(lambda _: (together.wait(timeout=20), None)[1])

    with loop_over(engine, lanes=2) as loop:
        served = loop.serve(timetable([0.0, 0.0]))

    assert served.answered == 2


def test_stretch_is_given_up_when_its_patience_is_over() -> None:
    engine = SizedEngine(lambda _: time.sleep(0.02))

    with loop_over(engine) as loop:
        served = loop.serve(timetable([0.0] * 500, patience_s=0.1))

    assert 1 <= served.answered < 500


def test_what_a_request_raises_is_raised_as_it_was() -> None:
    def broken(_: int) -> None:
        raise FaultError("the runtime broke")

    with (
        pytest.raises(FaultError, match="the runtime broke"),
        loop_over(SizedEngine(broken), lanes=2) as loop,
    ):
        loop.serve(timetable([0.0, 5.0, 10.0]))

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("load-")]


def test_every_bound_size_is_warmed_on_every_lane() -> None:
    engine = SizedEngine()

    with loop_over(engine, batch=3, lanes=2) as loop:
        cold_s = loop.cold_call()
        loop.warm(loop.now_s() + 30)

    assert cold_s > 0
    assert engine.sizes[0] == 3
    assert sorted(engine.sizes[1:]) == [1, 1, 2, 2, 3, 3]


def test_large_inputs_are_bound_in_powers_of_two() -> None:
    inputs: list[Tensors] = [{"x": np.zeros((48, 250_000))}]

    ladder = ladder_over(inputs, size=48, lanes=1, is_fixed=False)

    assert ladder.sizes == (1, 2, 4, 8, 16, 32, 48)
    assert ladder.filled[33] == 48


def test_sizes_that_cost_a_context_each_are_powers_of_two() -> None:
    inputs: list[Tensors] = [{"x": np.zeros((6, 1))}]

    ladder = ladder_over(inputs, size=6, lanes=1, is_costly=True)

    assert ladder.sizes == (1, 2, 4, 6)
