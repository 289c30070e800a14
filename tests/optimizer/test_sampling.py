"""The arithmetic of our sampler against slower ways to the same numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moocore import hypervolume
from optuna.distributions import CategoricalDistribution, IntDistribution
from scipy.optimize import approx_fprime

from optimizer.sampling.beliefs import fitting_point
from optimizer.sampling.fitting import _Fit, fitted, usual
from optimizer.sampling.kernel import Factor, Kernel, Matrix
from optimizer.sampling.knowledge import Coordinates, LittlesLaw
from optimizer.sampling.lattice import lattice_of
from optimizer.sampling.posterior import Posterior
from optimizer.sampling.room import Room

FACTORS = (Factor(place=0), Factor(place=1, coordinates=(0.0, 0.5, 1.0)), Factor(place=2))
POINTS = np.indices((3, 3, 2), dtype=np.int32).reshape(3, -1).T
KERNEL = Kernel(
    factors=FACTORS, scale=2.0, noise=0.01, weights=(0.5, 1.0, 0.2), lengths=(0.0, 0.6, 0.0)
)

fronts = st.integers(1, 3).flatmap(
    lambda costs: st.lists(
        st.lists(st.floats(0, 1.2), min_size=costs, max_size=costs), min_size=1, max_size=12
    )
)


@settings(deadline=None)
@given(fronts, st.randoms(use_true_random=False))
def test_room_above_a_point_is_the_hypervolume_that_it_would_add(
    front: list[list[float]], random: "np.random.Generator"
) -> None:
    costs = np.array(front)
    point = np.array([random.uniform(0, 1.1) for _ in range(costs.shape[1])])
    reference = np.ones(costs.shape[1])

    added = hypervolume(np.vstack([costs, point]), ref=reference)
    before = hypervolume(costs, ref=reference)

    assert Room(costs).above(point[None])[0] == pytest.approx(added - before, abs=1e-9)


def test_room_of_a_large_front_is_never_too_small() -> None:
    """Where cuts are merged, the front is taken to dominate less than it does."""
    random = np.random.default_rng(0)
    costs = random.random((400, 4))
    points = random.random((50, 4))

    rough = Room(costs).above(points)

    before = hypervolume(costs, ref=np.ones(4))
    exact = [hypervolume(np.vstack([costs, one]), ref=np.ones(4)) - before for one in points]
    assert (rough >= np.array(exact) - 1e-9).all()


def test_room_without_a_front_is_the_whole_box() -> None:
    assert Room(np.empty((0, 2))).above(np.array([[0.0, 0.5]]))[0] == pytest.approx(0.5)


def test_observations_one_by_one_say_what_the_textbook_says_of_all() -> None:
    """Rasmussen & Williams 2006, equations 2.25 and 2.26."""
    random = np.random.default_rng(1)
    at = random.permutation(len(POINTS))[:9]
    targets = random.normal(size=9)
    posterior = Posterior(KERNEL, POINTS, center=5.0, spread=2.0)
    for one, target in zip(at, targets, strict=True):
        posterior.observe(POINTS[[one]], np.array([5 + 2 * target]))

    noisy = KERNEL.gram(POINTS[at], POINTS[at]) + KERNEL.noise * np.eye(9)
    cross = KERNEL.gram(POINTS, POINTS[at])
    mean = cross @ np.linalg.solve(noisy, targets)
    variance = KERNEL.scale - np.einsum("ij,ji->i", cross, np.linalg.solve(noisy, cross.T))

    assert posterior.mean == pytest.approx(5 + 2 * mean, abs=1e-6)
    assert posterior.variance == pytest.approx(4 * variance, abs=1e-6)


def test_what_is_assumed_narrows_and_is_forgotten() -> None:
    posterior = Posterior(KERNEL, POINTS, center=0.0, spread=1.0)
    posterior.observe(POINTS[:2], np.array([1.0, -1.0]))
    mean, variance = posterior.mean.copy(), posterior.variance.copy()

    with posterior.assuming(POINTS[5:7]):
        assumed = posterior.variance.copy()
        assert posterior.mean == pytest.approx(mean)

    assert (assumed <= variance + 1e-12).all()
    assert assumed[5] < variance[5] / 10
    assert posterior.variance == pytest.approx(variance)


def test_slope_of_the_fit_is_that_of_small_steps() -> None:
    random = np.random.default_rng(2)
    problem = _Fit(FACTORS, POINTS, random.normal(size=len(POINTS)))
    at = problem.start + random.normal(0, 0.3, len(problem.start))

    _, slope = problem.loss(at)

    def loss(logs: Matrix) -> float:
        return problem.loss(logs)[0]

    assert slope == pytest.approx(approx_fprime(at, loss, 1e-6), rel=1e-3, abs=1e-3)


def test_axis_that_matters_gets_the_weight() -> None:
    targets = (POINTS[:, 1].astype(float) - 1.0) * 1.2

    kernel = fitted(FACTORS, POINTS, targets)

    assert kernel.weights[1] > 3 * max(kernel.weights[0], kernel.weights[2])


def test_what_is_usual_needs_no_observation() -> None:
    assert usual(FACTORS).gram(POINTS, POINTS).shape == (18, 18)


@given(st.integers(4, 2000), st.integers(4, 40))
def test_hyperparameters_are_found_from_the_same_observations_until_there_are_a_sixth_more(
    count: int, first: int
) -> None:
    found = fitting_point(count, first=first)

    assert found <= max(count, first)
    assert found == first or count < found * 1.15 + 1
    assert fitting_point(max(found, first), first=first) == found


def test_latency_that_obeys_littles_law_leaves_nothing_to_be_modelled() -> None:
    lattice = lattice_of(
        {"model": CategoricalDistribution(["a", "b"]), "batch": IntDistribution(0, 2)}
    )
    law = LittlesLaw(latencies=(0,), throughput=1, amounts={"batch": (0.0, 0.3, 0.6)})
    coordinates = Coordinates(lattice, law)
    rows = np.arange(len(lattice))
    throughput = np.linspace(2, 3, len(rows))
    costs = np.stack([law.in_flight(lattice) - throughput, -throughput], axis=1)

    modelled = coordinates.modelled(costs, rows)

    assert modelled[:, 0] == pytest.approx(np.zeros(len(rows)), abs=1e-12)
    assert coordinates.costs(modelled, rows) == pytest.approx(costs)
    assert coordinates.costs(modelled[:, None, :], rows)[:, 0] == pytest.approx(costs)
