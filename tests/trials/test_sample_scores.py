import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trials.measurement import SampleScores
from trials.scoring.sample_scores import packed, unpacked


@given(arrays(bool, st.integers(1, 500)))
def test_hits_and_misses_come_back_as_they_were(hits: np.ndarray) -> None:
    scores = packed(hits)

    assert scores is not None
    assert unpacked(scores).tolist() == hits.tolist()


@given(arrays(np.float32, st.integers(1, 100), elements=st.floats(-2, 2, width=32)))
def test_other_scores_come_back_as_float32(values: np.ndarray) -> None:
    scores = packed(values.astype(float))

    assert scores is not None
    assert unpacked(scores).tolist() == values.tolist()


def test_hits_of_a_large_split_stay_small() -> None:
    hits = np.random.default_rng(0).random(50_000) < 0.93

    scores = packed(hits)

    assert scores is not None
    assert len(scores.text) < 50_000 / 8


def test_many_scores_that_are_no_hits_are_not_kept() -> None:
    assert packed(np.linspace(0.1, 0.9, 4_097)) is None


@pytest.mark.parametrize("text", ["", "no base 85 \x7f", "c-mx"])
def test_damaged_scores_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="3 "):
        unpacked(SampleScores(samples=3, kind="bits", text=text))


def test_another_count_than_was_promised_is_refused() -> None:
    scores = packed(np.array([0.25, 0.5]))
    assert scores is not None

    with pytest.raises(ValueError, match="3 were promised"):
        unpacked(SampleScores(samples=3, kind="float32", text=scores.text))
