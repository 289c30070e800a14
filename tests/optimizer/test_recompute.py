"""Numbers that are computed again from what they rest on."""

import json
from dataclasses import replace

import numpy as np
import pytest
from search_fakes import failed, measured, record_of, scored

from optimizer.errors import StudyError
from optimizer.study.records import TrialRecord, json_from_outcome, outcome_from_json
from optimizer.verification.recompute import STATISTICS, recompute
from search_spaces.space import MeasuringPlan, SearchSpace
from trials.measurement import Block, DeviceTimes, OnDevice, exact
from trials.measuring.device_loop import ENQUEUE_BOUND, is_enqueue_bound, timing_of
from trials.measuring.statistics import summarize
from trials.outcome import Completed

PLAN = MeasuringPlan()


def blocks() -> tuple[Block, ...]:
    generator = np.random.default_rng(1)
    draws = generator.lognormal(-7, 0.1, (24, 400))
    return tuple(
        Block(start_s=float(at), window_s=float(row.sum()), latencies_s=row, batch_size=2)
        for at, row in enumerate(draws)
    )


def outcome_by(space: SearchSpace, method: int) -> Completed:
    """Measure the space's first deployment by a version of the formulas."""
    outcome = measured(next(space.deployments()))
    outcome = scored(outcome, np.arange(50) % 7 > 0)
    return replace(outcome, speed=summarize(blocks(), target_met=True, method=method))


def kept(outcome: Completed) -> TrialRecord:
    """Write a record and read it back, as a study does."""
    return record_of(3, outcome_from_json(json_from_outcome(outcome)))


@pytest.mark.parametrize(("method", "digit"), [(1, "twelfth"), (2, "last")])
def test_numbers_come_out_the_same_by_the_formulas_of_their_time(
    space: SearchSpace, method: int, digit: str
) -> None:
    found = recompute(kept(outcome_by(space, method)), blocks(), PLAN)

    assert (found.method, found.last_digit) == (method, f"the {digit} digit")
    looked = ["level_shift"] if method > 1 else []
    assert [one.name for one in found.statistics] == [*STATISTICS, *looked, "accuracy"]
    assert found.differing == ()


def test_record_that_names_no_version_is_of_the_first(space: SearchSpace) -> None:
    """As all records were before there was a second version."""
    document = json.loads(json_from_outcome(outcome_by(space, 1)))
    del document["speed"]["method"]
    record = record_of(3, outcome_from_json(json.dumps(document)))

    found = recompute(record, blocks(), PLAN)

    assert (found.method, found.differing) == (1, ())


def test_record_in_which_a_digit_was_changed_differs(space: SearchSpace) -> None:
    outcome = outcome_by(space, 2)
    p90 = outcome.speed.latency_p90_s
    other = replace(p90, value=float(np.nextafter(p90.value, 1.0)))

    found = recompute(
        kept(replace(outcome, speed=replace(outcome.speed, latency_p90_s=other))), blocks(), PLAN
    )

    assert found.differing == ("latency_p90_s",)


def test_last_digits_of_the_first_version_may_differ(space: SearchSpace) -> None:
    outcome = outcome_by(space, 1)
    mean = outcome.speed.latency_mean_s
    other = replace(mean, value=float(np.nextafter(mean.value, 1.0)))

    found = recompute(
        kept(replace(outcome, speed=replace(outcome.speed, latency_mean_s=other))), blocks(), PLAN
    )

    assert found.differing == ()


def test_target_that_was_met_in_name_only_differs(space: SearchSpace) -> None:
    found = recompute(kept(outcome_by(space, 2)), blocks(), replace(PLAN, target_p99=0.0001))

    assert found.differing == ("target_met",)


def test_accuracy_that_its_hits_do_not_give_differs(space: SearchSpace) -> None:
    outcome = outcome_by(space, 2)
    assert outcome.quality is not None
    better = replace(outcome.quality, scores=(("accuracy", exact(1.0)),))

    found = recompute(kept(replace(outcome, quality=better)), blocks(), PLAN)

    assert found.differing == ("accuracy",)


def on_device(outcome: Completed) -> tuple[Completed, tuple[Block, ...]]:
    """Let its blocks be of a device, and a thread ask for 0.1 ms each."""
    generator = np.random.default_rng(2)
    found = tuple(
        replace(
            one,
            device=DeviceTimes(
                gpu_s=generator.lognormal(-8, 0.1, one.latencies_s.size),
                enqueue_s=np.full(one.latencies_s.size, 1e-4),
                wall_s=one.latencies_s,
            ),
        )
        for one in blocks()
    )
    timing = timing_of(found, depth=2, threads=1)
    told = OnDevice(transfers="include", uses_graphs=True, timing=timing)
    flags = (ENQUEUE_BOUND,) if is_enqueue_bound(timing) else ()
    return replace(outcome, on_device=told, flags=flags), found


def test_times_on_a_device_come_out_the_same(space: SearchSpace) -> None:
    outcome, raw = on_device(outcome_by(space, 2))

    found = recompute(kept(outcome), raw, PLAN)

    names = {one.name for one in found.statistics}
    assert {"enqueue_share", "gpu_mean_s", "gpu_p99_s", "wall_p50_s", ENQUEUE_BOUND} <= names
    assert found.differing == ()


def test_time_on_a_device_in_which_a_digit_was_changed_differs(space: SearchSpace) -> None:
    outcome, raw = on_device(outcome_by(space, 2))
    assert outcome.on_device is not None
    assert outcome.on_device.timing is not None
    timing = outcome.on_device.timing
    other = replace(timing, gpu_p99_s=float(np.nextafter(timing.gpu_p99_s, 1.0)))
    flags = () if outcome.flags else (ENQUEUE_BOUND,)
    forged = replace(outcome, on_device=replace(outcome.on_device, timing=other), flags=flags)

    found = recompute(kept(forged), raw, PLAN)

    assert found.differing == ("gpu_p99_s", ENQUEUE_BOUND)


def test_blocks_without_the_times_that_a_record_tells_of_are_explained(
    space: SearchSpace,
) -> None:
    outcome, _ = on_device(outcome_by(space, 2))

    with pytest.raises(StudyError, match="lack the times on the device"):
        recompute(kept(outcome), blocks(), PLAN)


def test_trial_without_numbers_is_explained(space: SearchSpace) -> None:
    record = record_of(4, failed(next(space.deployments())))

    with pytest.raises(StudyError, match="trial 4 is failed, it has no numbers: killed"):
        recompute(record, blocks(), PLAN)


def test_blocks_that_lie_elsewhere_are_explained(space: SearchSpace) -> None:
    with pytest.raises(StudyError, match="not in this workspace") as caught:
        recompute(kept(outcome_by(space, 2)), None, PLAN)

    assert "the machine that measured it" in caught.value.hint


def test_formulas_of_a_later_version_are_explained(space: SearchSpace) -> None:
    outcome = outcome_by(space, 2)
    later = replace(outcome, speed=replace(outcome.speed, method=7))

    with pytest.raises(StudyError, match="version 7 of the formulas, this trifront knows 1, 2"):
        recompute(kept(later), blocks(), PLAN)
