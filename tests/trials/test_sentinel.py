"""The sentinel's levels, and when they say for certain that the machine is another."""

from collections.abc import Sequence
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
    doubtful,
    level_of,
    plan_of_sighting,
    ratios_of,
    sentinel_of,
    sighting_of,
)

DEPLOYMENT = Deployment(
    variant="small",
    precision=Precision.FP32,
    batch_size=4,
    concurrency=2,
    options=(("threads", 1),),
)


def seen(
    level_s: float, *, seed: int, scatter: float = 0.01, at_s: float = 0.0, session: str = "a"
) -> Sighting:
    noise = np.random.default_rng(seed).normal(0, scatter, BLOCKS)
    levels_s = tuple(float(each) for each in level_s * np.exp(noise))
    return Sighting(deployment=DEPLOYMENT, at_s=at_s, session=session, levels_s=levels_s)


def test_sentinel_is_the_same_engine_under_a_closed_loop_of_one_worker() -> None:
    loaded = replace(DEPLOYMENT, load=OpenLoad(rate_rps=10.0, max_queue_delay_us=0))

    assert sentinel_of(loaded) == replace(DEPLOYMENT, concurrency=1)


def test_level_is_the_mean_latency_of_the_median_block() -> None:
    blocks = [
        Block(start_s=at, window_s=0.1, latencies_s=np.array([at, at + 2.0]), batch_size=1)
        for at in range(1, 13)
    ]

    found = sighting_of(DEPLOYMENT, blocks, at_s=7.0, session="a")

    assert found.levels_s == tuple(float(at + 1) for at in range(1, 13))
    assert level_of(found).value == 7.5
    assert (level_of(found).low, level_of(found).high) == (4.0, 11.0)


def test_limits_of_a_level_cover_the_median_of_what_they_are_drawn_from() -> None:
    levels = [level_of(seen(1.0, seed=seed, scatter=0.1)) for seed in range(2_000)]

    covered = sum((each.low or 0) <= 1.0 <= (each.high or 0) for each in levels) / len(levels)

    assert 0.95 <= covered <= 0.975


def of_levels(
    levels: Sequence[float], *, session: str = "a", first_seed: int = 0
) -> list[Sighting]:
    return [
        seen(level, seed=first_seed + at, at_s=at, session=session)
        for at, level in enumerate(levels)
    ]


@pytest.mark.parametrize("count", [1, 5])
def test_too_few_blocks_give_no_limits_and_no_certainty(count: int) -> None:
    few = [replace(one, levels_s=one.levels_s[:count]) for one in of_levels([1.0, 9.0, 1.0])]

    assert level_of(few[0]).low is None
    assert displaced(few) == (False, False, False)


@pytest.mark.parametrize(
    ("level", "is_displaced"),
    [(1.0, False), (1.04, False), (1.2, True), (0.8, True), (0.97, False)],
)
def test_displaced_is_further_from_the_usual_than_5_percent_and_the_scatter(
    *, level: float, is_displaced: bool
) -> None:
    sightings = of_levels([1.0, 1.0, 1.0, level, 1.0, 1.0])

    assert ratios_of(sightings)[3].value == pytest.approx(level, rel=0.02)
    assert displaced(sightings) == (False, False, False, is_displaced, False, False)


def test_one_disturbed_block_moves_nothing() -> None:
    sightings = of_levels([1.0] * 6)
    sightings[2] = replace(sightings[2], levels_s=(50.0, *sightings[2].levels_s[1:]))

    assert not any(displaced(sightings))


def test_first_sighting_that_was_slow_is_the_only_one_displaced() -> None:
    assert displaced(of_levels([1.2, *[1.0] * 9])) == (True, *[False] * 9)


@pytest.mark.parametrize("wander", [0.0, 0.01, 0.02, 0.03, 0.04])
def test_levels_that_wander_alike_are_seldom_called_displaced(wander: float) -> None:
    """300 searches of 30 sightings; the levels of each wander as on a shared machine."""
    random = np.random.default_rng(0)
    searches = [
        of_levels(np.exp(random.normal(0, wander, 30)).tolist(), first_seed=1_000 * number)
        for number in range(300)
    ]

    alarms = [any(displaced(sightings)) for sightings in searches]

    assert sum(alarms) <= 0.05 * len(alarms)


def test_machine_that_is_slow_for_a_while_is_seen_though_levels_wander() -> None:
    random = np.random.default_rng(0)
    levels = np.exp(random.normal(0, 0.01, 30))
    levels[10:18] *= 1.3

    found = displaced(of_levels(levels.tolist()))

    assert found == tuple(10 <= at < 18 for at in range(30))


def test_trials_beside_a_displaced_sighting_are_doubtful() -> None:
    sightings = of_levels([1.0, 1.0, 1.3, 1.3, 1.0, 1.0, 1.0, 1.0])

    assert doubtful(sightings) == (False, True, True, True, False, False, False, False)


def test_sighting_of_the_next_session_says_nothing_of_the_last_trials_of_this_one() -> None:
    quiet = of_levels([1.0] * 5)
    slow = [replace(one, at_s=10 + one.at_s) for one in of_levels([1.3, 1.3], session="b")]

    assert doubtful([*quiet, *slow]) == (*[False] * 5, True, True)


def test_creeping_drift_displaces_its_ends() -> None:
    found = displaced(of_levels([1.03**at for at in range(15)]))

    assert (found[0], found[7], found[14]) == (True, False, True)


def test_plan_of_a_sighting_ends_at_its_first_look() -> None:
    plan = plan_of_sighting(MeasuringPlan(max_s=0.3, deadline_s=7.0, seed=3))

    assert (plan.min_blocks, plan.target_p50, plan.max_s) == (BLOCKS, 1.0, 0.3)
    assert (plan.deadline_s, plan.seed, plan.arrivals) == (7.0, 3, None)
