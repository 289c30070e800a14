"""The sentinel's levels, and when they say for certain that the machine is another."""

from dataclasses import replace

import numpy as np
import pytest

from search_spaces.deployment import Deployment, OpenLoad, Precision
from search_spaces.space import MeasuringPlan
from trials.measurement import Block
from trials.measuring.sentinel import (
    BLOCKS,
    Sighting,
    displaced,
    drift_between,
    level_of,
    plan_of_sighting,
    sentinel_of,
    sighting_of,
    steps_of,
)

DEPLOYMENT = Deployment(
    variant="small",
    precision=Precision.FP32,
    batch_size=4,
    concurrency=2,
    options=(("threads", 1),),
)


def seen(level_s: float, *, seed: int, scatter: float = 0.01, at_s: float = 0.0) -> Sighting:
    noise = np.random.default_rng(seed).normal(0, scatter, BLOCKS)
    levels_s = tuple(float(each) for each in level_s * np.exp(noise))
    return Sighting(deployment=DEPLOYMENT, at_s=at_s, levels_s=levels_s)


def test_sentinel_is_the_same_engine_under_a_closed_loop_of_one_worker() -> None:
    loaded = replace(DEPLOYMENT, load=OpenLoad(rate_rps=10.0, max_queue_delay_us=0))

    assert sentinel_of(loaded) == replace(DEPLOYMENT, concurrency=1)


def test_level_is_the_mean_latency_of_the_median_block() -> None:
    blocks = [
        Block(start_s=at, window_s=0.1, latencies_s=np.array([at, at + 2.0]), batch_size=1)
        for at in range(1, 13)
    ]

    found = sighting_of(DEPLOYMENT, blocks, at_s=7.0)

    assert found.levels_s == tuple(float(at + 1) for at in range(1, 13))
    assert level_of(found).value == 7.5
    assert (level_of(found).low, level_of(found).high) == (4.0, 11.0)


def test_limits_of_a_level_cover_the_median_of_what_they_are_drawn_from() -> None:
    levels = [level_of(seen(1.0, seed=seed, scatter=0.1)) for seed in range(2_000)]

    covered = sum((each.low or 0) <= 1.0 <= (each.high or 0) for each in levels) / len(levels)

    assert 0.95 <= covered <= 0.975


@pytest.mark.parametrize("count", [1, 5])
def test_too_few_blocks_give_no_limits_and_no_certainty(count: int) -> None:
    few = Sighting(deployment=DEPLOYMENT, at_s=0.0, levels_s=(1.0,) * count)
    other = Sighting(deployment=DEPLOYMENT, at_s=1.0, levels_s=(9.0,) * count)

    assert level_of(few).low is None
    assert not drift_between((few, other), 0, 1).is_certain


@pytest.mark.parametrize(
    ("ratio", "certain"), [(1.0, False), (1.04, False), (1.2, True), (0.8, True), (0.97, False)]
)
def test_drift_is_certain_where_it_is_larger_than_5_percent_and_the_scatter(
    *, ratio: float, certain: bool
) -> None:
    found = drift_between((seen(1.0, seed=1), seen(ratio, seed=2)), 0, 1)

    assert found.ratio.value == pytest.approx(ratio, rel=0.02)
    assert found.is_certain is certain


def test_one_disturbed_block_moves_nothing() -> None:
    quiet, hit = seen(1.0, seed=1), seen(1.0, seed=2)
    hit = Sighting(deployment=DEPLOYMENT, at_s=1.0, levels_s=(50.0, *hit.levels_s[1:]))

    assert not drift_between((quiet, hit), 0, 1).is_certain


def test_same_machine_is_called_another_in_hardly_any_of_many_pairs() -> None:
    """Levels that wander by 2 % between sightings, as they do on a shared machine."""
    random = np.random.default_rng(0)
    pairs = [
        (seen(1.0, seed=at), seen(float(np.exp(random.normal(0, 0.02))), seed=10_000 + at))
        for at in range(1_000)
    ]

    alarms = sum(drift_between(pair, 0, 1).is_certain for pair in pairs)

    assert alarms <= 10


def test_trials_beside_a_jump_and_away_from_the_begin_are_displaced() -> None:
    levels = [1.0, 1.0, 1.3, 1.3, 1.0, 1.0]
    sightings = [seen(level, seed=at, at_s=at) for at, level in enumerate(levels)]

    assert [step.is_certain for step in steps_of(sightings)] == [False, True, False, True, False]
    assert displaced(sightings) == (False, True, True, True, False, False)


def test_creeping_drift_displaces_what_is_far_from_the_begin() -> None:
    sightings = [seen(1.02**at, seed=at, at_s=at) for at in range(10)]

    found = displaced(sightings)

    assert not any(step.is_certain for step in steps_of(sightings))
    assert found[0] is False
    assert found[-1] is True


def test_plan_of_a_sighting_ends_at_its_first_look() -> None:
    plan = plan_of_sighting(MeasuringPlan(max_s=0.3, deadline_s=7.0, seed=3))

    assert (plan.min_blocks, plan.target_p50, plan.max_s) == (BLOCKS, 1.0, 0.3)
    assert (plan.deadline_s, plan.seed, plan.arrivals) == (7.0, 3, None)
