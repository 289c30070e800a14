"""When a search ends, and in which words."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import pytest
from search_fakes import completed, failed, infeasible, measured, record_of

from optimizer.search.budget import Budget, has_stalled, tried_deployments
from optimizer.study.records import TrialRecord
from search_spaces.space import SearchSpace
from trials.outcome import Outcome


def records_of(outcomes: Sequence[Outcome]) -> list[TrialRecord]:
    return [record_of(number, outcome) for number, outcome in enumerate(outcomes)]


def improving(space: SearchSpace, count: int, *, until: int) -> list[TrialRecord]:
    """Measure deployments of which each is twice as good as the last, up to a number."""
    deployments = islice(space.deployments(), count)
    return records_of(
        [
            completed(
                one,
                latency_ms=2.0 ** -min(number, until),
                sps=2.0 ** min(number, until),
                accuracy=0.9,
            )
            for number, one in enumerate(deployments)
        ]
    )


def test_trials_are_counted_over_all_sessions(space: SearchSpace) -> None:
    records = records_of([measured(one) for one in islice(space.deployments(), 5)])

    assert Budget(trials=6).spent(records, space) is None
    assert Budget(trials=5).spent(records, space) == "all 5 trials are done"
    assert Budget(trials=4).spent(records, space) == "all 4 trials are done"


def test_trials_that_other_processes_run_are_counted_and_said(space: SearchSpace) -> None:
    records = records_of([measured(one) for one in islice(space.deployments(), 5)])

    assert Budget(trials=8).spent(records, space, running=2) is None
    assert Budget(trials=7).spent(records, space, running=2) == (
        "5 of 7 trials are done, other processes run the rest"
    )


def test_time_is_the_sum_of_the_trials_durations(space: SearchSpace) -> None:
    records = records_of([measured(one) for one in islice(space.deployments(), 4)])  # 0.5 s each

    assert Budget(time_s=2.1).spent(records, space) is None
    assert Budget(time_s=2.0).spent(records, space) == "the time of 2 s is used up"


def test_whatever_is_spent_first_ends_the_search(space: SearchSpace) -> None:
    records = records_of([measured(one) for one in islice(space.deployments(), 4)])

    assert Budget(trials=4, time_s=100).spent(records, space) == "all 4 trials are done"
    assert Budget(trials=100, time_s=1).spent(records, space) == "the time of 1 s is used up"


def test_retry_of_a_fault_costs_no_trial(space: SearchSpace) -> None:
    one, two, three = islice(space.deployments(), 3)

    retried = records_of([failed(one), measured(one), infeasible(two)])
    lost = records_of([failed(three), failed(three)])

    assert tried_deployments(retried) == 2
    assert tried_deployments(lost) == 1
    assert tried_deployments([]) == 0


def test_front_that_grows_no_more_ends_the_search(space: SearchSpace) -> None:
    records = improving(space, 60, until=10)

    reason = Budget().spent(records, space)

    assert reason == (
        "the front has stopped growing: less than 0.5% more hypervolume over the last 20 trials"
    )


def test_front_that_still_grows_does_not(space: SearchSpace) -> None:
    assert Budget().spent(improving(space, 60, until=60), space) is None


def test_rule_of_the_front_waits_for_two_windows(space: SearchSpace) -> None:
    assert not has_stalled(improving(space, 39, until=1), space)
    assert has_stalled(improving(space, 40, until=1), space)


def test_front_that_is_still_empty_is_searched_for(space: SearchSpace) -> None:
    """Nothing has stopped growing that has not begun."""
    impossible = replace(space.constraints[0], bound=1.0)
    strict = replace(space, constraints=(impossible,))

    assert not has_stalled(improving(space, 60, until=1), strict)


@pytest.mark.parametrize("budget", [Budget(trials=1000), Budget(time_s=1e6)])
def test_limit_that_was_asked_for_is_used_even_where_the_front_stalls(
    space: SearchSpace, budget: Budget
) -> None:
    assert budget.spent(improving(space, 60, until=1), space) is None
