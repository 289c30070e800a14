"""Members of a front, ranked for somebody who has preferences."""

import pytest
from search_fakes import completed, record_of

from optimizer.errors import UsageError
from optimizer.front.asking import order_from_text, weights_from_text
from optimizer.front.front import Candidate, Front, front_of
from optimizer.front.ranking import by_preference, by_weights
from search_spaces.space import SearchSpace

POINTS = ((1.0, 10.0, 0.80), (2.0, 40.0, 0.90), (40.0, 90.0, 0.95), (40.1, 80.0, 0.96))


@pytest.fixture
def front(space: SearchSpace) -> Front:
    """Four members; the last two have latencies that cannot be told apart."""
    deployments = list(space.deployments())[::20]
    records = [
        record_of(number, completed(one, latency_ms=ms, sps=sps, accuracy=accuracy))
        for number, (one, (ms, sps, accuracy)) in enumerate(zip(deployments, POINTS, strict=True))
    ]
    return front_of(records, space.objectives, ())


def numbers(ranked: tuple[Candidate, ...]) -> list[int]:
    return [one.record.number for one in ranked]


def test_weight_on_one_objective_ranks_by_it_alone(front: Front) -> None:
    assert numbers(by_weights(front, {"accuracy": 1.0})) == [3, 2, 1, 0]
    assert numbers(by_weights(front, {"latency_p99_ms": 2.0})) == [0, 1, 2, 3]


def test_weights_are_worth_the_range_of_the_front(front: Front) -> None:
    """Trial 1 gives up a fifth of the latency range for two thirds of the accuracy's."""
    ranked = by_weights(front, {"latency_p99_ms": 1.0, "accuracy": 1.0})

    assert numbers(ranked)[0] == 1


def test_what_cannot_be_told_apart_does_not_decide(front: Front, space: SearchSpace) -> None:
    """Latencies of 40.0 and 40.1 ms are alike, so throughput decides between 2 and 3."""
    slow = front_of(front.members[2:], space.objectives, ())

    ranked = by_preference(slow, order_from_text("latency_p99_ms,accuracy", slow.objectives))

    assert numbers(ranked) == [3, 2]


def test_preferred_objective_comes_first(front: Front) -> None:
    ranked = by_preference(front, order_from_text("throughput_sps", front.objectives))

    assert numbers(ranked) == [2, 3, 1, 0]


def test_objectives_that_were_not_named_follow_in_their_order(front: Front) -> None:
    names = [one.metric.name for one in order_from_text("accuracy", front.objectives)]

    assert names == ["accuracy", "latency_p99_ms", "throughput_sps"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("latency_p99_ms", "no weight"),
        ("latency_p99_ms=-1", "no weight"),
        ("latency_p99_ms=nan", "no weight"),
        ("acuracy=1", "no objective"),
        ("accuracy=0", "all weights are 0"),
    ],
)
def test_weight_that_cannot_be_meant_is_refused(front: Front, text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as refusal:
        weights_from_text(text, front.objectives)

    assert refusal.value.hint


@pytest.mark.parametrize(
    ("text", "problem"), [("accuracy,accuracy", "twice"), ("brier", "no objective")]
)
def test_order_that_cannot_be_meant_is_refused(front: Front, text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        order_from_text(text, front.objectives)


def test_empty_front_ranks_nobody(space: SearchSpace) -> None:
    empty = front_of([], space.objectives, ())

    assert by_weights(empty, {"accuracy": 1.0}) == ()
    assert by_preference(empty, space.objectives) == ()
