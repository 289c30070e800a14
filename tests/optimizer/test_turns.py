"""Several searches of one study at once, and what those that were killed left behind."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState
from search_fakes import FACTS, FormulaRunner, ListeningQuiet, ListeningView, failed, measured

from optimizer.search.budget import Budget
from optimizer.search.sampler_name import SamplerName
from optimizer.search.samplers import sampler_named
from optimizer.search.search import Search
from optimizer.study.opening import open_study
from optimizer.study.records import json_from_outcome
from optimizer.study.storage import open_storage
from optimizer.study.study import Asked, SearchStudy
from optimizer.workspace import Workspace, save_blocks
from search_spaces.space import SearchSpace

ROOT = Path(__file__).parents[2]
SEARCHING = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from search_fakes import FACTS, FormulaRunner, ListeningQuiet, ListeningView
from optimizer.search.budget import Budget
from optimizer.search.sampler_name import SamplerName
from optimizer.search.samplers import sampler_named
from optimizer.search.search import Search
from optimizer.study.storage import open_storage
from optimizer.study.opening import open_study
from optimizer.workspace import Workspace
from search_spaces.files import space_from_yaml
workspace, space = Workspace(root=Path(sys.argv[1])), space_from_yaml(Path(sys.argv[2]))
url = workspace.storage_url
study = open_study(open_storage(url, workspace), url, "tiny", space=space, facts=FACTS)
study.study.sampler, _ = sampler_named(
    SamplerName.TPE, study.encoding, seed=0, trials=None, repeats=False
)
view, runner = ListeningView(), FormulaRunner()
search = Search(
    study, runner=runner, workspace=workspace, tracker=None, quiet=ListeningQuiet(), view=view
)
search.run(Budget(trials=60))
"""

Opened = Callable[[], SearchStudy]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(root=tmp_path / "work")
    workspace.create()
    return workspace


@pytest.fixture
def opened(space: SearchSpace, workspace: Workspace) -> Opened:
    """Open the study of the tiny space anew, as a new process would."""
    url = workspace.storage_url
    storage = open_storage(url, workspace)

    def opening() -> SearchStudy:
        study = open_study(storage, url, "tiny", space=space, facts=FACTS)
        study.study.sampler, _ = sampler_named(
            SamplerName.RANDOM, study.encoding, seed=0, trials=None, repeats=False
        )
        return study

    return opening


def go_on(study: SearchStudy, workspace: Workspace, *, trials: int) -> tuple[str, ...]:
    """Search until so many trials are done; return what the user was told."""
    view = ListeningView()
    search = Search(
        study,
        runner=FormulaRunner(),
        workspace=workspace,
        tracker=None,
        quiet=ListeningQuiet(),
        view=view,
    )
    finished = search.run(Budget(trials=trials))
    return (*view.notes, finished.reason)


def abandoned(study: SearchStudy) -> Asked:
    """Begin a trial and leave it as a process does that was killed before it could sign."""
    trial = study.study.ask(study.encoding.distributions)
    return Asked(trial=trial, deployment=study.encoding.deployment(trial.params))


def states(study: SearchStudy) -> list[TrialState]:
    return [trial.state for trial in study.study.get_trials()]


def test_searches_that_ask_as_fast_as_they_can_make_the_budget_and_try_nothing_twice(
    opened: Opened, workspace: Workspace, space: SearchSpace
) -> None:
    """Without turns, two such searches tried 6 of 60 deployments twice and one too many."""
    command = [sys.executable, "-c", SEARCHING, str(workspace.root), space.source]

    both = [subprocess.Popen(command, cwd=ROOT) for _ in range(2)]
    codes = [search.wait() for search in both]

    study = opened()
    tried = Counter(record.outcome.deployment for record in study.records())
    assert codes == [0, 0]
    assert len({trial.user_attrs["owner"] for trial in study.study.get_trials()}) == 2
    assert max(tried.values()) == 1
    assert states(study) == [TrialState.COMPLETE] * 60


def test_running_trials_of_another_process_use_up_the_budget(
    opened: Opened, workspace: Workspace
) -> None:
    others = opened()
    with others.turn():
        others.ask()

    told = go_on(opened(), workspace, trials=3)

    assert told[-1] == "2 of 3 trials are done, other processes run the rest"


def test_trial_that_was_killed_after_its_outcome_was_written_counts(
    opened: Opened, workspace: Workspace
) -> None:
    asked = abandoned(opened())
    asked.trial.set_user_attr("outcome", json_from_outcome(measured(asked.deployment)))

    told = go_on(opened(), workspace, trials=1)

    assert told[0] == "trial 0 was measured when its process died; it counts"
    assert states(opened()) == [TrialState.COMPLETE]


def test_blocks_of_a_lost_trial_are_swept_away_with_their_half_written_copies(
    opened: Opened, workspace: Workspace
) -> None:
    study = opened()
    asked = abandoned(study)
    path = workspace.blocks(study.uid(asked.trial.number))
    save_blocks(measured(asked.deployment).blocks, path)
    half = path.with_name(f".{path.name}.draft")
    half.touch()

    go_on(opened(), workspace, trials=1)

    assert not path.exists()
    assert not half.exists()
    assert workspace.blocks(study.uid(1)).exists()


def test_retry_that_was_killed_before_it_had_its_parameters_is_tried_again(
    opened: Opened, workspace: Workspace
) -> None:
    study = opened()
    wanted = study.encoding.params(abandoned(study).deployment)
    study.mend()
    assert states(study) == [TrialState.FAIL, TrialState.WAITING]
    study.study.ask()  # takes what waits, and dies

    go_on(opened(), workspace, trials=1)

    last = opened().study.get_trials()[-1]
    assert last.state is TrialState.COMPLETE
    assert last.params == wanted


def test_fault_that_was_killed_while_it_was_told_is_retried_once_and_not_twice(
    opened: Opened,
) -> None:
    study = opened()
    asked = abandoned(study)
    asked.trial.set_user_attr("outcome", json_from_outcome(failed(asked.deployment)))
    study.study.enqueue_trial(asked.trial.params)

    opened().mend()

    assert states(opened()) == [TrialState.FAIL, TrialState.WAITING]
