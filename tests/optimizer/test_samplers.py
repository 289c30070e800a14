import logging
from collections.abc import Callable
from dataclasses import replace

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.study import StudyDirection
from search_fakes import ALLOWED

from optimizer.errors import SpaceExhaustedError, UsageError
from optimizer.search.sampler_name import SamplerName
from optimizer.search.samplers import DistinctSampler, count_allowed, sampler_named
from optimizer.study.encoding import Encoding, parameter_from_axis
from search_spaces.deployment import Deployment
from search_spaces.metrics import METRICS, Direction
from search_spaces.space import Axis, Objective, SearchSpace

LEARNERS = [
    SamplerName.FRONT,
    SamplerName.GP,
    SamplerName.GRID,
    SamplerName.NSGA2,
    SamplerName.RANDOM,
    SamplerName.TPE,
]


@pytest.fixture
def ask(space: SearchSpace) -> Callable[..., list[Deployment]]:
    """Ask a fresh study for deployments, telling a smooth made-up value of each."""
    encoding = Encoding(space)
    directions = [StudyDirection[one.direction.name] for one in space.objectives]

    def asked(name: SamplerName, count: int, *, seed: int = 0) -> list[Deployment]:
        sampler, _ = sampler_named(name, encoding, seed=seed, trials=None, repeats=False)
        study = optuna.create_study(sampler=sampler, directions=directions)
        deployments = []
        for _ in range(count):
            trial = study.ask(encoding.distributions)
            deployment = encoding.deployment(trial.params)
            deployments.append(deployment)
            values = [deployment.batch_size, deployment.concurrency, deployment.batch_size]
            study.tell(trial, values[: len(directions)])
        return deployments

    return asked


@pytest.mark.parametrize("name", LEARNERS)
def test_sampler_proposes_only_allowed_and_distinct_deployments(
    name: SamplerName, ask: Callable[..., list[Deployment]], space: SearchSpace
) -> None:
    if name is SamplerName.GP:
        pytest.importorskip("torch", reason="the gp sampler needs torch")

    deployments = ask(name, 25)

    assert len(set(deployments)) == len(deployments)
    assert set(deployments) <= set(space.deployments())


@pytest.mark.parametrize("name", LEARNERS)
def test_axis_of_one_value_is_nothing_to_warn_of(
    name: SamplerName, space: SearchSpace, caplog: pytest.LogCaptureFixture
) -> None:
    if name is SamplerName.GP:
        pytest.importorskip("torch", reason="the gp sampler needs torch")
    axes = tuple(replace(axis, values=axis.values[:1]) for axis in space.axes[2:])
    encoding = Encoding(replace(space, axes=(*space.axes[:2], *axes)))
    sampler, _ = sampler_named(name, encoding, seed=0, trials=None, repeats=True)
    directions = [StudyDirection[one.direction.name] for one in space.objectives]
    study = optuna.create_study(sampler=sampler, directions=directions)
    logging.getLogger("optuna").addHandler(caplog.handler)

    for number in range(12):  # beyond the ten that samplers draw at random
        study.tell(study.ask(encoding.distributions), [number] * len(directions))

    logging.getLogger("optuna").removeHandler(caplog.handler)
    assert [one.message for one in caplog.records if one.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    "name", [SamplerName.FRONT, SamplerName.TPE, SamplerName.RANDOM, SamplerName.GRID]
)
def test_sampler_reaches_every_deployment_and_then_has_none_left(
    name: SamplerName, ask: Callable[..., list[Deployment]], space: SearchSpace
) -> None:
    assert set(ask(name, ALLOWED)) == set(space.deployments())
    with pytest.raises(SpaceExhaustedError):
        ask(name, ALLOWED + 1)


@pytest.mark.parametrize("name", [SamplerName.TPE, SamplerName.NSGA2, SamplerName.RANDOM])
def test_same_seed_gives_the_same_deployments(
    name: SamplerName, ask: Callable[..., list[Deployment]]
) -> None:
    assert ask(name, 15, seed=7) == ask(name, 15, seed=7)
    assert ask(name, 15, seed=7) != ask(name, 15, seed=8)


def test_grid_goes_through_the_space_in_the_order_of_its_axes(
    ask: Callable[..., list[Deployment]], space: SearchSpace
) -> None:
    assert ask(SamplerName.GRID, ALLOWED) == list(space.deployments())


def test_grid_goes_on_after_an_interruption_where_it_was(space: SearchSpace) -> None:
    encoding = Encoding(space)
    study = optuna.create_study()
    asked = []
    for _ in range(3):  # sessions
        study.sampler, _ = sampler_named(
            SamplerName.GRID, encoding, seed=0, trials=None, repeats=False
        )
        for _ in range(5):
            trial = study.ask(encoding.distributions)
            study.tell(trial, 1.0)
            asked.append(encoding.deployment(trial.params))

    assert asked == list(space.deployments())[:15]


