import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import TrialState
from search_fakes import (
    ALLOWED,
    FACTS,
    FormulaRunner,
    ListeningQuiet,
    ListeningTracker,
    ListeningView,
    completed,
    failed,
    infeasible,
    measured,
    value,
)

from optimizer.errors import StudyError, WorkspaceError
from optimizer.search.budget import Budget
from optimizer.search.sampler_name import SamplerName
from optimizer.search.samplers import sampler_named
from optimizer.search.search import Finished, Search
from optimizer.study.opening import find_study, open_study
from optimizer.study.records import json_from_outcome, outcome_from_json
from optimizer.study.storage import open_storage
from optimizer.study.study import SearchStudy
from optimizer.workspace import Workspace, load_blocks
from search_spaces.deployment import Deployment
from search_spaces.space import SearchSpace
from trials.outcome import Failed, Outcome

Opened = Callable[..., SearchStudy]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(root=tmp_path / "work")
    workspace.create()
    return workspace


@pytest.fixture
def opened(space: SearchSpace, workspace: Workspace) -> Opened:
    """Open the study of the tiny space anew, as a new process would."""
    storage = open_storage(workspace.storage_url, workspace)

    def opening(name: str = "tiny", space: SearchSpace = space) -> SearchStudy:
        url = workspace.storage_url
        study = open_study(storage, url, name, space=space, facts=FACTS)
        study.study.sampler, _ = sampler_named(
            SamplerName.RANDOM, study.encoding, seed=0, trials=None, repeats=False
        )
        return study

    return opening


def run(
    study: SearchStudy,
    workspace: Workspace,
    *,
    runner: FormulaRunner | None = None,
    view: ListeningView | None = None,
    tracker: ListeningTracker | None = None,
    quiet: ListeningQuiet | None = None,
    trials: int | None = 10,
) -> Finished:
    search = Search(
        study,
        runner=runner or FormulaRunner(),
        workspace=workspace,
        tracker=tracker,
        quiet=quiet or ListeningQuiet(),
        view=view or ListeningView(),
    )
    return search.run(Budget(trials=trials))


def states(study: SearchStudy) -> list[TrialState]:
    return [trial.state for trial in study.study.get_trials(deepcopy=False)]


def test_search_runs_as_many_trials_as_the_budget_and_finds_a_front(
    opened: Opened, workspace: Workspace
) -> None:
    finished = run(opened(), workspace, trials=12)

    assert finished.tried == 12
    assert finished.front.members
    assert states(opened()) == [TrialState.COMPLETE] * 12


def test_same_command_goes_on_where_it_was_and_measures_nothing_twice(
    opened: Opened, workspace: Workspace
) -> None:
    first, second = FormulaRunner(), FormulaRunner()
    run(opened(), workspace, runner=first, trials=8)

    finished = run(opened(), workspace, runner=second, trials=20)

    assert finished.tried == 12
    assert not set(first.ran) & set(second.ran)
    assert run(opened(), workspace, trials=20).tried == 0


def test_exhausted_space_ends_the_search_and_says_so(opened: Opened, workspace: Workspace) -> None:
    runner = FormulaRunner()

    finished = run(opened(), workspace, runner=runner, trials=ALLOWED + 50)

    assert finished.tried == ALLOWED == len(set(runner.ran))
    assert "every deployment" in finished.reason


def test_search_without_a_limit_ends_when_the_front_stops_growing(
    opened: Opened, workspace: Workspace
) -> None:
    def alike(deployment: Deployment) -> Outcome:
        return completed(deployment, latency_ms=1.0, sps=1.0, accuracy=0.9)

    finished = run(opened(), workspace, runner=FormulaRunner(answer=alike), trials=None)

    assert "stopped growing" in finished.reason
    assert finished.tried == 40


def test_infeasible_deployment_is_complete_with_a_positive_constraint(
    opened: Opened, workspace: Workspace
) -> None:
    finished = run(opened(), workspace, runner=FormulaRunner(answer=infeasible), trials=3)

    trials = opened().study.get_trials()
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert all(trial.constraints["deployable"] > 0 for trial in trials)
    assert not finished.front.members


def test_infeasible_deployment_is_told_with_the_worst_that_was_measured(
    opened: Opened, workspace: Workspace
) -> None:
    run(opened(), workspace, trials=5)
    run(opened(), workspace, runner=FormulaRunner(answer=infeasible), trials=6)

    *before, told = (trial.values for trial in opened().study.get_trials())
    assert told == [
        max(values[0] for values in before),
        min(values[1] for values in before),
        min(values[2] for values in before),
    ]


def test_worst_is_what_was_measured_also_where_the_first_deployment_cannot_run(
    opened: Opened, workspace: Workspace
) -> None:
    run(opened(), workspace, runner=FormulaRunner(answer=infeasible), trials=1)
    run(opened(), workspace, trials=6)
    run(opened(), workspace, runner=FormulaRunner(answer=infeasible), trials=7)

    _, *before, told = (trial.values for trial in opened().study.get_trials())
    assert told[0] == max(values[0] for values in before)


