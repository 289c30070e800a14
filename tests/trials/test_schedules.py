"""Arrival schedules: seeded, at the rate that was asked for, and shaped as they say."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.arrivals import (
    Arrivals,
    ConstantArrivals,
    DayArrivals,
    GammaArrivals,
    PoissonArrivals,
    StepArrivals,
    TraceArrivals,
)
from search_spaces.traces import trace_from_csv
from trials.errors import InputChangedError
from trials.measuring.schedules import Stretch, due_times

PATTERNS: list[Arrivals] = [
    PoissonArrivals(),
    GammaArrivals(burstiness=3.0),
    GammaArrivals(burstiness=0.2),
    ConstantArrivals(),
    StepArrivals(steps=((0.5, 1.0), (0.25, 6.0))),
    DayArrivals(period_s=2.0, swing=0.9),
]


def stretch(*, length_s: float = 100.0, begin_s: float = 0.0, number: int = 1) -> Stretch:
    return Stretch(begin_s=begin_s, length_s=length_s, number=number)


def variation_of_gaps(arrivals: Arrivals) -> float:
    gaps = np.diff(due_times(arrivals, stretch(), rate_rps=500))
    return float(gaps.std() / gaps.mean())


def trace_of(folder: Path, text: str) -> TraceArrivals:
    path = folder / "trace.csv"
    path.write_text(text, encoding="utf-8")
    return TraceArrivals(path=path, digest=trace_from_csv(path, key="").digest)


@pytest.mark.parametrize("arrivals", PATTERNS, ids=lambda arrivals: arrivals.kind)
def test_mean_rate_is_the_one_asked_for(arrivals: Arrivals) -> None:
    due = due_times(arrivals, stretch(length_s=400), rate_rps=200)

    # 80,000 arrivals; gaps of variation 3 leave a standard deviation of 1.1 %
    assert due.size == pytest.approx(80_000, rel=0.035)


@given(
    arrivals=st.sampled_from(PATTERNS),
    begin_s=st.floats(0, 50),
    length_s=st.floats(0.01, 5),
    rate=st.floats(0.5, 2_000),
)
def test_arrivals_ascend_within_their_stretch(
    arrivals: Arrivals, begin_s: float, length_s: float, rate: float
) -> None:
    due = due_times(arrivals, stretch(length_s=length_s, begin_s=begin_s), rate_rps=rate)

    assert (np.diff(due) >= 0).all()
    assert ((due >= 0) & (due < length_s)).all()


@pytest.mark.parametrize("arrivals", PATTERNS, ids=lambda arrivals: arrivals.kind)
def test_same_seed_gives_the_same_users(arrivals: Arrivals) -> None:
    first, second = (due_times(arrivals, stretch(), rate_rps=50) for _ in range(2))

    np.testing.assert_array_equal(first, second)


def test_stretches_and_seeds_differ() -> None:
    drawn = [
        due_times(PoissonArrivals(seed=seed), stretch(number=number), rate_rps=10)[0]
        for seed in (0, 1)
        for number in (1, 2)
    ]

    assert len(set(drawn)) == len(drawn)


def test_poisson_gaps_vary_as_much_as_their_mean() -> None:
    assert variation_of_gaps(PoissonArrivals()) == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize("burstiness", [0.3, 1.0, 2.5])
def test_gamma_gaps_vary_as_asked(burstiness: float) -> None:
    assert variation_of_gaps(GammaArrivals(burstiness=burstiness)) == pytest.approx(
        burstiness, rel=0.05
    )


def test_constant_arrivals_go_on_in_step_over_stretches() -> None:
    first = due_times(ConstantArrivals(), stretch(length_s=0.35), rate_rps=10)
    second = due_times(ConstantArrivals(), stretch(length_s=0.35, begin_s=0.35), rate_rps=10)

    together = np.concatenate([first, 0.35 + second])
    np.testing.assert_allclose(together, np.arange(7) / 10)


def test_steps_hold_their_relative_rates() -> None:
    arrivals = StepArrivals(steps=((1.0, 1.0), (1.0, 4.0)))

    due = due_times(arrivals, stretch(length_s=200), rate_rps=500)

    is_busy = due % 2 >= 1
    assert is_busy.sum() / (~is_busy).sum() == pytest.approx(4, rel=0.05)


def test_day_swings_by_its_height() -> None:
    due = due_times(DayArrivals(period_s=2.0, swing=0.5), stretch(length_s=400), rate_rps=500)

    # the mean of a sine over its upper half is 2 / pi
    share = (due % 2 < 1).mean()
    assert share == pytest.approx(0.5 * (1 + 0.5 * 2 / np.pi), abs=0.01)


def test_trace_is_stretched_to_the_rate_and_repeated(tmp_path: Path) -> None:
    arrivals = trace_of(tmp_path, "time\n" + "\n".join(str(at) for at in range(10)))

    due = due_times(arrivals, stretch(length_s=2), rate_rps=10)

    np.testing.assert_allclose(due, np.arange(20) / 10, atol=1e-9)


def test_trace_that_changed_is_refused(tmp_path: Path) -> None:
    arrivals = trace_of(tmp_path, "\n".join(str(at) for at in range(10)))
    arrivals.path.write_text("\n".join(str(2 * at) for at in range(10)), encoding="utf-8")

    with pytest.raises(InputChangedError, match=r"trace has changed"):
        due_times(arrivals, stretch(), rate_rps=10)


def test_rate_of_zero_is_no_schedule() -> None:
    with pytest.raises(ValueError, match="no schedule"):
        due_times(PoissonArrivals(), stretch(), rate_rps=0)