def test_repeats_are_allowed_when_asked_for(space: SearchSpace) -> None:
    encoding = Encoding(space)
    inner = optuna.samplers.RandomSampler(seed=0)
    sampler = DistinctSampler(inner, encoding, seed=0, repeats=True)
    study = optuna.create_study(sampler=sampler)

    for _ in range(ALLOWED + 5):
        study.tell(study.ask(encoding.distributions), 1.0)

    assert sampler.has_free(study.get_trials())


def test_trial_that_waits_to_be_retried_keeps_its_deployment(space: SearchSpace) -> None:
    encoding = Encoding(space)
    sampler, _ = sampler_named(SamplerName.TPE, encoding, seed=0, trials=None, repeats=False)
    study = optuna.create_study(sampler=sampler)
    first = study.ask(encoding.distributions)
    study.tell(first, state=optuna.trial.TrialState.FAIL)
    study.enqueue_trial(first.params)

    assert study.ask(encoding.distributions).params == first.params


def test_auto_tries_everything_in_random_order_where_the_budget_covers_the_space(
    space: SearchSpace,
) -> None:
    encoding = Encoding(space)

    _, chosen = sampler_named(SamplerName.AUTO, encoding, seed=0, trials=ALLOWED, repeats=False)

    assert chosen is SamplerName.RANDOM


def test_auto_is_our_own_where_not_everything_can_be_tried(space: SearchSpace) -> None:
    _, chosen = sampler_named(
        SamplerName.AUTO, Encoding(space), seed=0, trials=ALLOWED - 1, repeats=False
    )

    assert chosen is SamplerName.FRONT


def test_space_that_is_too_large_for_our_own_is_left_to_another(space: SearchSpace) -> None:
    """1.2 billion points."""
    axes = [
        replace(axis, values=tuple(range(1, 10_001)))
        if axis.name in {"batch_size", "threads"}
        else axis
        for axis in space.axes
    ]
    encoding = Encoding(replace(space, axes=tuple(axes), rules=()))

    _, chosen = sampler_named(SamplerName.AUTO, encoding, seed=0, trials=9, repeats=False)

    assert chosen is SamplerName.TPE
    with pytest.raises(UsageError, match=r"does not take .* on: it looks at every point"):
        sampler_named(SamplerName.FRONT, encoding, seed=0, trials=9, repeats=False)


def test_space_of_many_objectives_is_left_to_another(space: SearchSpace) -> None:
    names = ("mean", "p50", "p90", "p99", "p999")
    more = tuple(
        Objective(metric=METRICS[f"latency_{name}_ms"], direction=Direction.MINIMIZE)
        for name in names
    )
    encoding = Encoding(replace(space, objectives=(*space.objectives[1:], *more)))

    _, chosen = sampler_named(SamplerName.AUTO, encoding, seed=0, trials=9, repeats=False)

    assert len(encoding.space.objectives) == 7
    assert chosen is SamplerName.TPE


def test_allowed_deployments_are_counted(space: SearchSpace) -> None:
    assert count_allowed(Encoding(space)) == ALLOWED == len(list(space.deployments()))


@pytest.mark.parametrize(
    ("values", "name", "codes"),
    [
        ((1, 2, 4, 8), "log2(x)", (0, 1, 2, 3)),
        ((1, 4, 16), "log2(x)", (0, 2, 4)),
        ((1, 2, 3), "x", (1, 2, 3)),
        ((1, 2, 5, 9), "rank(x)", (0, 1, 2, 3)),
        ((0.5, 0.7), "rank(x)", (0, 1)),
        (("a", "b"), "x", ("a", "b")),
        ((False, True), "x", (False, True)),
        ((3,), "x", (3,)),
    ],
)
def test_axis_is_encoded_by_the_kind_of_its_values(
    values: tuple[object, ...], name: str, codes: tuple[object, ...]
) -> None:
    parameter = parameter_from_axis(Axis(name="x", values=values))  # type: ignore[arg-type]

    assert (parameter.name, parameter.codes) == (name, codes)


@given(st.sets(st.integers(1, 300), min_size=1, max_size=8))
@settings(max_examples=50)
def test_every_value_of_an_axis_has_a_code_that_optuna_accepts(values: set[int]) -> None:
    parameter = parameter_from_axis(Axis(name="x", values=tuple(sorted(values))))

    assert len(set(parameter.codes)) == len(values)
    for code in parameter.codes:
        assert parameter.distribution._contains(parameter.distribution.to_internal_repr(code))


def test_params_and_deployments_are_inverse(space: SearchSpace) -> None:
    encoding = Encoding(space)

    for deployment in space.deployments():
        assert encoding.deployment(encoding.params(deployment)) == deployment
