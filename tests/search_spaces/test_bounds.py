import pytest

from search_spaces.bounds import constraints_from_texts, objectives_from_document
from search_spaces.errors import SpaceError
from search_spaces.metrics import METRICS, Direction
from search_spaces.space import TaskKind

MINIMIZE, MAXIMIZE = Direction.MINIMIZE, Direction.MAXIMIZE
CLASSIFICATION, CUSTOM = TaskKind.CLASSIFICATION, TaskKind.CUSTOM


def test_objectives_come_in_one_order_however_they_were_written() -> None:
    """A study stores values by position: another order would put numbers under another name."""
    words = {"accuracy": MAXIMIZE, "throughput_sps": MAXIMIZE, "latency_p50_ms": MINIMIZE}

    objectives = objectives_from_document(words, kind=CLASSIFICATION)

    assert [each.metric.name for each in objectives] == [
        "latency_p50_ms",
        "throughput_sps",
        "accuracy",
    ]


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_an_objective_in_its_own_direction_alone(name: str) -> None:
    own = METRICS[name].direction
    wrong = MINIMIZE if own is MAXIMIZE else MAXIMIZE
    kind = CUSTOM if name == "score" else CLASSIFICATION

    (objective,) = objectives_from_document({name: own}, kind=kind)
    with pytest.raises(SpaceError, match=f"{wrong} makes no sense.*write {own}"):
        objectives_from_document({name: wrong}, kind=kind)

    assert objective.metric.name == name


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("latency_p99", CLASSIFICATION, "there is no metric 'latency_p99'; did you mean"),
        ("accuracy", CUSTOM, "a custom task has no 'accuracy'; use one of: score"),
        ("score", CLASSIFICATION, "a classification task has no 'score'; use one of: accuracy"),
    ],
)
def test_metric_that_the_task_does_not_have_is_refused(
    name: str, kind: TaskKind, said: str
) -> None:
    with pytest.raises(SpaceError) as caught:
        objectives_from_document({name: MAXIMIZE}, kind=kind)

    assert said in str(caught.value)
    assert caught.value.key == f"objectives.{name}"


@pytest.mark.parametrize(
    ("text", "upper", "bound"),
    [
        ("latency_p99_ms <= 15", True, 15.0),
        (" accuracy>=.85 ", False, 0.85),
        ("throughput_sps >= 1e3", False, 1000.0),
    ],
)
def test_bound_is_read(text: str, *, upper: bool, bound: float) -> None:
    (constraint,) = constraints_from_texts([text], kind=CLASSIFICATION)

    assert (constraint.upper, constraint.bound) == (upper, bound)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("accuracy > 0.9", "is no bound; write `metric <= number` or"),
        ("0.9 <= accuracy", "is no bound"),
        ("accuracy >= high", "is no bound"),
        ("accuracy >= nan", "is no bound"),
        ("latency_p99_ms <= 1 ms", "is no bound"),
        ("acuracy >= 0.9", "there is no metric 'acuracy'; did you mean 'accuracy'?"),
        ("score >= 0.9", "a classification task has no 'score'"),
        ("accuracy >= 90", "accuracy lies in [0, 1]; write a fraction"),
        ("accuracy <= 0.9", "forbids the good side"),
        ("latency_p99_ms >= 10", "write latency_p99_ms <= 10"),
        ("latency_p99_ms <= 0", "write a number above 0"),
    ],
)
def test_what_is_no_bound_is_refused_with_the_mend(text: str, said: str) -> None:
    with pytest.raises(SpaceError) as caught:
        constraints_from_texts(["ece <= 0.1", text], kind=CLASSIFICATION)

    assert said in str(caught.value)
    assert caught.value.key == "constraints[1]"


def test_metric_is_bounded_once() -> None:
    """Constraints are told to the sampler by the name of their metric."""
    with pytest.raises(SpaceError, match="bounds ece a second time; keep one of the two"):
        constraints_from_texts(["ece <= 0.1", "ece <= 0.2"], kind=CLASSIFICATION)
