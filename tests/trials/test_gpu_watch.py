"""A GPU while blocks are measured: what is told of it, and which blocks are measured again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from gpu_scripted import STATE, ScriptedGpu

from search_spaces.space import MeasuringPlan
from trials.backend import Request, Tensors, TensorSpec
from trials.machine.gpu_source import GpuEnergy, GpuSource, GpuState, Reason
from trials.measurement import Block, BlockOnGpu, Estimate
from trials.measuring.energy import energy_per_sample, energy_units
from trials.measuring.gpu_watch import POWER_CAPPED, Reading, on_gpu, use_of, was_disturbed
from trials.measuring.load import CONTENDED, Driven, drive
from trials.measuring.stopping import Question

PLAN = MeasuringPlan(warmup_s=0.0, block_s=0.1, block_requests=10, max_s=20.0)


class EngineOnGpu:
    """Computes blocks of 8 samples in 1 ms a request on a scripted GPU."""

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()

    def __init__(self, meters: ScriptedGpu | None) -> None:
        self.meters = meters
        self.random = np.random.default_rng(0)

    def infer(self, inputs: Tensors) -> Tensors:
        return inputs

    @contextmanager
    def lane(self, batches: Sequence[Tensors]) -> Iterator[Sequence[Request]]:
        yield [lambda: None] * len(batches)

    def close(self) -> None:
        pass

    @contextmanager
    def gpu(self) -> Iterator[GpuSource | None]:
        if self.meters is None:
            yield None
            return
        self.meters.is_open = True
        try:
            yield self.meters
        finally:
            self.meters.is_open = False

    def computed_block(self, *, start_s: float, window_s: float, requests: int) -> Block:
        count = max(requests, int(window_s / 0.001))
        latencies_s = 0.001 * np.exp(self.random.normal(0, 0.01, count))
        if self.meters is not None:
            self.meters.is_inside = True
            self.meters.work(float(latencies_s.sum()))
            self.meters.is_inside = False
        return Block(
            start_s=start_s,
            window_s=float(latencies_s.sum()),
            latencies_s=latencies_s,
            batch_size=8,
        )


def driven_on(
    meters: ScriptedGpu | None, *, question: Question | None = None, plan: MeasuringPlan = PLAN
) -> Driven:
    batches: list[Tensors] = [{"x": np.zeros(1)}]
    return drive(
        EngineOnGpu(meters), batches, concurrency=1, batch_size=8, plan=plan, question=question
    )


def read(at_s: float, total_j: float | None, state: GpuState = STATE) -> Reading:
    return Reading(energy=GpuEnergy(at_s=at_s, total_j=total_j), state=state, took_s=1e-4)


def block(gpu: BlockOnGpu | None) -> Block:
    return Block(start_s=0.0, window_s=0.1, latencies_s=np.full(100, 1e-3), batch_size=1, gpu=gpu)


def blocks_of(
    energies_j: Sequence[float | None], *, pause_s: float = 0.0, pause_j: float = 0.0
) -> list[Block]:
    """Make blocks of 0.1 s and 100 samples that follow each other, by what each used."""
    found, at_s, total_j = [], 5.0, 1_000.0
    for one in energies_j:
        begin = read(at_s, None if one is None else total_j)
        at_s, total_j = at_s + 0.1, total_j + (one or 0.0)
        end = read(at_s, None if one is None else total_j)
        found.append(block(on_gpu(begin, end, load_s=0.1, samples=100)))
        at_s, total_j = at_s + pause_s, total_j + pause_j
    return found


def test_energy_per_sample_is_power_times_time_per_sample() -> None:
    driven = driven_on(ScriptedGpu(watts=200.0))

    assert driven.gpu is not None
    energy, speed = driven.gpu.energy_per_sample_j, driven.speed
    assert energy is not None
    assert energy.value == pytest.approx(200.0 / speed.throughput_sps.value)
    assert energy.low is not None
    assert energy.high is not None
    assert energy.low < energy.value < energy.high
    assert driven.gpu.power_w == pytest.approx(200.0)


def test_nothing_is_read_inside_a_block() -> None:
    meters = ScriptedGpu()

    driven_on(meters)

    assert meters.blocks > 20
    assert meters.asked_inside == []


def test_meters_are_closed_when_the_measurement_ends() -> None:
    meters = ScriptedGpu()

    driven_on(meters)

    assert not meters.is_open


def test_engine_whose_gpu_nobody_can_read_is_measured_all_the_same() -> None:
    driven = driven_on(None)

    assert driven.gpu is None
    assert all(one.gpu is None for one in driven.blocks)
    assert driven.speed.target_met


def test_card_without_an_energy_counter_tells_the_rest() -> None:
    driven = driven_on(ScriptedGpu(total_j=None))

    assert driven.gpu is not None
    assert driven.gpu.energy_per_sample_j is None
    assert driven.gpu.power_w is None
    assert driven.gpu.sm_mhz == (1_980, 1_980)


@pytest.mark.parametrize(
    "reason", [Reason.THERMAL, Reason.HW_THERMAL, Reason.HW_SLOWDOWN, Reason.POWER_BRAKE]
)
def test_block_of_a_slowed_gpu_is_measured_again(reason: Reason) -> None:
    slowed = replace(STATE, reasons=reason)
    # read after the block of that number, and before the next one
    meters = ScriptedGpu(script=lambda number: slowed if number == 5 else STATE)

    driven = driven_on(meters)

    assert driven.quiet.repeated_blocks >= 1
    assert driven.quiet.contended_blocks == 0
    assert driven.gpu is not None
    assert driven.gpu.throttled_blocks == 0
    assert CONTENDED not in driven.flags


def test_gpu_that_stays_hot_is_flagged_and_not_repeated_for_ever() -> None:
    meters = ScriptedGpu(script=lambda _: replace(STATE, reasons=Reason.THERMAL))

    driven = driven_on(meters)

    assert CONTENDED in driven.flags
    assert driven.quiet.repeated_blocks == 9
    assert driven.gpu is not None
    assert driven.gpu.throttled_blocks == len(driven.blocks)
    assert driven.gpu.reasons == ("thermal",)


def test_process_that_only_holds_a_context_is_told_and_disturbs_nothing() -> None:
    """NVML names an idle notebook, or a server that shares the card out, like any other."""
    driven = driven_on(ScriptedGpu(script=lambda _: replace(STATE, others=2)))

    assert CONTENDED not in driven.flags
    assert driven.quiet.repeated_blocks == 0
    assert driven.gpu is not None
    assert driven.gpu.shared_blocks == len(driven.blocks)


def test_processes_of_others_that_compute_on_the_gpu_are_contention() -> None:
    driven = driven_on(ScriptedGpu(script=lambda _: replace(STATE, others=2, busy_others=1)))

    assert CONTENDED in driven.flags
    assert driven.gpu is not None
    assert driven.gpu.shared_blocks == driven.quiet.contended_blocks == len(driven.blocks)


def test_power_cap_is_flagged_and_no_disturbance() -> None:
    """It is the state in which a card runs under full load."""
    driven = driven_on(ScriptedGpu(script=lambda _: replace(STATE, reasons=Reason.POWER_CAP)))

    assert POWER_CAPPED in driven.flags
    assert CONTENDED not in driven.flags
    assert driven.quiet.repeated_blocks == 0
    assert driven.gpu is not None
    assert driven.gpu.capped_blocks == len(driven.blocks)


def test_idle_clocks_are_no_reason() -> None:
    driven = driven_on(ScriptedGpu(script=lambda _: replace(STATE, reasons=Reason.IDLE)))

    assert driven.gpu is not None
    assert driven.gpu.reasons == ()
    assert driven.flags == ()


def test_slowdown_between_two_readings_is_told_by_its_counter() -> None:
    """The reasons of a moment miss what came and went inside a block."""
    before = replace(STATE, held_back=((Reason.HW_THERMAL, 7), (Reason.POWER_CAP, 3)))
    after = replace(STATE, held_back=((Reason.HW_THERMAL, 8), (Reason.POWER_CAP, 3)))

    found = on_gpu(read(0.0, 0.0, before), read(0.1, 1.0, after), load_s=0.1, samples=1)

    assert Reason(found.reasons) == Reason.HW_THERMAL
    assert was_disturbed(found)


def test_counter_that_went_back_is_not_told() -> None:
    found = on_gpu(read(0.0, 100.0), read(0.1, 1.0), load_s=0.1, samples=1)

    assert energy_per_sample([block(found)] * 5, update_s=0.0) is None


def test_moments_beside_the_load_change_nothing() -> None:
    """Readings stand 20 % further apart than the load lasted, at the same power."""
    found = [
        block(on_gpu(read(0.0, 0.0), read(0.12, watts * 0.12), load_s=0.1, samples=100))
        for watts in (100.0, 101.0, 99.0)
    ]

    energy = energy_per_sample(found, update_s=0.0)

    assert energy is not None
    assert energy.value == pytest.approx(0.1)


def test_blocks_are_taken_together_until_the_counter_can_tell() -> None:
    """A counter that moves every 0.1 s says 0 or 20 J of a block of 0.1 s that used 10."""
    units = energy_units(blocks_of([0.0, 20.0] * 20), update_s=0.1)

    assert [one.samples for one in units] == [1_000] * 4
    assert [one.joules for one in units] == pytest.approx([100.0] * 4)
    assert [one.busy_s for one in units] == pytest.approx([1.0] * 4)


def test_blocks_that_make_no_whole_unit_belong_to_the_one_before() -> None:
    units = energy_units(blocks_of([10.0] * 27), update_s=0.1)

    assert [one.samples for one in units] == [1_000, 1_700]


def test_step_that_falls_between_two_units_is_not_lost() -> None:
    """Where steps and blocks keep pace, it would be lost again and again."""
    units = energy_units(blocks_of([10.0] * 20, pause_s=0.01, pause_j=1.0), update_s=0.1)

    assert sum(one.joules for one in units) == pytest.approx(20 * 10.0 + 19 * 1.0)
    assert sum(one.pause_s for one in units) == pytest.approx(0.19)


def test_limits_allow_for_whatever_the_pauses_took() -> None:
    """From nothing to full power, which a counter of slow steps cannot tell."""
    for pause_j in (0.0, 0.5, 1.0):  # of a load that uses 1 J in as long
        found = energy_per_sample(
            blocks_of([10.0] * 80, pause_s=0.01, pause_j=pause_j), update_s=0.1
        )
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        assert found.low < 0.1 * (1 + 1e-9)
        assert found.high > 0.1 * (1 - 1e-9)
        assert found.value == pytest.approx(0.1, rel=0.06)


def test_block_that_was_measured_again_breaks_a_run() -> None:
    """What lay between may have been anything, and is no part of the energy."""
    blocks = blocks_of([10.0] * 30, pause_s=0.001, pause_j=0.05)
    kept = [*blocks[:10], *blocks[15:]]

    units = energy_units(kept, update_s=0.1)

    assert sum(one.joules for one in units) == pytest.approx(25 * 10.0 + 23 * 0.05)


def test_block_between_two_that_were_measured_again_shows_no_energy_and_costs_none() -> None:
    """Alone it ends before the counter moves; the rest of the measurement tells all the same."""
    blocks = blocks_of([10.0] * 20 + [1.0, 0.0, 1.0] + [10.0] * 20, pause_s=0.001)
    kept = [*blocks[:19], blocks[21], *blocks[24:]]

    found = energy_per_sample(kept, update_s=0.1)

    assert found is not None
    assert found.value == pytest.approx(0.1, rel=0.1)


def test_runs_that_are_all_too_short_are_better_than_none() -> None:
    blocks = blocks_of([10.0] * 6)

    units = energy_units([blocks[0], blocks[3], blocks[4]], update_s=0.1)

    assert [one.samples for one in units] == [100, 200]


def test_few_blocks_give_a_value_without_limits() -> None:
    found = energy_per_sample(blocks_of([10.0, 11.0]), update_s=0.001)

    assert found is not None
    assert found.value == pytest.approx(0.105, rel=0.01)
    assert (found.low, found.high) == (None, None)


def test_counter_that_stands_still_tells_no_energy() -> None:
    assert energy_per_sample(blocks_of([0.0] * 5), update_s=0.0) is None


def test_one_block_that_was_not_told_leaves_no_energy() -> None:
    assert energy_per_sample(blocks_of([1.0, None]), update_s=0.0) is None


@pytest.mark.parametrize(("update_s", "textbook"), [(0.0, 0.0234), (0.1, 0.0259)])
def test_interval_of_energy_covers_the_truth_and_is_no_wider_than_it_has_to_be(
    update_s: float, textbook: float
) -> None:
    """95 % are promised; of 300 simulated measurements 90 % is 4 deviations away.

    Twenty units of 5 % noise each leave Student's 2.09 * 5 % / sqrt(20) = 2.34 % to both sides.
    A counter of slow steps adds half a step of 0.1 s in 20 s of load, 0.25 %. Units that may
    remember each other, or have missed rare ones, reach further than the textbook, by a quarter.
    """
    random = np.random.default_rng(3)
    hits, widths = 0, []
    for _ in range(300):
        found = simulated_energy(random, update_s=update_s)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0.1 <= found.high
        widths.append((found.high - found.low) / (2 * found.value))

    assert hits >= 270
    assert textbook < np.median(widths) < 1.5 * textbook


def simulated_energy(random: np.random.Generator, *, update_s: float) -> Estimate | None:
    """Measure 20 units of 100 W for 1 ms a sample, after a rest, by a counter of such steps."""
    blocks_each = 10 if update_s else 1
    joules = np.repeat(10 * np.exp(random.normal(0, 0.05, 20)), blocks_each)
    late = random.uniform() if update_s else 0.0  # of a step, that the counter is behind
    shown = (1 - late) * joules + late * np.concatenate(([0.0], joules[:-1]))
    return energy_per_sample(blocks_of(shown.tolist()), update_s=update_s)


def test_limits_of_a_steady_load_are_a_step_apart() -> None:
    """200 blocks of 0.1 s show what 19.9 to 20 s of load used: 2000 J, at 1 ms a sample."""
    found = energy_per_sample(blocks_of([10.0] * 200), update_s=0.1)

    assert found is not None
    assert found.low == pytest.approx(2000 / 20 * 1e-3)
    assert found.value == pytest.approx(2000 / 19.95 * 1e-3)
    assert found.high == pytest.approx(2000 / 19.9 * 1e-3)


def test_measurement_goes_on_until_energy_is_known_where_it_is_asked_for() -> None:
    plan = replace(PLAN, target_p50=1.0, target_p99=1.0, target_throughput=1.0)
    slow = ScriptedGpu(update_s=0.1)

    unasked = driven_on(slow, plan=plan)
    asked = driven_on(
        ScriptedGpu(update_s=0.1),
        plan=plan,
        question=Question(bounds=(), is_out=False, is_about_energy=True),
    )

    assert len(energy_units(unasked.blocks, update_s=0.1)) < 6
    assert len(energy_units(asked.blocks, update_s=0.1)) >= 6
    assert "target_not_met" not in asked.flags


def test_measurement_that_was_not_read_has_no_use() -> None:
    assert use_of(ScriptedGpu(), [block(None)]) is None
    assert use_of(None, blocks_of([1.0])) is None
