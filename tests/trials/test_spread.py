"""How far apart blocks are, and how long they remember each other."""

import os
import subprocess
import sys
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trials.measurement import Seconds
from trials.measuring.spread import METHODS, autocorrelation_time, remembered_time

TauOf = Callable[[Seconds], float]

values_lists = st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=30)


def ar1(*, memory: float, count: int, seed: int) -> Seconds:
    shocks = np.random.default_rng(seed).normal(size=count)
    values = np.empty_like(shocks)
    values[0] = shocks[0]
    for at in range(1, count):
        values[at] = memory * values[at - 1] + shocks[at]
    return values


@pytest.mark.parametrize("tau_of", [autocorrelation_time, remembered_time])
def test_time_of_an_ar1_is_its_formula(tau_of: TauOf) -> None:
    """(1 + 0.8) / (1 - 0.8) = 9; the estimate of 20,000 values is within a quarter of it."""
    values = ar1(memory=0.8, count=20_000, seed=7)

    assert tau_of(values) == pytest.approx(9, rel=0.25)


def test_memory_of_twenty_values_is_not_underestimated() -> None:
    """The plain estimate from 20 values of an AR(1) with 0.5 is 0.37 on average (Kendall)."""
    samples = [ar1(memory=0.5, count=60, seed=seed)[40:] for seed in range(800)]

    memories = [(tau - 1) / (tau + 1) for tau in map(remembered_time, samples)]

    assert np.mean(memories) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("tau_of", [autocorrelation_time, remembered_time])
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_time_is_finite_and_at_least_one(tau_of: TauOf, values: list[float]) -> None:
    found = tau_of(np.array(values))

    assert 1 <= found <= max(39.0, 2 * len(values) + 1)


@pytest.mark.parametrize("method", METHODS)
@given(values=values_lists)
def test_spread_is_the_same_when_time_runs_backwards(method: int, values: list[float]) -> None:
    weights = np.full(len(values), 1 / len(values))

    forward = METHODS[method](np.array(values), weights)
    backward = METHODS[method](np.array(values[::-1]), weights)

    assert backward.variance == pytest.approx(forward.variance, rel=1e-6, abs=1e-12)
    assert backward.skewness == pytest.approx(forward.skewness, rel=1e-3, abs=1e-3)
    assert backward.rare == pytest.approx(forward.rare, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_values_that_are_all_alike_have_no_spread(method: int) -> None:
    found = METHODS[method](np.full(8, 0.3), np.full(8, 1 / 8))

    assert found.variance == pytest.approx(0.0, abs=1e-30)
    assert found.skewness == 0.0


def test_degrees_are_fewer_where_few_values_carry_the_spread() -> None:
    even = np.random.default_rng(1).normal(size=20)
    peaked = even * 0.01
    peaked[[3, 12]] += 1.0
    weights = np.full(20, 1 / 20)

    assert METHODS[2](peaked, weights).degrees < METHODS[2](even, weights).degrees / 2


def test_skewness_points_to_the_long_tail() -> None:
    values = np.zeros(20)
    values[7] = 1.0
    weights = np.full(20, 1 / 20)

    assert METHODS[2](values, weights).skewness > 0
    assert METHODS[2](-values, weights).skewness < 0


def test_only_what_makes_the_outermost_block_stand_out_counts_as_rare() -> None:
    """Twenty normal values have one at 1.87 standard deviations; one burst is at 4.25."""
    burst = np.zeros(20)
    burst[7] = 1.0
    even = NormalDist().inv_cdf
    usual = np.array([even((rank - 0.375) / 20.25) for rank in range(1, 21)])
    weights = np.full(20, 1 / 20)

    assert METHODS[3](burst, weights).rare == pytest.approx((0.95 - 1.868 * 0.2236) / 20, rel=1e-3)
    assert METHODS[3](usual, weights).rare < 0.1 * usual.std() / 20
    assert METHODS[2](burst, weights).rare == 0.0


def test_a_rare_block_is_weighed_as_it_counts() -> None:
    values = np.zeros(20)
    values[7] = 1.0
    weights = np.full(20, 0.99 / 19)
    weights[7] = 0.01

    assert 0 < METHODS[3](values, weights).rare < 0.01


@pytest.mark.parametrize("method", [2, 3])
def test_three_values_are_enough_for_a_spread(method: int) -> None:
    found = METHODS[method](np.array([0.0, 0.0, 1.0]), np.full(3, 1 / 3))

    assert found.degrees == 3.0
    assert np.isfinite(found.variance)


SPREADS = """
import numpy as np
from trials.measuring.spread import METHODS
for seed in range(20):
    values = np.random.default_rng(seed).exponential(size=61)
    print(*(spread(values, np.full(61, 1 / 61)) for spread in METHODS.values()))
"""


def test_digits_do_not_depend_on_the_processor() -> None:
    """Those of a linear-algebra library do: it picks other kernels, which sum in another order."""
    printed = {
        subprocess.run(
            [sys.executable, "-c", SPREADS],
            env=os.environ | {"OPENBLAS_CORETYPE": processor},
            stdout=subprocess.PIPE,
            check=True,
            timeout=60,
        ).stdout
        for processor in ("Nehalem", "Haswell")
    }

    assert len(printed) == 1
