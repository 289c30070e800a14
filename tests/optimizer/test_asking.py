"""What is asked of a front beside what the study wanted."""

import pytest
from search_fakes import failed, measured, record_of

from optimizer.errors import UsageError
from optimizer.front.asking import question_of
from optimizer.study.records import TrialRecord
from search_spaces.space import SearchSpace


@pytest.fixture
def records(space: SearchSpace) -> list[TrialRecord]:
    deployments = list(space.deployments())
    return [
        record_of(number, failed(one) if number == 0 else measured(one))
        for number, one in enumerate(deployments)
    ]


def test_study_decides_where_nothing_is_asked(
    space: SearchSpace, records: list[TrialRecord]
) -> None:
    question = question_of(space, records)

    assert question.objectives == space.objectives
    assert question.constraints == space.constraints
    assert question.chosen(records) == records


def test_objectives_may_be_any_metric_that_was_measured(
    space: SearchSpace, records: list[TrialRecord]
) -> None:
    question = question_of(space, records, objectives=["engine_size_mb", "latency_p50_ms"])

    assert [(one.metric.name, one.direction.value) for one in question.objectives] == [
        ("engine_size_mb", "minimize"),
        ("latency_p50_ms", "minimize"),
    ]


def test_bounds_come_on_top_of_the_studys(space: SearchSpace, records: list[TrialRecord]) -> None:
    question = question_of(space, records, where=["latency_p99_ms<=10", "accuracy >= 0.9"])

    assert [str(one) for one in question.constraints] == [
        "accuracy >= 0.7",
        "latency_p99_ms <= 10",
        "accuracy >= 0.9",
    ]


def test_conditions_on_axes_choose_deployments(
    space: SearchSpace, records: list[TrialRecord]
) -> None:
    question = question_of(
        space, records, where=["precision == 'int8' and threads * concurrency <= 2"]
    )

    chosen = question.chosen(records)

    assert 0 < len(chosen) < len(records)
    for record in chosen:
        assert record.outcome.deployment.precision == "int8"
        assert record.outcome.deployment.concurrency <= 2


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"objectives": ["latency_p98_ms"]}, "not measured"),
        ({"objectives": ["accuracy", "accuracy"]}, "named twice"),
        ({"where": ["accuracy <= 0.9"]}, "good side"),
        ({"where": ["latency_p99_ms <= 10 and batch_size == 1"]}, "no bound"),
        ({"where": ["batchsize == 1"]}, "did you mean 'batch_size'"),
        ({"where": ["batch_size =="]}, "no condition"),
        ({"where": ["batch_size / 0 == 1"]}, "no value"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_mend(
    space: SearchSpace,
    records: list[TrialRecord],
    asked: dict[str, list[str]],
    problem: str,
) -> None:
    with pytest.raises(UsageError) as refusal:
        question_of(space, records, **asked)

    assert problem in f"{refusal.value} {refusal.value.hint}"
    assert refusal.value.hint


@pytest.mark.parametrize(
    ("condition", "mend"),
    [
        ("latency_p99 <= 10", "did you mean the metric latency_p99_ms?"),
        ("acuracy >= 0.9", "did you mean the metric accuracy?"),
        ("precision = 'int8'", "compare with =="),
        ("precision == int8", "put text in quotes: 'int8'"),
        ("precision == 'int9'", "did you mean 'int8'?"),
        ("beauty > 1", "write a bound on a metric, or a condition on axes"),
    ],
)
def test_condition_that_is_none_is_refused_with_what_was_meant(
    space: SearchSpace, records: list[TrialRecord], condition: str, mend: str
) -> None:
    with pytest.raises(UsageError) as caught:
        question_of(space, records, where=[condition])

    assert mend in caught.value.hint
