"""What Optuna is told: ratios as logarithms, bounds as signs, what cannot run as the worst."""

import math
from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_fakes import completed, infeasible, measured

from optimizer.study.objectives import (
    DEPLOYABLE,
    meets,
    sampler_name,
    told_of_completed,
    told_of_infeasible,
    value_from_metric,
)
from search_spaces.metrics import METRICS
from search_spaces.space import SearchSpace


def test_latency_and_throughput_are_told_as_logarithms_and_scores_as_they_are(
    space: SearchSpace,
) -> None:
    outcome = completed(next(space.deployments()), latency_ms=10.0, sps=1000.0, accuracy=0.9)

    told = told_of_completed(outcome, space)

    assert told.values == pytest.approx((1.0, 3.0, 0.9))


@pytest.mark.parametrize(("accuracy", "is_met"), [(0.71, True), (0.7, True), (0.69, False)])
def test_constraint_is_at_most_zero_exactly_where_it_is_met(
    space: SearchSpace, accuracy: float, *, is_met: bool
) -> None:
    outcome = completed(next(space.deployments()), latency_ms=1, sps=1, accuracy=accuracy)

    told = dict(told_of_completed(outcome, space).constraints)

    assert (told["accuracy >= 0.7"] <= 0) is is_met
    assert told[DEPLOYABLE] == 0
    assert meets(outcome, space.constraints) is is_met


def test_what_cannot_run_is_told_with_the_worst_that_was_measured(space: SearchSpace) -> None:
    outcomes = [measured(one) for one in islice(space.deployments(), 40)]
    values = [told_of_completed(outcome, space).values for outcome in outcomes]

    told = told_of_infeasible(infeasible(next(space.deployments())), space, values)

    latencies, throughputs, scores = zip(*values, strict=True)
    assert told.values == (max(latencies), min(throughputs), min(scores))
    assert all(violation > 0 for _, violation in told.constraints)


def test_first_trial_that_cannot_run_has_values_all_the_same(space: SearchSpace) -> None:
    told = told_of_infeasible(infeasible(next(space.deployments())), space, [])

    assert told.values == (math.log10(METRICS["latency_p99_ms"].worst), 0.0, 0.0)


def test_every_trial_is_told_the_same_constraints(space: SearchSpace) -> None:
    """Samplers compare violations by position and name."""
    deployment = next(space.deployments())

    ran = told_of_completed(measured(deployment), space)
    did_not = told_of_infeasible(infeasible(deployment), space, [ran.values])

    assert [name for name, _ in ran.constraints] == [name for name, _ in did_not.constraints]


def test_metric_that_was_not_measured_is_an_error_and_no_number(space: SearchSpace) -> None:
    outcome = replace(measured(next(space.deployments())), quality=None)

    with pytest.raises(KeyError, match="accuracy"):
        told_of_completed(outcome, space)


@given(st.floats(min_value=1e-6, max_value=1e9))
def test_ratios_become_differences(value: float) -> None:
    metric = METRICS["latency_p99_ms"]

    step = value_from_metric(2 * value, metric) - value_from_metric(value, metric)

    assert step == pytest.approx(math.log10(2))


def test_names_say_which_scale_is_told() -> None:
    assert sampler_name(METRICS["throughput_sps"]) == "log10(throughput_sps)"
    assert sampler_name(METRICS["accuracy"]) == "accuracy"
