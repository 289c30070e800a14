"""What the data can tell of two deployments, and of one and a bound."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_fakes import completed, measured, record_of, scored, with_interval

from optimizer.front.certainty import Verdict, verdict_of_bound, verdict_of_bounds
from optimizer.front.front import Front, front_of
from optimizer.study.records import TrialRecord
from search_spaces.metrics import METRICS
from search_spaces.space import Constraint, SearchSpace
from trials.measurement import Estimate
from trials.outcome import Completed
from trials.scoring.paired import certain_gap

LATENCY = Constraint(metric=METRICS["latency_p99_ms"], upper=True, bound=10.0)
ACCURACY = Constraint(metric=METRICS["accuracy"], upper=False, bound=0.9)


def latency(low: float | None, high: float | None, space: SearchSpace) -> Completed:
    outcome = completed(next(space.deployments()), latency_ms=9.0, sps=1.0, accuracy=0.9)
    return with_interval(outcome, low_ms=low, high_ms=high)


def numbers(records: tuple[TrialRecord, ...]) -> list[int]:
    return [record.number for record in records]


def standings(front: Front) -> dict[int, tuple[bool, tuple[int, ...]]]:
    return {one.record.number: (one.is_member, one.tied_with) for one in front.candidates}


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (8.0, 10.0, Verdict.MEETS),
        (10.1, 12.0, Verdict.MISSES),
        (8.0, 10.1, Verdict.UNDECIDED),
        (8.0, None, Verdict.UNDECIDED),
        (None, 10.0, Verdict.MEETS),
        (None, 11.0, Verdict.UNDECIDED),
    ],
)
def test_bound_is_judged_by_the_whole_interval(
    space: SearchSpace, low: float | None, high: float | None, verdict: Verdict
) -> None:
    assert verdict_of_bound(latency(low, high, space), LATENCY) is verdict


def test_lower_bound_is_judged_by_the_lower_limit(space: SearchSpace) -> None:
    outcome = completed(next(space.deployments()), latency_ms=1.0, sps=1.0, accuracy=0.91)

    assert verdict_of_bound(outcome, ACCURACY) is Verdict.MEETS
    assert verdict_of_bound(outcome, replace(ACCURACY, bound=0.92)) is Verdict.MISSES


def test_bound_that_is_missed_for_certain_decides_over_one_that_is_open(
    space: SearchSpace,
) -> None:
    outcome = latency(8.0, None, space)

    assert verdict_of_bounds(outcome, (LATENCY, ACCURACY)) is Verdict.UNDECIDED
    assert verdict_of_bounds(outcome, (LATENCY, replace(ACCURACY, bound=0.95))) is Verdict.MISSES
    assert verdict_of_bounds(outcome, ()) is Verdict.MEETS


def test_deployment_beaten_beyond_both_intervals_leaves_the_front(space: SearchSpace) -> None:
    one, other = list(space.deployments())[:2]
    better = record_of(0, completed(one, latency_ms=1.0, sps=100.0, accuracy=0.9))
    worse = record_of(1, completed(other, latency_ms=1.1, sps=90.0, accuracy=0.9))

    front = front_of([better, worse], space.objectives, ())

    assert standings(front) == {0: (True, ())}
    assert numbers(front.dominated) == [1]


def test_deployment_beaten_within_the_intervals_is_a_tie(space: SearchSpace) -> None:
    one, other = list(space.deployments())[:2]
    better = record_of(0, completed(one, latency_ms=1.0, sps=100.0, accuracy=0.9))
    worse = record_of(1, completed(other, latency_ms=1.01, sps=90.0, accuracy=0.9))

    front = front_of([better, worse], space.objectives, ())

    assert standings(front) == {0: (True, ()), 1: (False, (0,))}
    assert (numbers(front.members), numbers(front.ties)) == ([0], [1])
    assert front.dominated == ()


def test_limit_that_the_data_cannot_give_beats_nobody(space: SearchSpace) -> None:
    one, other = list(space.deployments())[:2]
    fast = completed(one, latency_ms=1.0, sps=100.0, accuracy=0.9)
    unsure = record_of(0, with_interval(fast, low_ms=0.9, high_ms=None))
    slow = record_of(1, completed(other, latency_ms=50.0, sps=9.0, accuracy=0.9))

    front = front_of([unsure, slow], space.objectives, ())

    assert numbers(front.ties) == [1]


def test_deployment_that_may_miss_a_bound_drives_nobody_from_the_front(
    space: SearchSpace,
) -> None:
    one, other = list(space.deployments())[:2]
    fast = completed(one, latency_ms=9.9, sps=100.0, accuracy=0.9)
    unsure = record_of(0, with_interval(fast, low_ms=9.8, high_ms=10.1))
    slow = record_of(1, completed(other, latency_ms=9.0, sps=9.0, accuracy=0.9))
    slower = record_of(2, completed(other, latency_ms=9.89, sps=1.0, accuracy=0.9))

    front = front_of([unsure, slow, slower], space.objectives, (LATENCY,))

    assert [one.bounds for one in front.candidates] == [Verdict.MEETS, Verdict.UNDECIDED]
    assert numbers(front.dominated) == [2]


def test_deployment_whose_value_misses_a_bound_is_a_tie_as_long_as_it_may_meet_it(
    space: SearchSpace,
) -> None:
    fast = completed(next(space.deployments()), latency_ms=10.2, sps=100.0, accuracy=0.9)
    unsure = record_of(0, with_interval(fast, low_ms=9.8, high_ms=10.4))

    front = front_of([unsure], space.objectives, (LATENCY,))

    assert (front.members, numbers(front.ties), front.missed) == ((), [0], ())
    assert front.knee is None


def test_knee_is_one_that_surely_meets_the_bounds_where_there_is_one(space: SearchSpace) -> None:
    one, other = list(space.deployments())[:2]
    fast = completed(one, latency_ms=9.9, sps=1e6, accuracy=0.9)
    unsure = record_of(0, with_interval(fast, low_ms=9.8, high_ms=10.1))
    sure = record_of(1, completed(other, latency_ms=9.0, sps=9.0, accuracy=0.9))

    assert front_of([unsure, sure], space.objectives, (LATENCY,)).knee == sure
    assert front_of([unsure], space.objectives, (LATENCY,)).knee == unsure


def test_scores_of_one_engine_are_the_same_however_it_is_served(space: SearchSpace) -> None:
    """Wide intervals of the accuracy must not keep every way to serve an engine on the front."""
    one, other = (each for each in list(space.deployments())[:2])
    hits = np.arange(100) < 90
    fast = record_of(0, scored(completed(one, latency_ms=1, sps=100, accuracy=0.9), hits))
    slow = record_of(1, scored(completed(other, latency_ms=2, sps=50, accuracy=0.9), hits))

    front = front_of([fast, slow], space.objectives, ())

    assert one.precision == other.precision
    assert numbers(front.dominated) == [1]


def test_engines_are_compared_on_the_samples_that_both_were_scored_on(space: SearchSpace) -> None:
    """90 against 80 of 100 overlaps as intervals; ten samples that only one gets right do not."""
    small = next(one for one in space.deployments() if one.variant == "small")
    large = next(one for one in space.deployments() if one.variant == "large")
    better = scored(completed(large, latency_ms=1, sps=100, accuracy=0), np.arange(100) < 90)
    worse = scored(completed(small, latency_ms=2, sps=50, accuracy=0), np.arange(100) < 80)

    front = front_of([record_of(0, better), record_of(1, worse)], space.objectives, ())

    assert numbers(front.dominated) == [1]
    assert better.metric("accuracy").low is not None
    assert overlap(better.metric("accuracy"), worse.metric("accuracy"))


def overlap(one: Estimate, other: Estimate) -> bool:
    assert one.low is not None
    assert other.high is not None
    return one.low < other.high


def test_front_with_ties_is_the_same_whatever_the_order_of_trials(space: SearchSpace) -> None:
    generator = np.random.default_rng(5)
    records = [
        record_of(number, scored(measured(one), generator.random(60) < 0.85))
        for number, one in enumerate(space.deployments())
    ]
    shuffled = [records[index] for index in generator.permutation(len(records))]

    front = front_of(records, space.objectives, (replace(ACCURACY, bound=0.8),))

    assert front.ties
    assert front_of(shuffled, space.objectives, (replace(ACCURACY, bound=0.8),)) == front


@pytest.mark.parametrize(
    ("ours", "theirs", "certain"),
    [(5, 0, False), (6, 0, True), (10, 2, True), (10, 3, False), (0, 6, True)],
)
def test_hits_are_compared_by_mcnemars_exact_test(ours: int, theirs: int, certain: bool) -> None:  # noqa: FBT001
    """Two-sided binomial tails: 2/2^5 = 0.063, 2/2^6 = 0.031, 0.039 and 0.092."""
    first = np.r_[np.ones(ours), np.zeros(theirs), np.ones(80)]
    second = np.r_[np.zeros(ours), np.ones(theirs), np.ones(80)]

    gap = certain_gap(first, second)

    assert math.isnan(gap) is not certain
    if certain:
        assert gap == pytest.approx((ours - theirs) / (ours + theirs + 80))


def test_scores_that_are_no_hits_are_compared_by_a_paired_t_test() -> None:
    base = np.linspace(0.1, 0.9, 50)
    noise = np.tile([0.01, -0.01], 25)

    assert certain_gap(base + 0.01 + noise, base) == pytest.approx(0.01)
    assert math.isnan(certain_gap(base + 0.001 + noise, base))
    assert certain_gap(base + 0.25, base) == pytest.approx(0.25)


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_comparison_read_backwards_says_the_opposite(hits: list[bool]) -> None:
    ours = np.array(hits, dtype=float)
    theirs = ours[::-1]

    forwards, backwards = certain_gap(ours, theirs), certain_gap(theirs, ours)

    assert forwards == -backwards or (math.isnan(forwards) and math.isnan(backwards))
