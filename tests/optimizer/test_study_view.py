import math
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects
from optuna_dashboard._note import get_note_from_system_attrs, save_note_with_version
from search_fakes import infeasible, searched

from optimizer.dashboard.study_view import StudyView
from optimizer.dashboard.translation import feasible_front
from optimizer.errors import StorageError
from optimizer.study.records import json_from_outcome
from optimizer.study.storage import existing_storage
from optimizer.workspace import Workspace
from search_spaces.deployment import Deployment, Precision
from search_spaces.space import SearchSpace
from trials.outcome import Environment, Infeasible

COSTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.booleans()), max_size=12)


def a_study(storage: InMemoryStorage, *names: str) -> Study:
    study = optuna.create_study(storage=storage, directions=["minimize"] * len(names))
    study._storage.set_study_system_attr(study._study_id, "study:metric_names", list(names))
    return study


def a_trial(*values: float, violation: float = 0.0) -> FrozenTrial:
    return optuna.create_trial(values=list(values), constraints={"bound": violation})


def a_cannot_run() -> str:
    deployment = Deployment(
        variant="ghost", precision=Precision.FP32, batch_size=64, concurrency=1
    )
    return json_from_outcome(
        Infeasible(
            deployment=deployment,
            kind="memory",
            reason="does not fit",
            environment=Environment(facts=()),
        )
    )


@given(COSTS)
def test_front_is_feasible_undominated_and_complete(points: list[tuple[int, int, bool]]) -> None:
    trials = [a_trial(x, y, violation=0.0 if met else 1.0) for x, y, met in points]

    front = feasible_front(trials, [StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE])

    met = [(x, -y) for x, y, is_met in points if is_met]
    best = [p for p in met if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in met)]
    assert sorted((t.values[0], -t.values[1]) for t in front) == sorted(best)


def test_logarithms_come_back_as_what_was_measured() -> None:
    storage = InMemoryStorage()
    study = a_study(storage, "log10(latency_p99_ms)", "ece")
    study.add_trial(a_trial(math.log10(12.0), 0.25))

    view = StudyView(storage)

    assert view.get_all_trials(study._study_id)[0].values == [12.0, 0.25]
    shown = view.get_all_studies()[0].system_attrs["study:metric_names"]
    assert shown == ["latency_p99_ms", "ece"]
    assert study.trials[0].values == [math.log10(12.0), 0.25]


def test_named_constraints_become_the_list_that_older_readers_want() -> None:
    storage = InMemoryStorage()
    study = a_study(storage, "ece")
    study.add_trial(optuna.create_trial(value=1.0, constraints={"b": 2.0, "a": -1.0}))

    shown = StudyView(storage).get_all_trials(study._study_id)[0]

    assert shown.system_attrs == {"constraints": [-1.0, 2.0]}


def test_deployment_that_cannot_run_shows_its_reason_and_no_values() -> None:
    storage = InMemoryStorage()
    study = a_study(storage, "log10(latency_p99_ms)")
    attributes = {"outcome": a_cannot_run(), "owner": "somebody"}
    study.add_trial(
        optuna.create_trial(value=-3.0, constraints={"deployable": 1.0}, user_attrs=attributes)
    )

    shown = StudyView(storage).get_all_trials(study._study_id)[0]

    assert shown.values is None
    assert shown.state is TrialState.COMPLETE
    assert shown.user_attrs["reason"] == "does not fit"
    assert "owner" not in shown.user_attrs


def test_best_of_one_objective_meets_the_constraints() -> None:
    storage = InMemoryStorage()
    study = a_study(storage, "ece")
    study.add_trials([a_trial(1.0, violation=2.0), a_trial(5.0), a_trial(3.0), a_trial(4.0)])

    assert StudyView(storage).get_best_trial(study._study_id).number == 2


def test_best_is_the_least_infeasible_where_nothing_meets_the_constraints() -> None:
    storage = InMemoryStorage()
    study = a_study(storage, "ece")
    study.add_trials([a_trial(1.0, violation=2.0), a_trial(5.0, violation=0.5)])

    assert StudyView(storage).get_best_trial(study._study_id).number == 1


def test_running_trial_is_looked_at_anew_until_it_ends() -> None:
    storage = InMemoryStorage()
    study = a_study(storage, "ece")
    view = StudyView(storage)
    trial = study.ask()

    before = view.get_all_trials(study._study_id)[0].state
    study.tell(trial, 1.0)
    after = view.get_all_trials(study._study_id)[0].state

    assert (before, after) == (TrialState.RUNNING, TrialState.COMPLETE)


