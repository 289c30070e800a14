"""Fronts and trials as plain data: one JSON document, or a CSV file of all trials."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from io import StringIO

from optimizer.front.drifting import watches_of
from optimizer.front.front import Candidate, Front
from optimizer.study.records import TrialRecord
from search_spaces.deployment import Scalar
from trials.measurement import Estimate, Quality
from trials.outcome import Completed


def data_of_front(front: Front, verdicts: Mapping[int, Quality]) -> dict[str, object]:
    """Return the front as one JSON document.

    ``front`` has its members, ``ties`` the deployments that cannot be told apart from them.
    """
    shown = [_data_of_candidate(one, verdicts.get(one.record.number)) for one in front.candidates]
    members = [one.is_member for one in front.candidates]
    return {
        "objectives": {
            objective.metric.name: objective.direction.value for objective in front.objectives
        },
        "constraints": [str(constraint) for constraint in front.constraints],
        "front": [one for one, member in zip(shown, members, strict=True) if member],
        "ties": [one for one, member in zip(shown, members, strict=True) if not member],
        "knee": None if front.knee is None else front.knee.number,
        "hypervolume": front.hypervolume,
        "certified": front.certified,
        "drift": [
            {
                "sentinel": dict(watch.sentinel.axes()),
                "sightings": watch.sightings,
                "trials": watch.trials,
                "least_ratio": _ends(watch.fastest),
                "largest_ratio": _ends(watch.slowest),
                "doubtful": list(watch.doubtful),
            }
            for watch in watches_of(front.measured)
        ],
        "counts": {
            "front": len(front.members),
            "ties": len(front.ties),
            "dominated": len(front.dominated),
            "missed": len(front.missed),
            "infeasible": len(front.infeasible),
            "failed": len(front.failed),
        },
    }


def _data_of_candidate(one: Candidate, verdict: Quality | None) -> dict[str, object]:
    return data_of_trial(one.record, verdict) | {
        "probability_on_front": one.probability,
        "tied_with": list(one.tied_with),
        "bounds": one.bounds.value,
    }


def data_of_trial(record: TrialRecord, verdict: Quality | None) -> dict[str, object]:
    """Return one trial as JSON data."""
    outcome = record.outcome
    data: dict[str, object] = {
        "trial": record.number,
        "uid": record.uid,
        "study": record.study,
        "state": outcome.state,
        "deployment": dict(outcome.deployment.axes()),
    }
    if not isinstance(outcome, Completed):
        return data | {"kind": outcome.kind, "reason": outcome.reason}
    data["metrics"] = {name: _ends(estimate) for name, estimate in outcome.metrics().items()}
    data["flags"] = list(outcome.flags)
    if outcome.on_device is not None:
        data["on_device"] = asdict(outcome.on_device)
    if verdict is not None:
        data["report"] = {name: _ends(estimate) for name, estimate in verdict.scores}
    return data


def csv_of_records(records: Sequence[TrialRecord]) -> str:
    """Return trials as CSV: axes, then value, low and high of every metric."""
    rows = rows_of_records(records)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    buffer = StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def rows_of_records(records: Sequence[TrialRecord]) -> list[dict[str, Scalar | None]]:
    """Return trials as rows: number, state, axes, then value, low and high of every metric."""
    return [_row(record) for record in records]


def _row(record: TrialRecord) -> dict[str, Scalar | None]:
    row: dict[str, Scalar | None] = {"trial": record.number, "state": record.outcome.state}
    row.update(record.outcome.deployment.axes())
    if isinstance(record.outcome, Completed):
        for name, estimate in record.outcome.metrics().items():
            row |= {
                name: estimate.value,
                f"{name}.low": estimate.low,
                f"{name}.high": estimate.high,
            }
    return row


def _ends(estimate: Estimate) -> dict[str, float | None]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}
