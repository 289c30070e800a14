"""When two engines answer alike."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from search_spaces.deployment import Precision
from trials.errors import OutputError
from trials.scoring.agreement import TOLERANCES, agreements, predictions

LOGITS = np.array([[0.0, 2.0, -4.0], [1.0, 0.5, 0.0]], np.float32)


def deviation(new: NDArray[np.generic], old: NDArray[np.generic] = LOGITS) -> float:
    [found] = agreements(
        {"logits": new}, {"logits": old}, precision=Precision.FP32, identical=True
    )
    return found.deviation


def test_every_precision_has_a_bound() -> None:
    assert TOLERANCES.keys() == set(Precision)
    assert TOLERANCES[Precision.FP32] == min(TOLERANCES.values())


def test_deviation_is_a_share_of_the_largest_answer() -> None:
    assert deviation(LOGITS + np.float32(0.5)) == 0.125


def test_the_least_difference_breaks_what_must_be_identical() -> None:
    nudged = LOGITS.copy()
    nudged[0, 1] = np.nextafter(nudged[0, 1], np.float32(3))

    for identical, holds in ((True, False), (False, True)):
        [found] = agreements(
            {"logits": nudged}, {"logits": LOGITS}, precision=Precision.FP32, identical=identical
        )
        assert found.holds is holds


@given(factor=st.floats(1e-3, 1e3), noise=st.floats(0, 1))
def test_deviation_does_not_depend_on_the_unit_of_the_answers(factor: float, noise: float) -> None:
    old = LOGITS.astype(np.float64)
    new = old + noise

    assert deviation(new * factor, old * factor) == pytest.approx(deviation(new, old))


def test_minus_zero_is_zero() -> None:
    assert deviation(np.array([-0.0]), np.array([0.0])) == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_answer_that_is_no_number_is_beyond_every_bound(bad: float) -> None:
    broken = LOGITS.copy()
    broken[1, 1] = bad

    assert deviation(broken) == np.inf
    assert deviation(LOGITS, broken) == np.inf


def test_answers_where_there_were_only_zeros_are_beyond_every_bound() -> None:
    assert deviation(np.ones(3), np.zeros(3)) == np.inf


def test_class_numbers_may_differ_in_one_of_a_hundred() -> None:
    old = np.arange(200)
    new = old.copy()
    new[:2] += 1

    [found] = agreements({"ids": new}, {"ids": old}, precision=Precision.INT8, identical=False)

    assert (found.deviation, found.bound, found.holds) == (0.01, 0.01, True)


@pytest.mark.parametrize(
    "new",
    [{"other": LOGITS}, {"logits": LOGITS[:1]}, {"logits": LOGITS.astype(np.float64)}],
    ids=["name", "shape", "type"],
)
def test_other_outputs_are_no_matter_of_a_bound(new: dict[str, NDArray[np.generic]]) -> None:
    with pytest.raises(OutputError, match="recorded w"):
        agreements(new, {"logits": LOGITS}, precision=Precision.FP32, identical=False)


def test_predictions_are_compared_sample_by_sample() -> None:
    old = np.eye(4)[[0, 1, 2, 3]]
    new = np.eye(4)[[0, 1, 3, 2]]

    found = predictions(new, old, labels=np.array([0, 2, 2, 2]))

    assert (len(found), found.agree) == (4, 2)
    assert found.hits_old.tolist() == [True, False, True, False]
    assert found.hits_new.tolist() == [True, False, False, True]
