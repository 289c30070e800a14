"""A sampler on a recorded table: what it is told, what it is charged, what it has found."""

import math
from dataclasses import replace

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.samplers import RandomSampler
from optuna.trial import TrialState
from replay_fakes import CROWDED, TABLE, InOrder
from search_fakes import SPACE, failed, infeasible, measured, searched

from optimizer.replaying.contestants import contestants_named
from optimizer.replaying.of_study import table_of_study
from optimizer.replaying.replay import Limits, Replayed, replay
from optimizer.replaying.table import FAILED, STATES, DeploymentTable, bounded
from optimizer.replaying.telling import Teller, Till
from optimizer.replaying.truth import Truth
from optimizer.sampling.marks import PRICE
from optimizer.search.samplers import DistinctSampler
from optimizer.study.encoding import Encoding
from optimizer.study.objectives import DEPLOYABLE, told_of_completed, told_of_infeasible
from optimizer.workspace import Workspace
from search_spaces.deployment import Deployment
from search_spaces.files import space_from_yaml
from search_spaces.metrics import METRICS
from trials.measurement import Costs
from trials.outcome import Completed, Outcome

ORDERS = st.permutations(range(len(TABLE)))
NO_LIMITS = Limits()


def tried(
    table: DeploymentTable, rows: list[int], limits: Limits = NO_LIMITS, *, noise: float = 0.0
) -> Replayed:
    return replay(table, InOrder(table, rows), limits=limits, noise=noise)


def raced(name: str, table: DeploymentTable, *, seed: int = 0, trials: int = 30) -> Replayed:
    (contestant,) = contestants_named([name])
    sampler = contestant.make(table, Encoding(table.space), seed)
    return replay(table, sampler, limits=Limits(trials=trials), seed=seed)


@given(ORDERS)
@settings(max_examples=20, deadline=None)
def test_whole_table_costs_the_same_in_any_order(order: list[int]) -> None:
    run = tried(TABLE, order)

    assert run.prices_s[-1] == pytest.approx(TABLE.total_s)
    assert run.has_ended


@given(ORDERS, st.integers(1, len(TABLE)))
@settings(max_examples=20, deadline=None)
def test_shared_part_of_the_price_does_not_depend_on_the_order(
    order: list[int], count: int
) -> None:
    def shared_s(rows: list[int]) -> float:
        till = Till(TABLE)
        return sum(till.charge(row)[0] for row in rows)

    assert shared_s(order[:count]) == pytest.approx(shared_s(sorted(order[:count])))


@given(ORDERS)
@settings(max_examples=20, deadline=None)
def test_share_never_falls_and_is_all_in_the_end(order: list[int]) -> None:
    run = tried(TABLE, order)

    assert (np.diff(run.shares) >= 0).all()
    assert run.shares[-1] == 1.0


def test_grid_pays_for_the_whole_table_and_finds_all_of_it() -> None:
    run = raced("grid", CROWDED, trials=len(CROWDED))

    assert run.rows.tolist() == list(range(len(CROWDED)))
    assert run.prices_s[-1] == pytest.approx(CROWDED.total_s)
    assert run.shares[-1] == 1.0


def test_repeat_costs_its_measuring_again_and_nothing_that_is_stored() -> None:
    run = tried(TABLE, [5, 5, 5], Limits(trials=3))

    own_s = TABLE.prices.own_s[5]
    assert np.diff(run.prices_s) == pytest.approx([own_s, own_s])
    assert run.prices_s[0] > own_s


def test_deployments_of_one_engine_pay_for_it_once() -> None:
    alike = np.flatnonzero(TABLE.engines == TABLE.engines[0])[:2]

    first, second = (Till(TABLE).charge(int(row)) for row in alike)
    till = Till(TABLE)

    assert first[0] == second[0] > 0
    assert [till.charge(int(row))[0] for row in alike] == [first[0], 0.0]


@pytest.mark.parametrize(
    ("limits", "trials"),
    [
        (Limits(trials=7), 7),
        (Limits(price_s=1.0), 1),
        (Limits(share=1e-9), 1),
        (NO_LIMITS, len(TABLE)),
    ],
)
def test_replay_ends_at_its_limit(limits: Limits, trials: int) -> None:
    run = tried(TABLE, list(range(len(TABLE))), limits)

    assert run.rows.size == run.prices_s.size == run.shares.size == run.ask_s.size == trials
    assert run.has_ended == (limits.share is not None or limits == NO_LIMITS)


@pytest.mark.parametrize("name", ["random", "tpe", "nsga2-distinct", "hill"])
def test_same_seed_gives_the_same_run_and_another_seed_another(name: str) -> None:
    one, again, other = (raced(name, CROWDED, seed=seed) for seed in (1, 1, 2))

    assert one.rows.tolist() == again.rows.tolist()
    assert one.prices_s.tolist() == again.prices_s.tolist()
    assert one.rows.tolist() != other.rows.tolist()


