"""Our sampler, as anybody's Optuna study meets it, and on tables whose every row is known."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from optimizer.replaying.contestants import contestants_named, engine_axes
from optimizer.replaying.generating import Recipe, generated_table
from optimizer.replaying.replay import Limits, Replayed, replay
from optimizer.sampling.front_sampler import FrontSampler
from optimizer.sampling.history import History, Observation, Snapshot
from optimizer.sampling.knowledge import Knowledge
from optimizer.sampling.lattice import lattice_of
from optimizer.sampling.proposing import Proposer
from optimizer.search.own_sampler import allowed, knowledge_of, lattice_of_space
from optimizer.study.encoding import Encoding
from search_spaces.space import SearchSpace
from trials.capabilities import EngineIdentity

DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "model": CategoricalDistribution(["small", "middle", "large"]),
    "log2(batch)": IntDistribution(0, 6),
    "threads": IntDistribution(1, 4),
}
WORK = {"small": 1.0, "middle": 3.0, "large": 9.0}
RIGHT = {"small": 0.8, "middle": 0.88, "large": 0.93}
ALL = 3 * 7 * 4


def measured(params: dict[str, object]) -> tuple[float, float]:
    """Return the log10 of a latency, and an accuracy."""
    model, batch, threads = str(params["model"]), params["log2(batch)"], params["threads"]
    assert isinstance(batch, int)
    assert isinstance(threads, int)
    return math.log10(WORK[model] * (1 + 2**batch / threads)), RIGHT[model] + 0.001 * batch


def new_study() -> optuna.Study:
    return optuna.create_study(directions=["minimize", "maximize"], sampler=new_sampler())


def new_sampler() -> FrontSampler:
    return FrontSampler(lattice_of(DISTRIBUTIONS, shared=("model",)), unmeasured="runs", seed=3)


def told(study: optuna.Study, trial: optuna.Trial) -> None:
    """Measure a trial; large batches of the large model do not run."""
    runs = not (trial.params["model"] == "large" and trial.params["log2(batch)"] > 3)
    trial.set_user_attr("price_s", [0.0, 1.0])  # the clock would make each run another
    trial.set_constraint("runs", 0.0 if runs else 1.0)
    study.tell(trial, measured(trial.params) if runs else (9.0, 0.0))


def asked(study: optuna.Study, count: int) -> list[dict[str, object]]:
    found = []
    for _ in range(count):
        trial = study.ask(DISTRIBUTIONS)
        found.append(trial.params)
        told(study, trial)
    return found


def test_no_point_is_proposed_twice_and_all_are_reached() -> None:
    found = asked(new_study(), ALL)

    assert len({tuple(params.items()) for params in found}) == ALL


def test_sampler_of_a_new_process_goes_on_as_the_old_one_would() -> None:
    undisturbed = asked(new_study(), 24)
    study = new_study()
    begun = asked(study, 11)
    study.sampler = new_sampler()

    assert begun + asked(study, 13) == undisturbed


def test_points_that_are_being_tried_are_not_proposed_again() -> None:
    study = new_study()
    asked(study, 6)

    together = [study.ask(DISTRIBUTIONS).params for _ in range(12)]

    assert len({tuple(params.items()) for params in together}) == 12


def test_points_that_are_being_tried_count_as_measured() -> None:
    """Another must not promise the gain that they will bring."""
    study = new_study()
    asked(study, 12)
    lattice = lattice_of(DISTRIBUTIONS, shared=("model",))
    proposer = Proposer(lattice, Knowledge(), objectives=2, seed=0)
    history = History(lattice, study.directions, unmeasured="runs")
    told_now = history.snapshot(study.get_trials(), but=-1)
    before = proposer.weighed(told_now)
    best = int(before.rows[np.argmax(before.gains)])

    after = proposer.weighed(
        replace(
            told_now,
            pending=np.array([best]),
            taken=np.append(told_now.taken, best),
        )
    )

    kept = np.isin(before.rows, after.rows)
    assert best not in after.rows
    assert after.gains.sum() < 0.9 * before.gains[kept].sum()


def test_where_nothing_meets_the_bounds_yet_the_likeliest_is_tried() -> None:
    """One point of 84 meets both; by chance it would take dozens of trials."""
    study = new_study()
    feasible = []
    for _ in range(20):
        trial = study.ask(DISTRIBUTIONS)
        latency, right = measured(trial.params)
        trial.set_user_attr("price_s", [0.0, 1.0])
        trial.set_constraint("runs", 0.0)
        trial.set_constraint("latency", latency - math.log10(9 * (1 + 1 / 4)))
        trial.set_constraint("right", 0.93 - right)
        study.tell(trial, (latency, right))
        feasible.append(trial.params == {"model": "large", "log2(batch)": 0, "threads": 4})

    assert any(feasible)


def test_bound_of_an_engine_is_known_once_one_of_its_points_was_measured() -> None:
    lattice = lattice_of(DISTRIBUTIONS, shared=("model",))
    knowledge = Knowledge(bounds_of_engine=frozenset({"right"}))
    proposer = Proposer(lattice, knowledge, objectives=1, seed=0)
    rows = [0, 5, 30, 41, 57]
    seen = tuple(
        Observation(
            row=row,
            costs=(float(measured(lattice.params(row))[0]),),
            violations=(("right", 0.85 - RIGHT[lattice.params(row)["model"]]),),
            shared_s=0.0,
            own_s=1.0,
        )
        for row in rows
    )

    weighed = proposer.weighed(
        Snapshot(seen=seen, pending=np.array([], int), taken=np.array(rows))
    )

    models = [lattice.params(int(row))["model"] for row in weighed.rows]
    assert {
        (model, chance) for model, chance in zip(models, weighed.chances.tolist(), strict=True)
    } == {("small", 0.0), ("middle", 1.0), ("large", 1.0)}


def test_trials_that_were_interrupted_say_nothing_of_the_point() -> None:
    study = new_study()
    lattice = lattice_of(DISTRIBUTIONS, shared=("model",))
    trial = study.ask(DISTRIBUTIONS)
    params = trial.params
    orders = []
    for is_interrupted in (True, True, False, False):
        if is_interrupted:
            trial.set_user_attr("interrupted", value=True)
        study.tell(trial, state=TrialState.FAIL)
        history = History(lattice, study.directions, unmeasured="runs")
        orders.append(len(history.snapshot(study.get_trials(), but=-1).seen))
        study.enqueue_trial(params)
        trial = study.ask(DISTRIBUTIONS)
    told(study, trial)

    seen = History(lattice, study.directions, unmeasured="runs").snapshot(
        study.get_trials(), but=-1
    )

    assert orders == [0, 0, 0, 1]
    assert [one.costs is None for one in seen.seen] == [False]  # it ran after all


def test_corner_that_cannot_run_is_left_before_anything_was_measured() -> None:
    study = new_study()
    large = 0
    for _ in range(12):
        trial = study.ask(DISTRIBUTIONS)
        runs = trial.params["log2(batch)"] == 0 and trial.params["model"] == "small"
        large += trial.params["model"] == "large"
        trial.set_constraint("runs", 0.0 if runs else 1.0)
        study.tell(trial, measured(trial.params) if runs else (9.0, 0.0))

    assert large <= 5


def test_value_of_a_float_is_found_where_rounding_puts_it() -> None:
    lattice = lattice_of({"x": FloatDistribution(0.0, 1.0, step=0.1)})

    assert lattice.row({"x": 0.3}) == 3
    assert lattice.row({"x": 0.35}) is None


def test_observations_come_in_the_order_in_which_trials_ended() -> None:
    """With several workers a later trial may end first; what was learned must stay a beginning."""
    study = new_study()
    lattice = lattice_of(DISTRIBUTIONS, shared=("model",))
    history = History(lattice, study.directions, unmeasured="runs")
    trials = [study.ask(DISTRIBUTIONS) for _ in range(5)]
    orders = []
    for at in (3, 1, 4, 0, 2):
        told(study, trials[at])
        seen = history.snapshot(study.get_trials(), but=-1).seen
        orders.append([one.row for one in seen])

    rows = [lattice.row(trials[at].params) for at in (3, 1, 4, 0, 2)]
    assert orders == [rows[: 1 + count] for count in range(5)]


def test_what_was_believed_at_a_trial_is_read_from_what_had_ended_then() -> None:
    study = new_study()
    history = History(
        lattice_of(DISTRIBUTIONS, shared=("model",)), study.directions, unmeasured="runs"
    )
    first, second = study.ask(DISTRIBUTIONS), study.ask(DISTRIBUTIONS)
    told(study, second)
    third = study.ask(DISTRIBUTIONS)
    told(study, first)
    told(study, third)
    trials = study.get_trials()

    then = history.snapshot_at(trials[2], trials)

    assert (len(then.seen), len(then.pending), len(then.taken)) == (1, 1, 2)


def test_values_of_what_cannot_run_are_not_believed() -> None:
    """They are only told because Optuna wants some; here they would look splendid."""
    study = new_study()
    for _ in range(30):
        trial = study.ask(DISTRIBUTIONS)
        runs = trial.params["model"] != "large"
        trial.set_constraint("runs", 0.0 if runs else 1.0)
        study.tell(trial, measured(trial.params) if runs else (-9.0, 1.0))

    large = [trial.params["model"] == "large" for trial in study.get_trials()]

    assert sum(large) < 10  # a third of all points are
    assert not any(large[-8:])


def test_constraint_that_only_some_trials_have_is_refused() -> None:
    study = new_study()
    asked(study, 4)
    trial = study.ask(DISTRIBUTIONS)
    trial.set_constraint("late", -1.0)
    told(study, trial)

    with pytest.raises(ValueError, match="constraint 'late' is set on some trials"):
        asked(study, 3)


def test_study_of_many_objectives_is_refused() -> None:
    study = optuna.create_study(directions=["minimize"] * 7, sampler=new_sampler())

    with pytest.raises(ValueError, match="the study has 7 objectives"):
        study.ask(DISTRIBUTIONS)


def test_failed_trials_are_not_tried_again_by_the_sampler() -> None:
    study = new_study()
    params = []
    for _ in range(12):
        trial = study.ask(DISTRIBUTIONS)
        params.append(tuple(trial.params.items()))
        study.tell(trial, state=TrialState.FAIL)

    assert len(set(params)) == 12


def test_corner_that_breaks_again_and_again_is_left_alone() -> None:
    """Each is tried once more, as a search does; that it broke twice says something."""
    study = new_study()
    broken = set()
    for _ in range(40):
        trial = study.ask(DISTRIBUTIONS)
        params = trial.params
        if params["model"] != "large" or params["log2(batch)"] < 2:
            told(study, trial)
            continue
        study.tell(trial, state=TrialState.FAIL)
        point = tuple(params.items())
        if point not in broken:
            study.enqueue_trial(params)
        broken.add(point)

    assert 1 <= len(broken) <= 6  # of 20 such points


def test_infinite_value_is_no_worse_than_a_point_that_cannot_run() -> None:
    study = new_study()
    for number in range(20):
        trial = study.ask(DISTRIBUTIONS)
        trial.set_constraint("runs", 0.0)
        study.tell(trial, (math.inf, 0.5) if number % 3 == 0 else measured(trial.params))

    assert len(study.trials) == 20


@pytest.mark.parametrize(("price_s", "most"), [(0.1, 3), (1e6, 2)])
def test_engine_that_is_very_dear_is_not_built_for_a_small_gain(price_s: float, most: int) -> None:
    """The first points want three engines of four; after them the price decides."""
    names = [f"v{number}" for number in range(6)]
    space: dict[str, BaseDistribution] = {
        "model": CategoricalDistribution(names),
        "log2(batch)": IntDistribution(0, 6),
    }
    sampler = FrontSampler(lattice_of(space, shared=("model",)), seed=1)
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler)
    paid: set[object] = set()
    after_first = 0
    for number in range(14):
        trial = study.ask(space)
        model, batch = trial.params["model"], trial.params["log2(batch)"]
        is_new = model not in paid
        after_first += is_new and number >= 4
        trial.set_user_attr("price_s", [price_s if is_new else 0.0, 1.0])
        paid.add(model)
        slow = 0.02 * names.index(model)
        study.tell(trial, (0.2 * batch + slow, 0.3 * batch - slow))

    assert after_first <= most


@pytest.mark.parametrize(
    "distribution",
    [FloatDistribution(0.0, 1.0), FloatDistribution(0.1, 10.0, log=True)],
)
def test_space_without_end_is_refused(distribution: BaseDistribution) -> None:
    with pytest.raises(ValueError, match="x has values without end"):
        lattice_of({"x": distribution})


def test_floats_with_a_step_are_a_lattice() -> None:
    lattice = lattice_of({"x": FloatDistribution(0.0, 1.0, step=0.25)})

    assert [lattice.params(row)["x"] for row in range(len(lattice))] == [0, 0.25, 0.5, 0.75, 1]


def test_space_of_which_nothing_is_allowed_is_refused() -> None:
    with pytest.raises(ValueError, match="no point that may be tried"):
        lattice_of(DISTRIBUTIONS, allows=lambda points: np.zeros(len(points), dtype=bool))


def test_points_are_found_by_their_parameters() -> None:
    lattice = lattice_of(DISTRIBUTIONS, allows=lambda points: points[:, 1] != 2)

    assert [lattice.row(lattice.params(row)) for row in range(len(lattice))] == list(
        range(len(lattice))
    )
    assert lattice.row({"model": "small", "log2(batch)": 2, "threads": 1}) is None
    assert lattice.row({"model": "another", "log2(batch)": 0, "threads": 1}) is None


def test_rules_asked_once_for_each_combination_allow_what_each_point_is_allowed(
    space: SearchSpace,
) -> None:
    encoding = Encoding(space)
    lattice = lattice_of(encoding.distributions)

    fast = allowed(encoding, lattice.points)

    assert fast.tolist() == [encoding.allows(tuple(point)) for point in lattice.points.tolist()]
    assert 0 < fast.sum() < len(fast)


def test_engines_that_serve_one_batch_size_are_told_apart(space: SearchSpace) -> None:
    encoding = Encoding(space)
    usual = EngineIdentity(axes=("variant", "precision"))
    bound = EngineIdentity(axes=("variant", "precision"), with_batch=(("small", "int8"),))

    counts = [int(lattice_of_space(encoding, one).engines.max()) + 1 for one in (usual, bound)]

    assert counts == [4, 3 + 4]  # four batch sizes


def test_accuracy_is_known_to_belong_to_the_engine(space: SearchSpace) -> None:
    knowledge = knowledge_of(Encoding(space))

    names = [one.metric.name for one in space.objectives]
    assert {names[at] for at in knowledge.of_engine} == {"accuracy"}


@pytest.fixture(scope="module")
def reached() -> Callable[[str], list[Replayed]]:
    """Replay a sampler over a table with memory cliffs and engines that cannot be built."""
    recipe = Recipe(seed=5, variants=3, precisions=3, builds=2, batches=6, threads=2)
    table = generated_table(recipe)
    encoding = Encoding(table.space)
    known: dict[str, list[Replayed]] = {}

    def runs() -> Iterator[Replayed]:
        for seed in range(3):
            contestant = contestants_named([name])[0]
            sampler = contestant.make(table, encoding, seed)
            yield replay(table, sampler, limits=Limits(trials=60), seed=seed)

    name = ""

    def replayed(wanted: str) -> list[Replayed]:
        nonlocal name
        name = wanted
        if wanted not in known:
            known[wanted] = list(runs())
        return known[wanted]

    assert engine_axes(table) == ("variant", "precision", "build_level")
    return replayed


def test_front_is_found_with_far_less_than_by_chance(
    reached: Callable[[str], list[Replayed]],
) -> None:
    ours = np.median([run.shares[-1] for run in reached("front")])
    by_chance = np.median([run.shares[-1] for run in reached("random-distinct")])

    assert ours > 0.97
    assert 1 - ours < (1 - by_chance) / 3


def test_same_seed_proposes_the_same(reached: Callable[[str], list[Replayed]]) -> None:
    first = reached("front")[0]
    recipe = Recipe(seed=5, variants=3, precisions=3, builds=2, batches=6, threads=2)
    table = generated_table(recipe)
    sampler = contestants_named(["front"])[0].make(table, Encoding(table.space), 0)

    again = replay(table, sampler, limits=Limits(trials=60), seed=0)

    assert again.rows.tolist() == first.rows.tolist()


def test_trial_that_waits_is_taken() -> None:
    study = new_study()
    first = study.ask(DISTRIBUTIONS).params
    study.enqueue_trial(first)

    trials: list[FrozenTrial] = study.get_trials(states=(TrialState.WAITING,))

    assert trials[0].system_attrs["fixed_params"] == first
    assert study.ask(DISTRIBUTIONS).params == first  # the one that waits
    assert study.ask(DISTRIBUTIONS).params != first
