"""How a trial is named on the command line."""

from collections.abc import Callable

import pytest
from search_fakes import FACTS, infeasible, measured, value

from optimizer.errors import StudyError, UsageError
from optimizer.front.front import front_of
from optimizer.front.picking import record_named
from optimizer.search.sampler_name import SamplerName
from optimizer.search.samplers import sampler_named
from optimizer.study.opening import open_study
from optimizer.study.storage import open_storage
from optimizer.study.study import SearchStudy
from optimizer.workspace import Workspace
from search_spaces.deployment import Deployment
from search_spaces.space import SearchSpace
from trials.outcome import Outcome

Told = Callable[[Callable[[Deployment], Outcome], int], SearchStudy]


@pytest.fixture
def told(space: SearchSpace, workspace: Workspace) -> Told:
    """Make a study of so many trials that were answered so."""

    def make(answer: Callable[[Deployment], Outcome], trials: int) -> SearchStudy:
        storage = open_storage(workspace.storage_url, workspace)
        study = open_study(storage, workspace.storage_url, "tiny", space=space, facts=FACTS)
        study.study.sampler, _ = sampler_named(
            SamplerName.RANDOM, study.encoding, seed=0, trials=None, repeats=False
        )
        for _ in range(trials):
            asked = study.ask()
            study.tell(asked, answer(asked.deployment))
        return study

    return make


@pytest.fixture
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = Workspace(root=tmp_path_factory.mktemp("work"))
    made.create()
    return made


def test_number_names_a_trial(told: Told) -> None:
    assert record_named("2", told(measured, 4)).number == 2


def test_knee_names_the_fronts(told: Told) -> None:
    study = told(measured, 12)
    front = front_of(study.records(), study.space.objectives, study.space.constraints)

    assert record_named("knee", study) is front.knee


def test_best_is_of_the_front_and_in_the_objectives_direction(told: Told) -> None:
    study = told(measured, 12)
    front = front_of(study.records(), study.space.objectives, study.space.constraints)

    fastest = record_named("best:latency_p99_ms", study)
    widest = record_named("best:throughput_sps", study)

    assert value(fastest, "latency_p99_ms") == min(
        value(one, "latency_p99_ms") for one in front.members
    )
    assert value(widest, "throughput_sps") == max(
        value(one, "throughput_sps") for one in front.members
    )


def test_trial_that_is_not_there_is_refused_with_those_that_are(told: Told) -> None:
    with pytest.raises(StudyError, match="no ended trial 9; it has 0 to 2"):
        record_named("9", told(measured, 3))


def test_metric_that_is_no_objective_is_refused_with_those_that_are(told: Told) -> None:
    with pytest.raises(UsageError, match="'load_ms' is no objective") as caught:
        record_named("best:load_ms", told(measured, 1))

    assert "latency_p99_ms" in caught.value.hint


@pytest.mark.parametrize("name", ["", "best", "Knee", "-1", "1.5", "²"])
def test_what_names_no_trial_is_refused_with_examples(told: Told, name: str) -> None:
    with pytest.raises(UsageError, match="names no trial") as caught:
        record_named(name, told(measured, 1))

    assert "`knee`" in caught.value.hint


@pytest.mark.parametrize("name", ["knee", "best:accuracy"])
def test_empty_front_is_refused_with_the_reason(told: Told, name: str) -> None:
    with pytest.raises(StudyError, match="front is empty: 0 trials miss a bound, 2 are infeas"):
        record_named(name, told(infeasible, 2))


def test_study_without_an_ended_trial_is_not_told_to_loosen_a_constraint(told: Told) -> None:
    with pytest.raises(StudyError, match="no trial of this study has ended yet"):
        record_named("knee", told(measured, 0))
