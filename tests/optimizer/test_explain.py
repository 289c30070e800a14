"""Why a search tried what it tried, on a study whose truth is a formula."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from search_fakes import FACTS, SPACE, FormulaRunner, ListeningQuiet, ListeningView, searched
from typer.testing import CliRunner

from optimizer.cli import app
from optimizer.errors import StudyError
from optimizer.explaining.explain import Explanation, belief_of, explained, setup_of
from optimizer.explaining.words import lines_of_calibration, lines_of_reasons, why
from optimizer.search.budget import Budget
from optimizer.search.sampler_name import SamplerName
from optimizer.search.sampler_setup import Setup, json_from_setup
from optimizer.search.samplers import sampler_named
from optimizer.search.search import Search
from optimizer.study.attributes import SAMPLER
from optimizer.study.opening import open_study
from optimizer.study.storage import open_storage
from optimizer.study.study import SearchStudy
from optimizer.workspace import Workspace
from search_spaces.files import space_from_yaml
from search_spaces.space import SearchSpace
from trials.capabilities import EngineIdentity

RUNNER = CliRunner()
TRIALS = 24


def searched_by_ours(workspace: Workspace, space: SearchSpace, *, trials: int) -> SearchStudy:
    workspace.create()
    url = workspace.storage_url
    study = open_study(open_storage(url, workspace), url, "tiny", space=space, facts=FACTS)
    study.study.sampler, _ = sampler_named(
        SamplerName.FRONT, study.encoding, seed=0, trials=None, repeats=False
    )
    search = Search(
        study,
        runner=FormulaRunner(),
        workspace=workspace,
        tracker=None,
        quiet=ListeningQuiet(),
        view=ListeningView(),
    )
    search.run(Budget(trials=trials))
    study.refresh()
    return study


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("explained")


@pytest.fixture(scope="module")
def study(folder: Path) -> SearchStudy:
    """One study for all that only look at it."""
    file = folder / "tiny.yaml"
    file.write_text(SPACE, encoding="utf-8")
    workspace = Workspace(root=folder / "trifront")
    return searched_by_ours(workspace, space_from_yaml(file), trials=TRIALS)


@pytest.fixture(scope="module")
def found(study: SearchStudy) -> Explanation:
    return explained(study)


def test_first_trials_are_to_learn_from_and_later_ones_for_a_gain(found: Explanation) -> None:
    assert [reason.rank is None for reason in found.reasons] == [True] * 4 + [False] * 20
    assert why(found.reasons[0]).startswith("to learn from")


def test_what_our_sampler_chose_was_worth_most_by_what_was_known_then(found: Explanation) -> None:
    """The reasons are computed from the trials again, and must be those that it had."""
    ranks = [reason.rank for reason in found.reasons if reason.gain]

    assert len(ranks) > 10
    assert set(ranks) == {1}
    assert "the most for its price" in why(found.reasons[5])


def test_retried_deployment_is_not_said_to_be_an_early_one(found: Explanation) -> None:
    repeated = replace(found.reasons[0], is_early=False)

    assert "tried before" in why(repeated)


def test_what_another_sampler_chose_seldom_was_worth_most(
    tmp_path: Path, space: SearchSpace
) -> None:
    study = searched(Workspace(root=tmp_path / "trifront"), space, trials=TRIALS)

    ranks = [reason.rank for reason in explained(study).reasons if reason.rank is not None]

    assert len(ranks) == TRIALS - 4
    assert sum(rank == 1 for rank in ranks) < 5


def test_accuracy_of_an_engine_that_was_scored_is_known(found: Explanation) -> None:
    """The space has four engines."""
    engines = set()
    for reason in found.reasons:
        engine = (reason.deployment.variant, reason.deployment.precision)
        for belief in reason.expected:
            if belief.metric == "accuracy":
                assert belief.is_known == (engine in engines)
        engines.add(engine)


def test_what_was_in_doubt_mostly_lay_where_it_was_believed(found: Explanation) -> None:
    assert found.predicted >= 40
    assert found.covered / found.predicted > 0.85
    assert f"{found.covered} of {found.predicted} values" in next(lines_of_calibration(found))


def test_beliefs_narrow_as_trials_come(found: Explanation) -> None:
    def widths(which: slice) -> list[float]:
        return [
            belief.high / belief.low
            for reason in found.reasons[which]
            for belief in reason.expected
            if belief.metric == "throughput_sps"
        ]

    early, late = widths(slice(4, 8)), widths(slice(20, 24))

    assert sum(late) / len(late) < sum(early) / len(early)


def test_promising_deployments_that_were_never_tried_are_told_best_first(
    study: SearchStudy, found: Explanation
) -> None:
    tried = {record.outcome.deployment for record in study.records()}

    assert found.untried
    assert not {reason.deployment for reason in found.untried} & tried
    assert [reason.rank for reason in found.untried] == list(range(1, 1 + len(found.untried)))


def test_axis_that_decides_explains_most(found: Explanation) -> None:
    shares = {(one.axis, one.metric): one.share for one in found.importances}

    accuracy = {axis: share for (axis, metric), share in shares.items() if metric == "accuracy"}
    assert max(accuracy, key=lambda axis: accuracy[axis]) == "variant"
    assert accuracy["variant"] > 0.9
    assert all(0 <= share <= 1 + 1e-9 for share in shares.values())


def test_belief_is_told_in_the_unit_of_people(space: SearchSpace) -> None:
    throughput = next(one for one in space.objectives if one.metric.name == "throughput_sps")

    belief = belief_of(throughput, -3.0, 0.1)

    assert belief.value == pytest.approx(1000)
    assert belief.low == pytest.approx(10 ** (3 - 0.196))
    assert belief.high == pytest.approx(10 ** (3 + 0.196))


def test_sampler_is_made_as_the_search_made_it(tmp_path: Path, space: SearchSpace) -> None:
    study = searched_by_ours(Workspace(root=tmp_path / "trifront"), space, trials=1)
    setup = Setup(
        engines=EngineIdentity(axes=("variant",), with_batch=(("small",),)),
        seed=7,
    )
    before = setup_of(study)

    study.remember(SAMPLER, json_from_setup(setup))

    assert (before.engines.axes, before.seed) == (("variant", "precision"), 0)
    assert setup_of(study) == setup


def test_study_of_too_few_trials_says_so(tmp_path: Path, space: SearchSpace) -> None:
    study = searched_by_ours(Workspace(root=tmp_path / "trifront"), space, trials=3)

    with pytest.raises(StudyError, match="too few measured trials to explain anything"):
        explained(study)


def test_each_trial_has_its_paragraph(found: Explanation) -> None:
    lines = list(lines_of_reasons(found.reasons[4:5]))

    assert lines[0].startswith("   4 ")
    assert "expected latency_p99_ms" in lines[2]
    assert lines[3].startswith("     measured latency_p99_ms")


def test_command_tells_draws_and_writes_json(study: SearchStudy, folder: Path) -> None:
    at = ("--workspace", str(folder / "trifront"))
    plot = folder / "why.png"

    told = RUNNER.invoke(app, ["explain", study.name, "--last", "2", "--plot", str(plot), *at])
    document = RUNNER.invoke(app, ["explain", "--json", *at])

    assert told.exit_code == 0, told.output
    assert told.output.count("     expected") == 2
    assert "never tried" in told.output
    assert "explains alone" in told.output
    assert plot.read_bytes().startswith(b"\x89PNG")
    data = json.loads(document.output)
    assert len(data["trials"]) == TRIALS
    assert data["trials"][10]["rank"] == 1
