"""The Universal Scalability Law: known coefficients are found again, with honest intervals."""

from collections.abc import Sequence
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trials.measurement import Block
from trials.measuring.scalability import Law, fit_scalability

LEVELS = (1, 2, 4, 8, 16)


def blocks_of(law: Law, *, noise: float = 0.0, seed: int = 0) -> dict[int, Sequence[Block]]:
    """Make 20 blocks of 0.1 s a level, each rate off by a lognormal factor."""
    generator = np.random.default_rng(seed)
    rates = law.throughput_sps(np.array(LEVELS, dtype=np.float64))
    return {
        level: [
            Block(
                start_s=0.0,
                window_s=1_000 / rate * float(np.exp(generator.normal(0, noise))),
                latencies_s=np.full(1_000, level / rate),
                batch_size=1,
            )
            for _ in range(20)
        ]
        for level, rate in zip(LEVELS, rates, strict=True)
    }


@settings(deadline=None, max_examples=30)  # the first example imports scipy
@given(
    alone=st.floats(1, 1e6),
    contention=st.floats(0.01, 0.6),
    coherency=st.floats(0.001, 0.05),
)
def test_coefficients_are_found_again(alone: float, contention: float, coherency: float) -> None:
    law = Law(alone_sps=alone, contention=contention, coherency=coherency)

    found = fit_scalability(blocks_of(law)).law

    assert found.alone_sps == pytest.approx(alone, rel=1e-3)
    assert found.contention == pytest.approx(contention, abs=2e-3)
    assert found.coherency == pytest.approx(coherency, abs=2e-4)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    law = Law(alone_sps=1_000, contention=0.1, coherency=0.01)

    found = [fit_scalability(blocks_of(law, noise=0.05, seed=seed)) for seed in range(40)]

    held = [one.contention.low <= 0.1 <= one.contention.high for one in found]  # type: ignore[operator] # finite
    # 40 draws of 95 %: fewer than 33 would come once in 3,000
    assert sum(held) >= 33


def test_peak_is_where_the_law_says() -> None:
    law = Law(alone_sps=100, contention=0.1, coherency=0.01)

    assert law.peak_concurrency == pytest.approx(np.sqrt(0.9 / 0.01))
    assert law.peak_sps == pytest.approx(law.throughput_sps(np.arange(1.0, 100.0)).max(), rel=1e-3)


def test_knee_is_where_the_two_bounds_meet() -> None:
    law = Law(alone_sps=100, contention=0.25, coherency=0.0)

    assert law.peak_sps == pytest.approx(400)
    assert law.knee_concurrency == pytest.approx(4)


def test_workers_that_only_hinder_each_other_have_their_knee_at_one() -> None:
    law = Law(alone_sps=100, contention=1.2, coherency=0.0)

    assert (law.knee_concurrency, law.peak_sps) == (1, 100)


def test_throughput_that_grows_in_proportion_has_no_knee() -> None:
    law = Law(alone_sps=100, contention=0.0, coherency=0.0)

    assert law.peak_sps == inf
    assert fit_scalability(blocks_of(law)).knee_concurrency is None


def test_two_levels_are_too_few_for_three_coefficients() -> None:
    levels = blocks_of(Law(alone_sps=100, contention=0.1, coherency=0.01))

    with pytest.raises(ValueError, match="3 are needed"):
        fit_scalability({level: levels[level] for level in (1, 2)})