def test_every_trial_has_the_same_constraints(opened: Opened, workspace: Workspace) -> None:
    def answer(deployment: Deployment) -> Outcome:
        return infeasible(deployment) if deployment.batch_size == 8 else measured(deployment)

    run(opened(), workspace, runner=FormulaRunner(answer=answer), trials=20)

    names = {frozenset(trial.constraints) for trial in opened().study.get_trials()}
    assert names == {frozenset({"deployable", "accuracy >= 0.7"})}


def test_fault_is_retried_once_and_then_left_failed(opened: Opened, workspace: Workspace) -> None:
    runner = FormulaRunner(answer=failed)

    finished = run(opened(), workspace, runner=runner, trials=2)

    assert len(runner.ran) == 4
    assert len(set(runner.ran)) == 2
    assert states(opened()) == [TrialState.FAIL] * 4
    assert len(finished.front.failed) == 4


def test_fault_that_passes_costs_one_more_trial_and_no_result(
    opened: Opened, workspace: Workspace
) -> None:
    seen: set[Deployment] = set()

    def answer(deployment: Deployment) -> Outcome:
        if deployment in seen:
            return measured(deployment)
        seen.add(deployment)
        return failed(deployment)

    finished = run(opened(), workspace, runner=FormulaRunner(answer=answer), trials=3)

    assert finished.tried == 6
    assert states(opened()).count(TrialState.COMPLETE) == 3


def test_abandoned_trial_ends_the_session_and_is_tried_first_in_the_next(
    opened: Opened, workspace: Workspace
) -> None:
    def interrupted(deployment: Deployment) -> Outcome:
        return Failed(
            deployment=deployment,
            kind="interrupted",
            reason="abandoned",
            environment=failed(deployment).environment,
        )

    abandoning, going_on = FormulaRunner(answer=interrupted), FormulaRunner()
    finished = run(opened(), workspace, runner=abandoning, trials=5)
    run(opened(), workspace, runner=going_on, trials=5)

    assert finished.tried == 1
    assert going_on.ran[0] == abandoning.ran[0]


def test_bug_escapes_and_its_deployment_is_tried_again_once_it_is_mended(
    opened: Opened, workspace: Workspace
) -> None:
    def broken(deployment: Deployment) -> Outcome:
        raise ZeroDivisionError(f"of the user's metric, batch {deployment.batch_size:d}")

    with pytest.raises(ZeroDivisionError):
        run(opened(), workspace, runner=FormulaRunner(answer=broken))
    left = states(opened())
    finished = run(opened(), workspace, trials=3)

    assert left == [TrialState.FAIL, TrialState.WAITING]
    assert finished.front.failed == ()
    reasons = [record.outcome.reason for record in opened().records()[:1]]  # type: ignore[union-attr]
    assert reasons[0].startswith("ZeroDivisionError: of the user's metric")


def test_disk_that_refuses_ends_the_search_and_its_trial_is_tried_again(
    opened: Opened, workspace: Workspace
) -> None:
    blocks = workspace.blocks("").parent
    blocks.write_text("in the way", encoding="utf-8")

    with pytest.raises(WorkspaceError, match="cannot write"):
        run(opened(), workspace, trials=3)
    blocks.unlink()
    finished = run(opened(), workspace, trials=3)

    records = opened().records()
    assert [record.outcome.state for record in records] == ["failed", *["completed"] * 3]
    assert records[1].outcome.deployment == records[0].outcome.deployment
    assert finished.tried == 3


def test_raw_blocks_are_kept_beside_the_study(opened: Opened, workspace: Workspace) -> None:
    view = ListeningView()

    run(opened(), workspace, view=view, trials=1)

    (record,) = view.records
    (block,) = load_blocks(workspace.blocks(record.uid))
    assert block.latencies_s.shape == (3,)
    assert block.latencies_s[0] * 1e3 == pytest.approx(value(record, "latency_p50_ms"))


def test_nothing_works_beside_a_trial_from_its_load_to_its_last_block(
    opened: Opened, workspace: Workspace
) -> None:
    quiet = ListeningQuiet()

    def answer(deployment: Deployment) -> Outcome:
        quiet.heard.append("ended")
        return measured(deployment)

    run(opened(), workspace, runner=FormulaRunner(answer=answer), quiet=quiet, trials=1)

    assert quiet.heard == ["open", "open", "shut", "shut", "open", "ended", "open"]


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyboardInterrupt()])
def test_quiet_ends_with_its_trial_however_that_ends(
    opened: Opened, workspace: Workspace, error: BaseException
) -> None:
    quiet = ListeningQuiet()

    def broken(_: Deployment) -> Outcome:
        raise error

    runner = FormulaRunner(answer=broken, phases=("load",))
    with pytest.raises(type(error)):
        run(opened(), workspace, runner=runner, quiet=quiet)

    assert quiet.heard == ["shut", "open"]


