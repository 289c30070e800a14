from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from search_fakes import completed, failed, infeasible, measured, record_of, value

from optimizer.front.front import front_of
from optimizer.front.volume import hypervolume, knee_weights
from optimizer.study.records import TrialRecord
from search_spaces.space import SearchSpace

COSTS = arrays(
    float, st.tuples(st.integers(1, 20), st.just(3)), elements=st.floats(0, 1, width=32)
)


def records_of(space: SearchSpace) -> list[TrialRecord]:
    return [
        record_of(number, measured(deployment))
        for number, deployment in enumerate(space.deployments())
    ]


def numbers(records: tuple[TrialRecord, ...]) -> list[int]:
    return [record.number for record in records]


def test_front_has_exactly_the_deployments_that_nothing_beats(space: SearchSpace) -> None:
    records = records_of(space)

    front = front_of(records, space.objectives, ())

    for record in records:
        beaten = any(
            all(
                value(other, one.metric.name) == value(record, one.metric.name)
                or one.better(value(other, one.metric.name), value(record, one.metric.name))
                for one in space.objectives
            )
            and any(
                one.better(value(other, one.metric.name), value(record, one.metric.name))
                for one in space.objectives
            )
            for other in records
        )
        assert (record.number in numbers(front.members)) is not beaten


def test_front_is_the_same_whatever_the_order_of_trials(space: SearchSpace) -> None:
    records = records_of(space)
    shuffled = [records[index] for index in np.random.default_rng(3).permutation(len(records))]

    assert front_of(shuffled, space.objectives, ()) == front_of(records, space.objectives, ())


def test_front_of_the_front_is_itself(space: SearchSpace) -> None:
    front = front_of(records_of(space), space.objectives, ())

    again = front_of(front.members, space.objectives, ())

    assert numbers(again.members) == numbers(front.members)
    assert again.dominated == ()


def test_deployment_that_misses_a_bound_is_not_on_the_front(space: SearchSpace) -> None:
    deployment = next(space.deployments())
    fast = record_of(0, completed(deployment, latency_ms=0.01, sps=1e6, accuracy=0.5))
    sound = record_of(1, completed(deployment, latency_ms=9.0, sps=1.0, accuracy=0.9))

    front = front_of([fast, sound], space.objectives, space.constraints)

    assert numbers(front.members) == [1]
    assert numbers(front.missed) == [0]


def test_infeasible_and_failed_trials_are_counted_apart(space: SearchSpace) -> None:
    large, broken = list(space.deployments())[:2]
    records = [record_of(0, infeasible(large)), record_of(1, failed(broken))]

    front = front_of(records, space.objectives, space.constraints)

    assert (numbers(front.infeasible), numbers(front.failed)) == ([0], [1])
    assert front.knee is None
    assert front.hypervolume == 0.0


def test_fault_that_a_retry_made_good_is_not_counted(space: SearchSpace) -> None:
    good, bad = list(space.deployments())[:2]
    records = [
        record_of(0, failed(good)),
        record_of(1, measured(good)),
        record_of(2, failed(bad)),
    ]

    assert numbers(front_of(records, space.objectives, ()).failed) == [2]


def test_equal_deployments_are_both_on_the_front(space: SearchSpace) -> None:
    deployment = next(space.deployments())
    twins = [
        record_of(number, completed(deployment, latency_ms=1, sps=1, accuracy=0.9))
        for number in range(2)
    ]

    assert numbers(front_of(twins, space.objectives, ()).members) == [0, 1]


def test_front_of_a_single_objective_is_the_best_deployment(space: SearchSpace) -> None:
    records = records_of(space)
    best = min(records, key=lambda record: value(record, "latency_p99_ms"))

    front = front_of(records, space.objectives[:1], ())

    assert numbers(front.members) == [best.number]
    assert front.knee == best


@given(COSTS)
def test_hypervolume_never_shrinks_when_a_point_is_added(costs: np.ndarray) -> None:
    volumes = [hypervolume(costs[:count], costs) for count in range(len(costs) + 1)]

    assert all(left <= right + 1e-12 for left, right in pairwise(volumes))
    assert 0 <= volumes[-1] <= 1 + 1e-12


def test_knee_is_the_corner_of_an_l_shaped_front() -> None:
    corner = np.array([[0.0, 1.0], [0.05, 0.5], [0.1, 0.1], [0.5, 0.05], [1.0, 0.0]])

    assert knee_weights(corner).argmax() == 2
