"""The steps of measuring one engine: cold call, warm-up, settling, blocks, flags."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from search_spaces.metrics import METRICS
from search_spaces.space import Constraint, MeasuringPlan
from trials.abilities import ComputesBlocks
from trials.backend import Request, Tensors, TensorSpec
from trials.measurement import Block, Seconds
from trials.measuring.contention import Reading
from trials.measuring.load import CONTENDED, Driven, drive
from trials.measuring.stopping import Question

pytestmark = pytest.mark.quiet

BATCHES: list[Tensors] = [{"x": np.zeros(1)}] * 4
PLAN = MeasuringPlan(warmup_s=0.01, block_s=0.02, block_requests=5, max_s=1.5)


class SleepingEngine:
    """Sleeps for as long as ``seconds`` says for the so-manieth request; counts by thread."""

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self.seconds = seconds
        self.calls: list[str] = []

    def infer(self, inputs: Tensors) -> Tensors:
        return inputs

    @contextmanager
    def lane(self, batches: Sequence[Tensors]) -> Iterator[Sequence[Request]]:
        yield [self._request] * len(batches)

    def close(self) -> None:
        pass

    def _request(self) -> None:
        self.calls.append(threading.current_thread().name)
        time.sleep(self.seconds(len(self.calls) - 1))


class ComputingEngine(SleepingEngine):
    """Computes blocks instead: ``latencies`` of (number of the block, number of requests)."""

    def __init__(self, latencies: Callable[[int, int], Seconds]) -> None:
        super().__init__(lambda _: 0.0)
        self.latencies = latencies
        self.asked: list[tuple[float, float, int]] = []

    def computed_block(self, *, start_s: float, window_s: float, requests: int) -> Block:
        self.asked.append((start_s, window_s, requests))
        first = self.latencies(len(self.asked) - 1, requests)
        count = max(requests, int(np.ceil(window_s / first.mean())))
        found = self.latencies(len(self.asked) - 1, count)
        return Block(start_s=start_s, window_s=float(found.sum()), latencies_s=found, batch_size=8)


def steady(_: int, count: int) -> Seconds:
    return np.full(count, 0.001)


def driven_by(
    engine: SleepingEngine,
    *,
    plan: MeasuringPlan = PLAN,
    concurrency: int = 1,
    question: Question | None = None,
    progress: Callable[[int], None] | None = None,
    clocks: "Callable[[], Reading] | None" = None,
) -> Driven:
    return drive(
        engine,
        BATCHES,
        concurrency=concurrency,
        batch_size=8,
        plan=plan,
        question=question,
        progress=progress,
        clocks=clocks or Clocks(lambda _: False),
    )


class Clocks:
    """Clocks of a machine on which others are in the way of the so-manieth block, or not."""

    def __init__(self, is_busy: Callable[[int], bool]) -> None:
        self.is_busy = is_busy
        self.reads = 0

    @property
    def blocks(self) -> int:
        """How many blocks were watched."""
        return self.reads // 2

    def __call__(self) -> Reading:
        busy_s = sum(0.05 for block in range(self.blocks + self.reads % 2) if self.is_busy(block))
        self.reads += 1
        at_s = 0.1 * self.reads
        return Reading(
            wall_s=at_s,
            own_s=0.02 * at_s,
            busy_s=0.02 * at_s + busy_s,
            queued_s=0.0,
            stalled_s=0.0,
            throttled=0,
            cpus=1,
        )


def test_cold_call_is_timed_apart() -> None:
    engine = SleepingEngine(lambda at: 0.2 if at == 0 else 0.001)

    driven = driven_by(engine, plan=replace(PLAN, max_s=0.5))

    assert driven.cold_call_s >= 0.2
    assert driven.speed.latency_p50_s.value < 0.2


def test_every_worker_is_warmed_by_twenty_calls() -> None:
    engine = SleepingEngine(lambda _: 0.0005)

    driven = driven_by(engine, plan=replace(PLAN, max_s=2.0), concurrency=2)

    counted = driven.speed.requests
    assert len(engine.calls) >= counted + 1 + 2 * 20
    assert driven.warmup_s >= PLAN.warmup_s


def test_speed_is_that_of_the_engine() -> None:
    plan = replace(PLAN, max_s=0.7)

    driven = driven_by(SleepingEngine(lambda _: 0.004), plan=plan, concurrency=3)

    speed = driven.speed
    rate = 3 * 8 / speed.latency_mean_s.value
    assert speed.latency_p50_s.value >= 0.004
    assert speed.throughput_sps.value == pytest.approx(rate, rel=0.05)
    assert {block.batch_size for block in driven.blocks} == {8}


def test_slow_engine_gives_few_requests_in_many_blocks() -> None:
    """60 ms a request and 100 requests a block would take 48 s; there is 1 s."""
    engine = SleepingEngine(lambda _: 0.06)
    plan = replace(PLAN, block_requests=100, block_s=0.1, max_s=1.0)

    driven = driven_by(engine, plan=plan)

    assert 3 <= len(driven.blocks) <= 16
    assert driven.speed.throughput_sps.low is not None
    assert "target_not_met" in driven.flags


def test_time_cap_is_kept_to_within_one_request() -> None:
    """Requests only ever take longer than their 50 ms, so their number is bounded by the cap."""
    engine = SleepingEngine(lambda _: 0.05)

    driven_by(engine, plan=replace(PLAN, max_s=0.5))

    after_the_cold_call = len(engine.calls) - 1
    assert after_the_cold_call <= 0.5 / 0.05 + 1


def test_engine_slower_than_all_the_time_there_is_gets_one_block_without_limits() -> None:
    engine = SleepingEngine(lambda _: 0.1)

    driven = driven_by(engine, plan=replace(PLAN, max_s=0.05))

    assert len(engine.calls) == 2
    assert driven.speed.requests == 1
    assert driven.speed.latency_p50_s.high is None
    assert not driven.speed.target_met
    assert "target_not_met" in driven.flags


def test_progress_counts_the_blocks() -> None:
    told: list[int] = []

    driven = driven_by(ComputingEngine(steady), progress=told.append)

    assert told == list(range(1, len(driven.blocks) + 1))


def test_error_in_progress_leaves_no_thread_behind() -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        driven_by(SleepingEngine(lambda _: 0.001), concurrency=2, progress=interrupt)

    assert not any(thread.name.startswith("load-") for thread in threading.enumerate())


def test_computed_engine_is_asked_and_never_driven() -> None:
    engine = ComputingEngine(steady)

    driven = driven_by(engine, plan=replace(PLAN, max_s=1e6, block_s=50))

    assert isinstance(engine, ComputesBlocks)
    assert engine.calls == []
    assert driven.cold_call_s == 0.001
    assert sum(block.window_s for block in driven.blocks) > 1e3


def test_computed_time_goes_on_from_block_to_block() -> None:
    engine = ComputingEngine(steady)

    driven = driven_by(engine)

    starts = [block.start_s for block in driven.blocks]
    ends = [block.start_s + block.window_s for block in driven.blocks]
    assert starts[1:] == pytest.approx(ends[:-1])
    assert engine.asked[0] == (0.0, 0.0, 1)


def test_measuring_stops_at_the_first_look_that_satisfies() -> None:
    driven = driven_by(ComputingEngine(steady), plan=replace(PLAN, max_s=60, block_requests=100))

    assert len(driven.blocks) == 20
    assert driven.speed.target_met
    assert driven.flags == ()


def test_noise_that_time_cannot_average_away_is_flagged() -> None:
    generator = np.random.default_rng(1)
    engine = ComputingEngine(lambda _, count: 0.001 * np.exp(generator.normal(size=count)))

    driven = driven_by(engine, plan=replace(PLAN, target_p50=1e-6, max_s=1.0))

    assert driven.flags == ("target_not_met",)
    assert sum(block.window_s for block in driven.blocks) <= 1.1


@pytest.mark.parametrize(
    ("bound_ms", "is_out", "blocks", "flags"),
    [
        (0.5, False, 8, ("decided",)),
        (2.0, True, 8, ("decided",)),
        (2.0, False, 20, ()),
    ],
    ids=["misses the bound", "was out before", "meets the bound"],
)
def test_measuring_stops_when_nothing_is_left_to_decide(
    bound_ms: float, blocks: int, flags: tuple[str, ...], *, is_out: bool
) -> None:
    bound = Constraint(metric=METRICS["latency_p99_ms"], upper=True, bound=bound_ms)
    plan = replace(PLAN, max_s=60, block_requests=100)

    driven = driven_by(
        ComputingEngine(steady), plan=plan, question=Question(bounds=(bound,), is_out=is_out)
    )

    assert len(driven.blocks) == blocks
    assert driven.flags == flags
    assert driven.speed.target_met == (flags == ())


def test_jump_in_the_middle_is_flagged() -> None:
    generator = np.random.default_rng(2)

    def jumping(asked: int, count: int) -> Seconds:
        return (0.001 if asked < 14 else 0.0013) * generator.lognormal(0, 0.02, count)

    driven = driven_by(
        ComputingEngine(jumping), plan=replace(PLAN, block_requests=100, max_s=3, min_blocks=24)
    )

    assert "level_shift" in driven.flags


def test_block_with_a_transient_is_dropped() -> None:
    """Asked: cold call, warm-up, the block with the transient, and only then those that count."""

    def settling(asked: int, count: int) -> Seconds:
        slow = np.where(np.arange(count) < count // 4, 3.0, 1.0)
        return 0.001 * (slow if asked == 2 else np.ones(count))

    engine = ComputingEngine(settling)
    plan = replace(PLAN, block_requests=100, max_s=60)

    driven = driven_by(engine, plan=plan)

    assert driven.flags == ()
    assert len(engine.asked) == 3 + len(driven.blocks)
    assert driven.speed.latency_p999_s.value == 0.001


def test_drift_that_does_not_end_is_flagged() -> None:
    engine = ComputingEngine(lambda _, count: np.linspace(0.001, 0.002, count))
    plan = replace(PLAN, block_requests=100, max_s=60)

    driven = driven_by(engine, plan=plan)

    assert "no_steady_state" in driven.flags
    assert len(engine.asked) == 2 + 5 + len(driven.blocks)


def test_drift_is_flagged_before_it_has_eaten_the_time() -> None:
    engine = ComputingEngine(lambda _, count: np.linspace(0.001, 0.002, count))

    driven = driven_by(engine, plan=replace(PLAN, block_requests=100, max_s=0.7))

    assert "no_steady_state" in driven.flags
    assert len(driven.blocks) >= 2


def test_block_that_others_were_in_the_way_of_is_measured_again_and_counted() -> None:
    """The fifth block is hit, its repetition is not."""
    clocks = Clocks(lambda block: block == 4)

    found = driven_by(SleepingEngine(lambda _: 0.001), clocks=clocks)

    assert (found.quiet.contended_blocks, found.quiet.repeated_blocks) == (0, 1)
    assert CONTENDED not in found.flags
    assert clocks.blocks > len(found.blocks)


def test_contended_block_is_measured_again_three_times_and_then_kept() -> None:
    clocks = Clocks(lambda block: 4 <= block < 8)

    found = driven_by(SleepingEngine(lambda _: 0.001), clocks=clocks)

    assert (found.quiet.contended_blocks, found.quiet.repeated_blocks) == (1, 3)


def test_machine_that_stays_busy_gives_flagged_blocks_and_not_fewer() -> None:
    """After three blocks that stayed contended nothing is measured again: it would not help."""
    found = driven_by(SleepingEngine(lambda _: 0.001), clocks=Clocks(lambda _: True))

    assert found.quiet.repeated_blocks == 9
    assert found.quiet.contended_blocks == len(found.blocks)
    assert CONTENDED in found.flags


def test_measuring_again_takes_no_more_than_a_fifth_of_the_time() -> None:
    """Every other block is hit, so that there is always hope; 25 blocks of 20 ms fit 0.5 s."""
    plan = replace(PLAN, max_s=0.5)

    found = driven_by(
        SleepingEngine(lambda _: 0.001), plan=plan, clocks=Clocks(lambda block: block % 2 == 1)
    )

    assert 1 <= found.quiet.repeated_blocks <= 7
    assert found.quiet.contended_blocks >= 1


def test_cpu_time_of_a_request_is_told_beside_its_latency() -> None:
    """By these clocks a block takes 2 ms of CPU time, whatever it took of anybody's patience."""
    found = driven_by(SleepingEngine(lambda _: 0.001), clocks=Clocks(lambda _: True))

    assert found.quiet.cpu_s_per_request is not None
    requests = [block.latencies_s.size for block in found.blocks]
    assert 0.002 / max(requests) <= found.quiet.cpu_s_per_request <= 0.002 / min(requests)


class SpinningEngine(SleepingEngine):
    """Waits for a device in each request."""

    transfers = "include"
    uses_graphs = False


def test_cpu_time_of_waiting_for_a_device_is_not_told() -> None:
    """Libraries spin while they wait, which is not what a request needs of the CPU."""
    found = driven_by(SpinningEngine(lambda _: 0.001), clocks=Clocks(lambda _: True))

    assert found.quiet.cpu_s_per_request is None


def test_computed_time_is_never_contended() -> None:
    found = driven_by(ComputingEngine(steady), clocks=Clocks(lambda _: True))

    assert (found.quiet.contended_blocks, found.quiet.repeated_blocks) == (0, 0)
    assert found.quiet.cpu_s_per_request is None