def test_tracker_hears_of_each_trial_and_first_of_those_before(
    opened: Opened, workspace: Workspace
) -> None:
    run(opened(), workspace, trials=3)
    tracker = ListeningTracker()

    run(opened(), workspace, tracker=tracker, trials=5)

    assert tracker.begun == [3]
    assert [record.number for record in tracker.records] == [3, 4]


def test_tracker_that_cannot_keep_what_it_is_told_costs_a_note_and_no_trial(
    opened: Opened, workspace: Workspace
) -> None:
    view = ListeningView()

    finished = run(opened(), workspace, view=view, tracker=ListeningTracker(full=True), trials=4)

    assert finished.tried == 4
    (note,) = (note for note in view.notes if "MLflow" in note)
    assert note == "MLflow is told no more: no space left on device; the next session tells it all"


def test_front_members_are_judged_on_the_report_split(
    opened: Opened, workspace: Workspace
) -> None:
    finished = run(opened(), workspace)

    verdicts = opened().verdicts()
    assert set(verdicts) == {record.number for record in finished.front.members}
    assert {quality.split for quality in verdicts.values()} == {"report"}


def test_record_read_back_equals_the_record_that_was_told(
    opened: Opened, workspace: Workspace
) -> None:
    view = ListeningView()

    run(opened(), workspace, view=view, trials=4)

    assert list(opened().records()) == view.records


def test_infinite_score_of_a_users_metric_can_be_read_back(space: SearchSpace) -> None:
    outcome = completed(next(space.deployments()), latency_ms=1.0, sps=1.0, accuracy=float("inf"))

    assert outcome_from_json(json_from_outcome(outcome)) == replace(outcome, blocks=())


def test_study_of_another_space_is_refused_with_the_key(
    opened: Opened, space: SearchSpace, tmp_path: Path
) -> None:
    opened()
    from search_spaces.files import space_from_yaml

    file = tmp_path / "other.yaml"
    text = Path(space.source).read_text(encoding="utf-8")
    file.write_text(text.replace("[1, 2, 4, 8]", "[1, 2, 4]"), encoding="utf-8")

    with pytest.raises(StudyError, match=r"batch_size"):
        opened(space=space_from_yaml(file))


def test_study_that_is_not_there_is_named_with_those_that_are(
    opened: Opened, workspace: Workspace
) -> None:
    opened()
    url = workspace.storage_url

    with pytest.raises(StudyError, match="no study 'other'") as caught:
        find_study(open_storage(url, workspace), url, "other")

    assert "tiny" in caught.value.hint


DEAD = json.dumps([socket.gethostname(), "another boot", 1, 0.0])
DYING = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from search_fakes import FACTS
from optimizer.search.sampler_name import SamplerName
from optimizer.search.samplers import sampler_named
from optimizer.study.storage import open_storage
from optimizer.study.opening import open_study
from optimizer.workspace import Workspace
from search_spaces.files import space_from_yaml
workspace = Workspace(root=Path(sys.argv[1]))
space = space_from_yaml(Path(sys.argv[3]))
url = workspace.storage_url
study = open_study(open_storage(url, workspace), url, "tiny", space=space, facts=FACTS)
study.study.sampler, _ = sampler_named(
    SamplerName.RANDOM, study.encoding, seed=0, trials=None, repeats=False
)
study.ask()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_trial_of_a_killed_process_is_found_and_tried_again(
    opened: Opened, workspace: Workspace, space: SearchSpace
) -> None:
    tests = Path(__file__).parent.parent
    command = [sys.executable, "-c", DYING, str(workspace.root), str(tests), space.source]
    killed = subprocess.run(command, check=False, timeout=60, env=os.environ | {"PYTHONPATH": ""})
    assert killed.returncode == -signal.SIGKILL
    assert states(opened()) == [TrialState.RUNNING]
    view = ListeningView()

    run(opened(), workspace, view=view, trials=5)

    assert "trial 0 was lost" in view.notes[0]
    assert states(opened()) == [TrialState.FAIL] + [TrialState.COMPLETE] * 5
    first, second = opened().study.get_trials()[:2]
    assert first.params == second.params


def test_time_between_a_kill_and_the_next_session_is_no_time_of_the_search(
    opened: Opened,
) -> None:
    """Else a search of five minutes, killed in the evening, is over in the morning."""
    study = opened()
    lost, kept = study.ask().trial, study.ask()
    outcome = measured(kept.deployment)
    kept.trial.set_user_attr("outcome", json_from_outcome(outcome))
    for trial in (lost, kept.trial):
        trial.set_user_attr("owner", DEAD)
    time.sleep(0.3)  # the night

    study.mend()

    seconds = [record.finished_s - record.started_s for record in study.records()]
    assert seconds == pytest.approx([0.0, outcome.costs.measure_s], abs=1e-6)


def test_trial_that_another_live_process_runs_is_left_alone(
    opened: Opened, workspace: Workspace
) -> None:
    mine = opened().ask()

    run(opened(), workspace, trials=3)

    assert states(opened())[mine.trial.number] is TrialState.RUNNING
