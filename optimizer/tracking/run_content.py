"""What MLflow is told of a trial or a search: pure functions from records, no MLflow call.

Metrics carry people's units, as space files do (milliseconds, samples/s). The ends of the 95 %
interval stand beside them as ``<metric>.low`` and ``<metric>.high``; they are absent where the
data cannot give them and where the metric is counted, not sampled. Costs are seconds. The whole
outcome, cohorts and reliability bins included, goes along as ``outcome.json``, because MLflow cuts
long tags and has no place for tables.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import assert_never

from optimizer.study.records import TrialRecord, json_from_outcome
from search_spaces.deployment import Precision
from trials.measurement import Estimate, Quality
from trials.models.precision import needs_calibration
from trials.outcome import Completed, Failed, Infeasible, Outcome

_MS_PER_S = 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContent:
    """Everything that one run says.

    Attributes:
        uid: Value of the tag ``trial_uid``, by which the run is found.
        status: MLflow's word for the end of the run.
        engine_digest: SHA-256 of the engine that was measured, if one was.
        datasets: (split, SHA-256) of the data that the run used.
        texts: (artifact name, content).
        files: (artifact name, local file).
    """

    uid: str
    name: str
    started_ms: int
    finished_ms: int
    status: str
    tags: tuple[tuple[str, str], ...]
    engine_digest: str | None = None
    params: tuple[tuple[str, str], ...] = ()
    metrics: tuple[tuple[str, float], ...] = ()
    datasets: tuple[tuple[str, str], ...] = ()
    texts: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[str, Path], ...] = ()


def content_of_record(
    record: TrialRecord, *, backend: str, digests: Mapping[str, str], blocks: Path | None
) -> RunContent:
    """Say what the run of one trial holds.

    Args:
        record: What came of the trial.
        backend: Name of the backend.
        digests: SHA-256 by ``data:<split>`` and ``variant:<name>``.
        blocks: Raw blocks as Parquet; None where there are none.
    """
    outcome = record.outcome
    deployment = outcome.deployment
    facts = dict(outcome.environment.facts)
    datasets = _datasets(digests, _splits_of_trial(deployment.precision))
    metrics = _metrics(outcome) if isinstance(outcome, Completed) else {}
    tags = {
        **_tags_of_record(record),
        "backend": backend,
        "host": facts.get("host", "unknown"),
        **{f"digest.{split}": digest for split, digest in datasets},
        **_tags_of_outcome(outcome),
    }
    return RunContent(
        uid=record.uid,
        name=f"{record.number:04d} {deployment.variant} {deployment.precision.value}",
        started_ms=round(record.started_s * _MS_PER_S),
        finished_ms=round(record.finished_s * _MS_PER_S),
        status="FAILED" if isinstance(outcome, Failed) else "FINISHED",
        tags=tuple(tags.items()),
        engine_digest=outcome.engine.engine_digest if isinstance(outcome, Completed) else None,
        params=tuple((axis, str(value)) for axis, value in deployment.axes()),
        # MLflow would turn an infinity into 1.8e308; outcome.json keeps it
        metrics=tuple(item for item in metrics.items() if math.isfinite(item[1])),
        datasets=datasets,
        texts=(
            ("environment.json", json.dumps(facts, indent=1)),
            ("outcome.json", json_from_outcome(outcome)),
        ),
        files=() if blocks is None else ((f"blocks{blocks.suffix}", blocks),),
    )


def content_of_search(
    space_text: str, *, backend: str, digests: Mapping[str, str], now_s: float
) -> RunContent:
    """Say what the run of the search itself holds; one per text of the space file.

    Args:
        space_text: The space file as it was read.
        backend: Name of the backend.
        digests: SHA-256 by ``data:<split>`` and ``variant:<name>``.
        now_s: Time of the run, seconds since the epoch.
    """
    text_digest = sha256(space_text.encode()).hexdigest()
    splits = tuple(name.removeprefix("data:") for name in digests if name.startswith("data:"))
    tags = {
        "kind": "search",
        "trial_uid": f"search-{text_digest}",
        "backend": backend,
        "space_sha256": text_digest,
        **{f"digest.{name.replace(':', '.')}": digest for name, digest in digests.items()},
    }
    return RunContent(
        uid=tags["trial_uid"],
        name="search",
        started_ms=round(now_s * _MS_PER_S),
        finished_ms=round(now_s * _MS_PER_S),
        status="FINISHED",
        tags=tuple(tags.items()),
        datasets=_datasets(digests, splits),
        texts=(("space.yaml", space_text),),
    )


def metrics_of_verdict(quality: Quality) -> tuple[tuple[str, float], ...]:
    """Say what the run of a front member holds besides: its scores on the report split."""
    return tuple(
        item
        for name, estimate in quality.scores
        for item in _with_ends(f"report.{name}", estimate)
        if math.isfinite(item[1])
    )


def _metrics(outcome: Completed) -> dict[str, float]:
    """Return every metric in people's units with its interval ends, and costs in seconds."""
    found = {f"cost.{name}": float(value) for name, value in asdict(outcome.costs).items()}
    for name, estimate in outcome.metrics().items():
        found.update(_with_ends(name, estimate))
    return found


def _with_ends(name: str, estimate: Estimate) -> Iterator[tuple[str, float]]:
    yield name, estimate.value
    if estimate.low == estimate.high == estimate.value:
        return  # counted, not sampled
    for end, value in ((".low", estimate.low), (".high", estimate.high)):
        if value is not None:
            yield name + end, value


def _splits_of_trial(precision: Precision) -> tuple[str, ...]:
    # the report split is scored once, at the end of a search, by no trial
    return ("calibration", "search") if needs_calibration(precision) else ("search",)


def _tags_of_record(record: TrialRecord) -> dict[str, str]:
    deployment = record.outcome.deployment
    return {
        "kind": "trial",
        "trial_uid": record.uid,
        "trial_number": str(record.number),
        "study": record.study,
        "variant": deployment.variant,
        "precision": deployment.precision.value,
        "state": record.outcome.state,
    }


def _tags_of_outcome(outcome: Outcome) -> dict[str, str]:
    match outcome:
        case Completed(engine=engine, flags=flags):
            return {
                "flags": ",".join(flags),
                "variant_digest": engine.variant_digest,
                "model_digest": engine.model_digest,
                "engine_digest": engine.engine_digest,
                "engine_key": engine.engine_key,
            }
        case Infeasible(kind=kind, reason=reason) | Failed(kind=kind, reason=reason):
            return {"reason": reason, "reason_kind": kind}
        case _:
            assert_never(outcome)


def _datasets(digests: Mapping[str, str], splits: Iterable[str]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (split, digests[f"data:{split}"]) for split in splits if f"data:{split}" in digests
    )
