"""Scores of two engines on the same samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from trials.scoring.calibration import Floats
from trials.scoring.paired import by_cohort, holm, mcnemar, paired_difference, tango

counts = st.integers(0, 40)


def hits(won: int, lost: int, both: int) -> tuple[Floats, Floats]:
    """Make hits of two engines that differ on so many samples."""
    new = np.array([1.0] * won + [0.0] * lost + [1.0] * both)
    old = np.array([0.0] * won + [1.0] * lost + [1.0] * both)
    return new, old


@given(won=counts, lost=counts)
def test_mcnemar_is_the_exact_binomial_test(won: int, lost: int) -> None:
    expected = binomtest(won, won + lost, 0.5).pvalue if won + lost else 1.0

    assert mcnemar(won, lost) == pytest.approx(expected)


@given(won=counts, lost=counts, rest=st.integers(1, 500))
def test_interval_holds_the_difference_and_swaps_with_the_engines(
    won: int, lost: int, rest: int
) -> None:
    samples = won + lost + rest

    found, swapped = tango(won, lost, samples), tango(lost, won, samples)

    assert found.low is not None
    assert found.high is not None
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.low == pytest.approx(-(swapped.high or 0), abs=1e-9)


def test_engines_that_never_differ_have_an_interval_all_the_same() -> None:
    """With no discordant pair the score limits are ±z²/(n + z²) (Tango 1998)."""
    found = tango(0, 0, 100)

    assert found.high == pytest.approx(1.96**2 / (100 + 1.96**2), rel=1e-3)


def test_tangos_interval_covers_the_true_difference() -> None:
    """Nominal 95 %, at 4 % against 2 % discordant of 300 samples."""
    random = np.random.default_rng(0)
    drawn = random.multinomial(300, (0.04, 0.02, 0.94), size=500)

    found = [tango(int(won), int(lost), 300) for won, lost, _ in drawn]

    covered = np.mean([(one.low or -1) <= 0.02 <= (one.high or 1) for one in found])
    assert 0.92 <= covered <= 0.98


def test_same_samples_tell_more_than_either_accuracy() -> None:
    new, old = hits(won=4, lost=16, both=980)

    found = paired_difference(new, old)

    assert found.difference.value == pytest.approx(-0.012)
    assert found.difference.high is not None
    assert found.difference.high < 0
    assert (found.differing, found.samples) == (20, 1000)
    assert found.doubt == pytest.approx(0.0118, abs=1e-4)


def test_scores_that_are_numbers_are_compared_by_students_t() -> None:
    random = np.random.default_rng(0)
    old = random.random(200)
    new = old + 0.05 + 0.1 * random.standard_normal(200)

    found = paired_difference(new, old)

    assert found.difference.low is not None
    assert 0 < found.difference.low < 0.05 < (found.difference.high or 0)
    assert found.doubt < 1e-6


def test_numbers_that_are_all_alike_do_not_differ_at_all() -> None:
    scores = np.random.default_rng(0).random(50)

    found = paired_difference(scores, scores)

    assert (found.difference.low, found.difference.high, found.doubt) == (0.0, 0.0, 1.0)


def test_other_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="same samples"):
        paired_difference(np.ones(3), np.ones(4))


def test_cohort_differs_only_where_it_would_among_all_of_them() -> None:
    """0 of 6 alone has p = 0.03; among three cohorts that is no longer certain."""
    new, old = hits(won=0, lost=6, both=294)
    cohorts = np.array(["a"] * 100 + ["b"] * 100 + ["c"] * 100)

    found = by_cohort(new, old, cohorts)

    assert mcnemar(0, 6) < 0.05 < found["a"].doubt
    assert (found["b"].doubt, found["c"].differing) == (1.0, 0)


@given(st.dictionaries(st.text(), st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_makes_a_doubt_smaller_nor_changes_their_order(
    doubts: dict[str, float],
) -> None:
    adjusted = holm(doubts)

    assert list(adjusted) == list(doubts)
    assert all(doubts[name] <= adjusted[name] <= 1 for name in doubts)
    ordered = sorted(doubts, key=doubts.__getitem__)
    assert [adjusted[name] for name in ordered] == sorted(adjusted.values())
    assert adjusted[ordered[0]] == min(1.0, len(doubts) * doubts[ordered[0]])
