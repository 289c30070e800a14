"""What MLflow is told of a trial, an engine and a verdict: pure functions, no MLflow call.

Metrics carry people's units, as space files do (milliseconds, samples/s). The ends of the 95 %
interval stand beside them as ``<metric>.low`` and ``<metric>.high``; they are absent where the
data cannot give them and where the metric is counted, not sampled. Costs are seconds. The whole
outcome, cohorts and reliability bins included, goes along as ``outcome.json``, because MLflow cuts
long tags and has no place for tables.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import assert_never

from optimizer.front.words import short
from optimizer.study.records import TrialRecord, json_from_outcome
from optimizer.tracking.messages import (
    EngineBuilt,
    Metrics,
    Pairs,
    Point,
    TrialEnded,
    VerdictGiven,
)
from search_spaces.deployment import Deployment, kept_layers
from trials.backends.catalog import engine_suffix
from trials.measurement import Estimate, Quality
from trials.measuring.sentinel import Sighting, level_of
from trials.models.precision import needs_calibration
from trials.outcome import Completed, Failed, Infeasible, Outcome

_MS_PER_S = 1e3
_BAD_IN_MODEL_NAME = re.compile(r"[^\w-]")  # MLflow refuses some, its page more
_UNKNOWN = "unknown"
_SHORT = 8  # digits of a digest that tell engines apart in a list


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFacts:
    """What the runs of one study have in common.

    Attributes:
        study_id: Unlike any other study's.
        backend: Name of the backend.
        digests: SHA-256 by ``data:<split>`` and ``variant:<name>``.
        objectives: Names of the metrics that are traded off.
    """

    study_id: str
    backend: str
    digests: Mapping[str, str]
    objectives: tuple[str, ...] = ()


def content_of_record(
    record: TrialRecord,
    facts: StudyFacts,
    *,
    files: tuple[str, ...] = (),
    blocks: str | None = None,
    point: Point | None = None,
) -> TrialEnded:
    """Say what the run of one trial holds.

    Args:
        record: What came of the trial.
        facts: Of its study.
        files: Artifact names of its files.
        blocks: Which of them are the raw blocks; None where they are not here.
        point: The curve of the search goes on with it.
    """
    outcome = record.outcome
    deployment = outcome.deployment
    datasets = _datasets(facts.digests, _splits_of_trial(deployment))
    tags = {
        **_tags_of_record(record, facts),
        **{f"digest.{split}": digest for split, digest in datasets},
        **_tags_of_outcome(outcome),
    }
    if isinstance(outcome, Completed):
        tags["raw_blocks"] = "missing" if blocks is None else "kept"
    environment = dict(outcome.environment.facts)
    return TrialEnded(
        uid=record.uid,
        name=f"{record.number:04d} {short(deployment)}",
        started_ms=round(record.started_s * _MS_PER_S),
        finished_ms=round(record.finished_s * _MS_PER_S),
        status="FAILED" if isinstance(outcome, Failed) else "FINISHED",
        tags=tuple(tags.items()),
        params=tuple((axis, str(value)) for axis, value in deployment.axes()),
        metrics=_metrics(outcome, facts.objectives) if isinstance(outcome, Completed) else (),
        datasets=datasets,
        texts=(
            ("environment.json", json.dumps(environment, indent=1)),
            ("outcome.json", json_from_outcome(outcome)),
        ),
        files=files,
        blocks=blocks,
        engine=outcome.engine.engine_digest if isinstance(outcome, Completed) else None,
        point=point,
    )


def content_of_engine(outcome: Completed, facts: StudyFacts) -> EngineBuilt:
    """Say what the LoggedModel of a measured engine holds."""
    engine, deployment = outcome.engine, outcome.deployment
    name = f"{deployment.variant}-{deployment.precision.value}-{engine.engine_digest[:_SHORT]}"
    return EngineBuilt(
        uid=engine.engine_digest,
        name=_BAD_IN_MODEL_NAME.sub("_", name),
        backend=facts.backend,
        tags=(
            ("study_id", facts.study_id),
            ("engine_key", engine.engine_key),
            ("variant_digest", engine.variant_digest),
            ("model_digest", engine.model_digest),
            ("device", device_of(outcome)),
        ),
        params=(
            ("variant", deployment.variant),
            ("precision", deployment.precision.value),
            ("size_bytes", str(engine.size_bytes)),
        ),
        file=f"engine.{engine_suffix(facts.backend)}",
    )


def content_of_verdict(uid: str, quality: Quality) -> VerdictGiven:
    """Say what the run of a front member holds besides: its scores on the report split."""
    metrics = metrics_of_estimates(
        {f"report.{name}": estimate for name, estimate in quality.scores}
    )
    digest = quality.split_digest
    return VerdictGiven(uid=uid, metrics=metrics, datasets=((quality.split, digest),))


def metrics_of_estimates(estimates: Mapping[str, Estimate]) -> Metrics:
    """Return estimates by name with the ends of their intervals, as far as these are known."""
    return _finite(pair for name, each in estimates.items() for pair in _ends(name, each))


def device_of(outcome: Outcome) -> str:
    """Name the processor that an engine ran on; ``unknown`` of one that was not measured."""
    if not isinstance(outcome, Completed):
        return _UNKNOWN
    fact = "gpu" if outcome.on_device is not None else "cpu_model"
    return dict(outcome.environment.facts).get(fact, _UNKNOWN)


def source_tags() -> dict[str, str]:
    """Say where a run comes from, as MLflow's page shows it."""
    return {"mlflow.source.name": f"trifront {version('trifront')}", "mlflow.source.type": "LOCAL"}


