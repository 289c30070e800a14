"""A quality as a JSON file: what the store keeps once an engine is scored."""

import json
from dataclasses import asdict
from typing import Any

from trials.measurement import (
    Calibration,
    CohortScore,
    Estimate,
    Quality,
    ReliabilityBin,
    SampleScores,
)


def json_from_quality(quality: Quality) -> str:
    """Serialize a quality; floats keep every digit."""
    return json.dumps(asdict(quality))


def quality_from_json(text: str) -> Quality:
    """Read a quality back.

    Raises:
        KeyError: A field is missing: the file is of another version.
        json.JSONDecodeError: Not JSON.
    """
    raw = json.loads(text)
    return Quality(
        split=raw["split"],
        split_digest=raw["split_digest"],
        samples=raw["samples"],
        scores=tuple((name, Estimate(**estimate)) for name, estimate in raw["scores"]),
        cohorts=tuple(
            CohortScore(
                cohort=cohort["cohort"],
                samples=cohort["samples"],
                score=Estimate(**cohort["score"]),
            )
            for cohort in raw["cohorts"]
        ),
        calibration=_calibration(raw["calibration"]),
        per_sample=None if raw["per_sample"] is None else SampleScores(**raw["per_sample"]),
    )


def _calibration(raw: dict[str, Any] | None) -> Calibration | None:
    if raw is None:
        return None
    return Calibration(
        brier=Estimate(**raw["brier"]),
        log_loss=Estimate(**raw["log_loss"]),
        ece=raw["ece"],
        ece_null=raw["ece_null"],
        bins=tuple(ReliabilityBin(**one) for one in raw["bins"]),
    )