def test_programs_attributes_are_not_shown() -> None:
    storage = InMemoryStorage()
    study = a_study(storage, "ece")
    study.set_user_attr("trifront:space", "{}")
    study.set_user_attr("note", "for people")

    assert StudyView(storage).get_study_user_attrs(study._study_id) == {"note": "for people"}


def test_nothing_can_be_written_through_the_view() -> None:
    storage = InMemoryStorage()
    study = a_study(storage, "ece")
    view = StudyView(storage)

    with pytest.raises(StorageError, match="only looks"):
        view.delete_study(study._study_id)
    with pytest.raises(StorageError, match="only looks"):
        optuna.load_study(study_name=study.study_name, storage=view).ask()


def test_writes_are_passed_on_where_they_are_allowed() -> None:
    storage = InMemoryStorage()
    study = a_study(storage, "ece")
    view = StudyView(storage, allow_writes=True)

    view.set_study_system_attr(study._study_id, "dashboard:note_ver", 1)

    assert storage.get_study_system_attrs(study._study_id)["dashboard:note_ver"] == 1


def test_study_of_ours_comes_with_a_note_and_figures_that_nobody_wrote(
    space: SearchSpace, tmp_path: Path
) -> None:
    workspace = Workspace(root=tmp_path / "work")
    study = searched(workspace, space, trials=6)
    view = StudyView(existing_storage(workspace.storage_url))
    study_id = study.study._study_id

    attributes = view.get_study_system_attrs(study_id)

    assert get_note_from_system_attrs(attributes, None)["body"].startswith("# tiny")
    assert get_plotly_graph_objects(attributes).keys() == {"front-2d", "front-3d"}
    stored = study.study._storage.get_study_system_attrs(study_id)
    assert not [name for name in stored if name.startswith("dashboard:")]


def test_note_and_figures_follow_the_search(space: SearchSpace, tmp_path: Path) -> None:
    workspace = Workspace(root=tmp_path / "work")
    study_id = searched(workspace, space, trials=4).study._study_id
    view = StudyView(existing_storage(workspace.storage_url))

    before = view.get_study_system_attrs(study_id)
    searched(workspace, space, trials=9)
    after = view.get_study_system_attrs(study_id)

    assert " of 4 trials on the front" in get_plotly_graph_objects(before)["front-2d"]
    assert " of 9 trials on the front" in get_plotly_graph_objects(after)["front-2d"]


def test_note_that_somebody_wrote_wins_until_it_is_emptied(
    space: SearchSpace, tmp_path: Path
) -> None:
    workspace = Workspace(root=tmp_path / "work")
    study_id = searched(workspace, space, trials=4).study._study_id
    view = StudyView(existing_storage(workspace.storage_url), allow_writes=True)

    save_note_with_version(view, study_id, None, 1, "ship it" * 500)
    written = get_note_from_system_attrs(view.get_study_system_attrs(study_id), None)
    save_note_with_version(view, study_id, None, 2, "")
    emptied = get_note_from_system_attrs(view.get_study_system_attrs(study_id), None)

    assert written == {"version": 1, "body": "ship it" * 500}
    assert emptied["version"] == 2
    assert emptied["body"].startswith("# tiny")


def test_study_that_gets_the_number_of_a_deleted_one_shows_its_own_trials(
    space: SearchSpace, tmp_path: Path
) -> None:
    """SQLite gives numbers of studies and trials anew: old trials under them would be a lie."""
    workspace = Workspace(root=tmp_path / "work")
    first = searched(workspace, space, trials=5)
    view = StudyView(existing_storage(workspace.storage_url))
    before = view.look(first.study._study_id)

    optuna.delete_study(study_name="tiny", storage=workspace.storage_url)
    second = searched(workspace, space, trials=3, answer=infeasible)
    after = view.look(second.study._study_id)

    assert second.study._study_id == first.study._study_id
    assert {trial.user_attrs["outcome"] for trial in before.trials} == {"completed"}
    assert [trial.user_attrs["outcome"] for trial in after.trials] == ["infeasible"] * 3
    assert after.known is not None
    assert after.known.harvest().front.members == ()


def test_study_that_is_gone_is_not_found(space: SearchSpace, tmp_path: Path) -> None:
    workspace = Workspace(root=tmp_path / "work")
    study = searched(workspace, space, trials=2)
    view = StudyView(existing_storage(workspace.storage_url))
    view.look(study.study._study_id)

    optuna.delete_study(study_name="tiny", storage=workspace.storage_url)

    with pytest.raises(KeyError):
        view.look(study.study._study_id)