def datasets_of(digests: Mapping[str, str]) -> Pairs:
    """Return (split, SHA-256) of all splits."""
    return _datasets(
        digests, (name.removeprefix("data:") for name in digests if name.startswith("data:"))
    )


def _metrics(outcome: Completed, objectives: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    """Return every metric in people's units with its interval ends, and costs in seconds.

    The objectives come first, because MLflow's page compares runs by the first metric that it
    finds unless told otherwise.
    """
    metrics = outcome.metrics()
    order = (*objectives, *(name for name in metrics if name not in objectives))
    measured = (pair for name in order for pair in _ends(name, metrics[name]))
    costs = ((f"cost.{name}", float(value)) for name, value in asdict(outcome.costs).items())
    watched = () if outcome.sentinel is None else tuple(_watched(outcome.sentinel))
    power_w = None if outcome.gpu is None else outcome.gpu.power_w
    power = () if power_w is None else (("gpu_power_w", power_w),)
    return _finite((*measured, *costs, *watched, *power))


def _watched(sighting: Sighting) -> Iterator[tuple[str, float]]:
    return _ends("sentinel_ms", level_of(sighting).scaled(1e3))


def _ends(name: str, estimate: Estimate) -> Iterator[tuple[str, float]]:
    yield name, estimate.value
    if estimate.low == estimate.high == estimate.value:
        return  # counted, not sampled
    for end, value in ((".low", estimate.low), (".high", estimate.high)):
        if value is not None:
            yield name + end, value


def _finite(pairs: Iterable[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    # MLflow would turn an infinity into 1.8e308; outcome.json keeps it
    return tuple(pair for pair in pairs if math.isfinite(pair[1]))


def _splits_of_trial(deployment: Deployment) -> tuple[str, ...]:
    # the report split is scored once, at the end of a search, by no trial
    calibrated = needs_calibration(deployment.precision) or kept_layers(deployment) > 0
    return ("calibration", "search") if calibrated else ("search",)


def _tags_of_record(record: TrialRecord, facts: StudyFacts) -> dict[str, str]:
    deployment = record.outcome.deployment
    return {
        "kind": "trial",
        **source_tags(),
        "trial_uid": record.uid,
        "trial_number": str(record.number),
        "study": record.study,
        "study_id": facts.study_id,
        "variant": deployment.variant,
        "precision": deployment.precision.value,
        "backend": facts.backend,
        "device": device_of(record.outcome),
        "host": dict(record.outcome.environment.facts).get("host", _UNKNOWN),
        "state": record.outcome.state,
        "on_front": "false",  # so that both questions can be asked; the front says who is
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


def _datasets(digests: Mapping[str, str], splits: Iterable[str]) -> Pairs:
    return tuple(
        (split, digests[f"data:{split}"]) for split in splits if f"data:{split}" in digests
    )
