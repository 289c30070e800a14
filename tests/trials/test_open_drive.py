"""Measuring under open-loop load, on computed time: blocks, queueing, saturation, lateness."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import pytest
from gpu_scripted import STATE, ScriptedGpu

from search_spaces.arrivals import Arrivals, ConstantArrivals, DayArrivals, PoissonArrivals
from search_spaces.deployment import OpenLoad
from search_spaces.space import MeasuringPlan
from trials.errors import DisturbedError, LateError, SaturatedError
from trials.machine.gpu_source import GpuEnergy, Reason
from trials.measurement import Seconds
from trials.measuring.batcher import Batcher
from trials.measuring.computed_open_loop import ComputedOpenLoop
from trials.measuring.contention import Reading
from trials.measuring.load import CONTENDED, Driven
from trials.measuring.open_drive import LATE, Serving, drive_open
from trials.measuring.served import Served, Timetable
from trials.measuring.surroundings import Surroundings

PLAN = MeasuringPlan(max_s=5.0, warmup_s=0.1)
Draw = Callable[[float, int], Seconds]


class ScriptedServices:
    """An engine whose batches take what ``draw(start_s, batches)`` says, whatever their size."""

    def __init__(self, draw: Draw, *, largest: int) -> None:
        self._draw = draw
        self._largest = largest

    def computed_services(self, *, start_s: float, batches: int) -> Seconds:
        return np.repeat(self._draw(start_s, batches)[:, None], self._largest, axis=1)


class LateLoop(ComputedOpenLoop):
    """A loop whose batches leave later than they should."""

    late_ns = 0

    def serve(self, timetable: Timetable) -> Served:
        served = super().serve(timetable)
        return replace(served, moments_ns=served.starts_ns - self.late_ns)


def constantly(seconds: float) -> Draw:
    return lambda _, batches: np.full(batches, seconds)


def exponentially(mean_s: float) -> Draw:
    generator = np.random.default_rng(5)
    return lambda _, batches: np.maximum(generator.exponential(mean_s, batches), 1e-7)


def driven(
    draw: Draw,
    *,
    rate: float,
    largest: int = 1,
    lanes: int = 1,
    arrivals: Arrivals | None = None,
    plan: MeasuringPlan = PLAN,
    late_ns: int = 0,
    around: Surroundings | None = None,
) -> Driven:
    engine = ScriptedServices(draw, largest=largest)
    loop = LateLoop(engine, lanes=lanes, batcher=Batcher(largest=largest, max_delay_ns=0))
    loop.late_ns = late_ns
    serving = Serving(load=OpenLoad(rate_rps=rate), lanes=lanes, largest=largest)
    timed = replace(plan, arrivals=arrivals or PoissonArrivals())
    return drive_open(loop, serving, timed, around=around)


def test_idle_engine_is_measured_at_its_service_time() -> None:
    found = driven(constantly(0.002), rate=100, arrivals=ConstantArrivals())

    assert found.speed.latency_p50_s.value == pytest.approx(0.002)
    assert found.speed.throughput_sps.value == pytest.approx(100, rel=0.01)
    assert found.queueing is not None
    assert found.queueing.wait_mean_s == pytest.approx(0)


def test_queue_of_one_server_is_as_long_as_theory_says() -> None:
    """M/M/1: the mean time in the system is 1 / (mu - lambda) (Kleinrock 1975, 3.2)."""
    plan = MeasuringPlan(max_s=400.0, target_p50=1e-6)

    found = driven(exponentially(0.001), rate=700, plan=plan)

    # 270,000 requests at 70 % load; the mean's standard error is near 1 %
    assert found.speed.latency_mean_s.value == pytest.approx(1 / 300, rel=0.05)


def test_waiting_and_service_make_up_the_latency() -> None:
    found = driven(exponentially(0.001), rate=700)

    assert found.queueing is not None
    parts_s = found.queueing.wait_mean_s + found.queueing.service_mean_s
    assert parts_s == pytest.approx(found.speed.latency_mean_s.value)


def test_blocks_keep_when_each_request_was_due_sent_and_answered() -> None:
    found = driven(exponentially(0.001), rate=500)

    for block in found.blocks:
        assert block.stamps is not None
        latencies_s = block.stamps.end_s - block.stamps.due_s
        np.testing.assert_allclose(block.latencies_s, latencies_s, atol=1e-9)
        assert (block.stamps.start_s >= block.stamps.due_s).all()
        assert (np.diff(block.stamps.end_s) >= 0).all()


def test_overload_is_infeasible_and_says_what_is_answered() -> None:
    with pytest.raises(SaturatedError, match=r"2,000 requests/s come and 1,0\d\d are answered"):
        driven(constantly(0.001), rate=2_000)


@pytest.mark.parametrize(
    ("taken", "error", "said"),
    [
        (0.6, DisturbedError, "other work takes up to 60% of the processor: whether"),
        (0.4, SaturatedError, "the queue grows"),  # 1,000 of 0.6 of it are 1,667 of the whole
    ],
)
def test_overload_is_none_of_the_deployment_where_others_took_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, taken: float, error: type[Exception], said: str
) -> None:
    readings = (
        Reading(
            wall_s=float(at),
            own_s=0.3 * at,
            busy_s=0.3 * (1 + taken / (1 - taken)) * at,
            queued_s=0.3 * taken / (1 - taken) * at,
            stalled_s=0.0,
            throttled=0,
            cpus=1,
        )
        for at in count()
    )
    monkeypatch.setattr(LateLoop, "threads", (1,))

    with pytest.raises(error, match=said):
        driven(constantly(0.001), rate=2_000, around=Surroundings(clocks=lambda: next(readings)))


def test_batching_carries_what_single_requests_cannot() -> None:
    found = driven(constantly(0.001), rate=2_000, largest=8)

    assert found.queueing is not None
    assert found.queueing.batch_mean > 1.5


def test_overload_is_found_within_the_time_cap() -> None:
    seconds = []

    def draw(start_s: float, batches: int) -> Seconds:
        seconds.append(start_s)
        return np.full(batches, 0.1)

    with pytest.raises(SaturatedError):
        driven(draw, rate=1_000)

    assert max(seconds) <= PLAN.max_s


def test_single_hiccup_is_no_overload() -> None:
    calls = iter(range(100))

    def draw(_: float, batches: int) -> Seconds:
        return np.full(batches, 0.01 if next(calls) == 1 else 0.001)

    found = driven(draw, rate=500, arrivals=ConstantArrivals())

    assert found.speed.latency_p99_s.value == pytest.approx(0.001)


def test_rush_hour_within_the_mean_is_no_overload() -> None:
    """The peak exceeds what the engine carries, and the night makes up for it."""
    plan = MeasuringPlan(max_s=10.0, warmup_s=0.1)

    found = driven(
        constantly(0.001), rate=600, arrivals=DayArrivals(period_s=1.0, swing=1.0), plan=plan
    )

    assert found.speed.latency_p99_s.value > 0.005


def test_blocks_without_a_request_are_joined_to_the_next() -> None:
    found = driven(constantly(0.001), rate=1.0, plan=MeasuringPlan(max_s=10.0, warmup_s=0.1))

    assert min(block.latencies_s.size for block in found.blocks) >= 1
    windows_s = [block.window_s for block in found.blocks]
    assert max(windows_s) >= 1.5 * min(windows_s)


def test_generator_that_is_far_too_late_gives_no_numbers() -> None:
    with pytest.raises(LateError, match=r"500.0 us late \(median\) where the median latency"):
        driven(constantly(0.001), rate=100, late_ns=500_000)


@pytest.mark.parametrize(("late_ns", "is_flagged"), [(1_500, False), (20_000, True)])
def test_lateness_that_matters_is_flagged(late_ns: int, *, is_flagged: bool) -> None:
    found = driven(constantly(0.001), rate=100, late_ns=late_ns)

    assert (LATE in found.flags) is is_flagged


def test_targets_end_the_measurement_before_its_time() -> None:
    found = driven(constantly(0.001), rate=1_000, arrivals=ConstantArrivals())

    assert found.speed.target_met
    assert len(found.blocks) < 30


@dataclass
class DrawingGpu(ScriptedGpu):
    """Draws 100 W from one reading of its energy to the next, each a second later."""

    def energy(self) -> GpuEnergy:
        self.work(1.0)
        return super().energy()


def test_gpu_is_read_around_a_whole_stretch_and_told_by_its_first_block() -> None:
    gpu = DrawingGpu(watts=100.0)

    found = driven(constantly(0.001), rate=500, around=Surroundings(gpu=gpu))

    told = [block.gpu for block in found.blocks if block.gpu is not None]
    assert found.blocks[0].gpu is not None
    assert 1 <= len(told) < len(found.blocks)
    assert sum(one.samples for one in told) > sum(b.latencies_s.size for b in found.blocks)
    assert found.gpu is not None
    assert found.gpu.power_w == pytest.approx(100.0)
    assert found.gpu.energy_per_sample_j is not None
    assert found.gpu.energy_per_sample_j.value == pytest.approx(100.0 / 500, rel=0.1)


def test_open_load_beside_others_on_the_gpu_is_contended() -> None:
    around = Surroundings(gpu=DrawingGpu(script=lambda _: replace(STATE, others=1)))

    found = driven(constantly(0.001), rate=500, around=around)

    assert CONTENDED in found.flags
    assert found.quiet.contended_blocks == len(found.blocks)


def test_overload_on_a_hot_gpu_is_none_of_the_deployment() -> None:
    hot = replace(STATE, reasons=Reason.THERMAL)

    with pytest.raises(DisturbedError, match="cannot be told"):
        driven(
            constantly(0.001),
            rate=2_000,
            around=Surroundings(gpu=DrawingGpu(script=lambda _: hot)),
        )