def test_noise_is_told_and_not_scored() -> None:
    rows = list(range(len(TABLE)))

    quiet, noisy = tried(TABLE, rows), tried(TABLE, rows, noise=0.2)
    told = [Teller(TABLE, noise=noise, seed=0).told(3) for noise in (0.0, 0.2)]

    assert quiet.shares.tolist() == noisy.shares.tolist()
    assert told[0] is not None
    assert told[1] is not None
    assert told[0].values[:2] != told[1].values[:2]
    assert told[0].values[2] == told[1].values[2]  # accuracy belongs to the engine


def test_noise_has_the_size_that_was_asked_for() -> None:
    teller = Teller(TABLE, noise=0.05, seed=0)
    told = [teller.told(3) for _ in range(2000)]

    latencies = [one.values[0] for one in told if one is not None]

    # of 2,000 draws the standard deviation is known to 1.6 %
    assert np.std(latencies) * math.log(10) == pytest.approx(0.05, rel=0.08)


def answer(deployment: Deployment) -> Outcome:
    """Measure most, and let some break."""
    if deployment.batch_size == 8 and deployment.variant == "large":
        return infeasible(deployment)
    if deployment.concurrency == 3:
        return failed(deployment)
    costs = Costs(
        convert_s=1.0, build_s=2.0, score_s=0.5, load_s=0.1, cold_call_s=0.0, measure_s=0.2
    )
    return replace(measured(deployment), costs=costs)


@pytest.fixture(scope="module")
def recorded(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[DeploymentTable, list[Outcome]]:
    """All deployments of a study that a search told, and what it was told."""
    folder = tmp_path_factory.mktemp("recorded")
    text = SPACE.replace("[1, 2, 4, 8]", "[1, 8]").replace("[1, 2, 3]", "[1, 3]")
    (folder / "tiny.yaml").write_text(text.replace("[1, 2]", "[1]"), encoding="utf-8")
    workspace = Workspace(root=folder / "trifront")
    space = space_from_yaml(folder / "tiny.yaml")
    study = searched(workspace, space, trials=16, answer=answer)
    return table_of_study(study, workspace), [one.outcome for one in study.records()]


def test_sampler_is_told_what_a_search_tells(
    recorded: tuple[DeploymentTable, list[Outcome]],
) -> None:
    table, outcomes = recorded
    teller = Teller(table, noise=0.0, seed=0)
    values: list[tuple[float, ...]] = []
    for outcome in outcomes:
        told = teller.told(table.row_of(outcome.deployment))
        match outcome.state:
            case "completed":
                assert isinstance(outcome, Completed)
                assert told is not None
                assert told == told_of_completed(outcome, table.space)
                values.append(told.values)
            case "infeasible":
                assert not isinstance(outcome, Completed)
                assert told == told_of_infeasible(
                    infeasible(outcome.deployment), table.space, values
                )
            case "failed":
                assert told is None


def test_trials_carry_their_prices_and_states(
    recorded: tuple[DeploymentTable, list[Outcome]],
) -> None:
    table, _ = recorded
    sampler = RandomSampler(seed=0)
    studies: list[optuna.Study] = []

    class Watching(DistinctSampler):
        def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            studies.append(study)
            super().before_trial(study, trial)

    run = replay(table, Watching(sampler, Encoding(table.space), seed=0), limits=Limits(trials=16))

    trials = studies[0].get_trials(deepcopy=False)
    paid_s = [sum(trial.user_attrs[PRICE]) for trial in trials]
    assert np.cumsum(paid_s) == pytest.approx(run.prices_s)
    for trial, row in zip(trials, run.rows, strict=True):
        is_failed = STATES[table.states[row]] == FAILED
        assert trial.state is (TrialState.FAIL if is_failed else TrialState.COMPLETE)
        if not is_failed:
            assert (trial.constraints[DEPLOYABLE] <= 0) == bool(table.completed[row])


def test_only_feasible_deployments_count() -> None:
    cut = float(np.median(CROWDED.metrics.column("accuracy")[CROWDED.completed]))
    table = bounded(CROWDED, [f"accuracy >= {cut}"])

    free, bound = Truth(CROWDED), Truth(table)

    assert 0 < bound.feasible.sum() < free.feasible.sum()
    assert set(bound.members) <= set(np.flatnonzero(bound.feasible))
    assert raced("grid", table, trials=len(table)).shares[-1] == 1.0


def test_table_without_a_feasible_deployment_has_nothing_to_be_found() -> None:
    table = bounded(TABLE, ["accuracy >= 1"])

    run = raced("random", table)

    assert Truth(table).members.size == 0
    assert run.shares.tolist() == [0.0] * run.shares.size


def test_objective_to_be_minimized_and_linear_is_scored_too() -> None:
    names = list(TABLE.metrics.names)
    names[names.index("accuracy")] = "brier"
    brier = METRICS["brier"]
    objectives = tuple(
        replace(one, metric=brier, direction=brier.direction)
        if one.metric.name == "accuracy"
        else one
        for one in TABLE.space.objectives
    )
    table = replace(
        TABLE,
        space=replace(TABLE.space, objectives=objectives),
        metrics=replace(TABLE.metrics, names=tuple(names)),
    )

    assert raced("grid", table, trials=len(table)).shares[-1] == 1.0
    told = Teller(table, noise=0.0, seed=0).told(0)
    assert told is not None
    assert told.values[2] == table.metrics.column("brier")[0]
