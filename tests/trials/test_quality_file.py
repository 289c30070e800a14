"""Qualities as the store keeps them: every digit comes back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trials.measurement import Calibration, CohortScore, Estimate, Quality, ReliabilityBin
from trials.scoring.quality_file import json_from_quality, quality_from_json

finite = st.floats(allow_nan=False, allow_infinity=False)
estimates = st.builds(Estimate, value=finite, low=st.none() | finite, high=st.none() | finite)
bins = st.builds(
    ReliabilityBin, confidence=finite, accuracy=finite, samples=st.integers(min_value=0)
)
calibrations = st.builds(
    Calibration,
    brier=estimates,
    log_loss=estimates,
    ece=finite,
    ece_null=finite,
    bins=st.lists(bins, max_size=3).map(tuple),
)
qualities = st.builds(
    Quality,
    split=st.text(),
    split_digest=st.text(),
    samples=st.integers(min_value=1),
    scores=st.lists(st.tuples(st.text(), estimates), max_size=3).map(tuple),
    cohorts=st.lists(
        st.builds(
            CohortScore, cohort=st.text(), samples=st.integers(min_value=1), score=estimates
        ),
        max_size=3,
    ).map(tuple),
    calibration=st.none() | calibrations,
)


@given(qualities)
def test_quality_comes_back_to_the_last_digit(quality: Quality) -> None:
    assert quality_from_json(json_from_quality(quality)) == quality


@pytest.mark.parametrize("missing", ["scores", "cohorts", "calibration"])
def test_file_of_another_version_is_not_half_read(missing: str) -> None:
    quality = Quality(split="search", split_digest="d", samples=1, scores=())
    raw = json.loads(json_from_quality(quality))
    del raw[missing]

    with pytest.raises(KeyError, match=missing):
        quality_from_json(json.dumps(raw))
