"""From a gathered export to its manifest."""

import getpass
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import UTC, datetime
from importlib.metadata import distributions, version

from optimizer.export.gathering import Export
from optimizer.export.manifest import (
    CertifiedSection,
    ConstraintSection,
    DeploymentSection,
    EngineSection,
    EstimateSection,
    ExportedSection,
    FileSection,
    LoadSection,
    Manifest,
    MeasurementSection,
    ObjectiveSection,
    PlanSection,
    PreprocessingSection,
    ReferencesSection,
    ScoresSection,
    TaskSection,
    TensorSection,
    TrialSection,
)
from optimizer.front.certainty import verdict_of_bound
from search_spaces.space import Constraint
from trials.backend import TensorSpec
from trials.measurement import Estimate, Quality
from trials.scoring.agreement import TOLERANCES


def manifest_of(
    export: Export, *, kind: str, files: Mapping[str, FileSection], by: str
) -> Manifest:
    """Say everything about an export.

    Args:
        export: What was gathered.
        kind: Name of the format.
        files: By path.
        by: Who exports.
    """
    outcome, space = export.outcome, export.space
    return Manifest(
        kind=kind,
        exported=ExportedSection(
            at=datetime.now(UTC).replace(microsecond=0), by=by, trifront=version("trifront")
        ),
        trial=_trial(export),
        deployment=_deployment(export),
        objectives=tuple(
            ObjectiveSection(
                metric=one.metric.name,
                direction=one.direction,
                measured=_estimate(outcome.metric(one.metric.name)),
            )
            for one in space.objectives
        ),
        constraints=tuple(_constraint(export, one) for one in space.constraints),
        metrics={name: _estimate(one) for name, one in outcome.metrics().items()},
        scores=_scores(export),
        measurement=MeasurementSection(
            plan=PlanSection(
                **{one.name: getattr(space.plan, one.name) for one in fields(space.plan)}
            ),
            requests=outcome.speed.requests,
            blocks=outcome.speed.blocks,
            flags=outcome.flags,
        ),
        engine=_engine(export),
        inputs=_tensors(export.recorded.inputs),
        outputs=_tensors(export.recorded.outputs),
        task=_task(export),
        references=_references(export),
        certified=_certified(export),
        digests=dict(export.digests),
        environment=dict(outcome.environment.facts),
        packages=installed_packages(),
        files=dict(files),
    )


def _certified(export: Export) -> CertifiedSection | None:
    """Say how surely the deployment belongs on the front, where that was certified."""
    if export.certificate is None:
        return None
    for one in export.certificate.candidates:
        if one.trial == export.record.number:
            return CertifiedSection(
                at=datetime.fromtimestamp(export.certificate.at_s, UTC),
                probability=one.probability,
                sessions=one.sessions,
                decided=export.certificate.decided,
                speeds={name: _estimate(estimate) for name, estimate in one.speeds},
            )
    return None


def installed_packages() -> tuple[str, ...]:
    """List what is installed beside this interpreter, as ``name==version``, sorted."""
    found = {f"{one.name}=={one.version}" for one in distributions() if one.name}
    return tuple(sorted(found, key=str.lower))


def user_name() -> str:
    """Name who runs this process, by login name or else by number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without an entry, as containers have
        return f"user {os.getuid()}"


def _trial(export: Export) -> TrialSection:
    record = export.record
    return TrialSection(
        study=record.study,
        number=record.number,
        uid=record.uid,
        space=export.space.name,
        started_at=datetime.fromtimestamp(record.started_s, UTC),
        finished_at=datetime.fromtimestamp(record.finished_s, UTC),
    )


def _deployment(export: Export) -> DeploymentSection:
    deployment = export.outcome.deployment
    load = deployment.load
    return DeploymentSection(
        variant=deployment.variant,
        precision=deployment.precision,
        batch_size=deployment.batch_size,
        concurrency=deployment.concurrency,
        options=dict(deployment.options),
        load=None if load is None else LoadSection(**asdict(load)),
    )


def _constraint(export: Export, one: Constraint) -> ConstraintSection:
    estimate = export.outcome.metric(one.metric.name)
    distance = one.bound - estimate.value
    return ConstraintSection(
        metric=one.metric.name,
        sense="<=" if one.upper else ">=",
        bound=one.bound,
        margin=distance if one.upper else -distance,
        standing=verdict_of_bound(export.outcome, one),
        measured=_estimate(estimate),
    )


def _engine(export: Export) -> EngineSection:
    engine, spec = export.outcome.engine, export.spec
    return EngineSection(
        backend=spec.backend,
        sha256=engine.engine_digest,
        size_bytes=engine.size_bytes,
        model_sha256=engine.model_digest,
        variant_sha256=engine.variant_digest,
        batch_size=spec.batch_size,
        options=dict(spec.options),
        environment=dict(spec.environment),
    )


def _task(export: Export) -> TaskSection:
    task, how = export.space.task, export.space.task.preprocessing
    dtype = how.dtype if isinstance(how.dtype, str) else dict(how.dtype)
    return TaskSection(
        kind=task.kind,
        metric=task.metric,
        preprocessing=PreprocessingSection(**asdict(how) | {"dtype": dtype}),
        classes=export.recorded.classes,
    )


def _scores(export: Export) -> dict[str, ScoresSection]:
    found = (export.outcome.quality, export.verdict)
    return {one.split: _scored(one) for one in found if one is not None}


def _scored(quality: Quality) -> ScoresSection:
    return ScoresSection(
        sha256=quality.split_digest,
        samples=quality.samples,
        scores={name: _estimate(one) for name, one in quality.scores},
    )


def _references(export: Export) -> ReferencesSection | None:
    references = export.recorded.references
    if references is None:
        return None
    return ReferencesSection(
        samples=len(references),
        available=export.recorded.available,
        batch_size=references.batch_size,
        tolerance=TOLERANCES[export.outcome.deployment.precision],
    )


def _tensors(specs: tuple[TensorSpec, ...]) -> tuple[TensorSection, ...]:
    return tuple(TensorSection(name=one.name, dtype=one.dtype, shape=one.shape) for one in specs)


def _estimate(estimate: Estimate) -> EstimateSection:
    return EstimateSection(value=estimate.value, low=estimate.low, high=estimate.high)
