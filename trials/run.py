"""Run ONE deployment from model file to numbers: prepare, build, score, drive.

The order has a reason: what is known of its answers decides how long it is worth driving, because
a deployment that misses a bound of accuracy needs no narrow intervals. It is scored in an engine
of its own, closed before the one that is driven is loaded, so that the cold call is cold. Its
memory is looked at last, when it is closed here, because that may load it again.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Literal

from search_spaces.deployment import Deployment
from search_spaces.space import MeasuringPlan, SearchSpace
from trials.abilities import StatesTransfers
from trials.backend import Engine, EngineSpec, Tensors
from trials.bench import Bench, OnProgress, Prepared, ignore_progress
from trials.capabilities import wanted_metrics
from trials.data.dataset import Split, request_batches
from trials.data.feeding import feeds
from trials.errors import (
    AbandonedError,
    DataError,
    DeadlineError,
    FaultError,
    InfeasibleError,
    MemoryLimitError,
    OutputError,
    SaturatedError,
    WorkerDiedError,
)
from trials.machine.environment import environment
from trials.measurement import Costs, EngineRecord, OnDevice, Quality
from trials.measuring.driving import drive_deployment
from trials.measuring.load import Driven
from trials.measuring.stopping import Question, misses
from trials.outcome import ENERGY, MEMORY, Completed, Failed, Infeasible, Outcome
from trials.scoring.quality_file import json_from_quality, quality_from_json
from trials.scoring.scoring import RECIPE, score_engine

OnPhase = Callable[[str], None]

_SCORING_BATCH = 64  # samples a call where the engine takes any batch size
_SAMPLES_IN_FLIGHT = 512  # distinct samples that requests cycle over, as batches allow
_MIN_BATCHES = 4
_MAX_BATCHES = 64
_UNTOLD = {ENERGY: "the energy counter of the GPU", MEMORY: "the backend"}
_REQUEST_BYTES = 256_000_000  # of inputs that all workers hold together, as the least allows


def run_trial(
    deployment: Deployment,
    bench: Bench,
    *,
    on_phase: OnPhase,
    on_progress: OnProgress = ignore_progress,
) -> Outcome:
    """Try one deployment.

    Args:
        deployment: A point of the bench's space.
        bench: The opened space.
        on_phase: Told the name of each step as it begins.
        on_progress: Told how far a build is, as a ``Workshop`` is.

    Returns:
        What came of it; a fact about the deployment is Infeasible, a fault of tonight is Failed.
        Any other exception is a bug or unusable input and escapes.
    """
    try:
        on_phase("prepare")
        prepared = bench.prepare(deployment, on_progress=on_progress)
        return _completed(deployment, bench, prepared, on_phase)
    except InfeasibleError as error:
        return Infeasible(
            deployment=deployment,
            kind=_kind_of_infeasible(error),
            reason=str(error),
            environment=environment(),
        )
    except AbandonedError:  # whoever broke it off knows why
        raise
    except FaultError as error:
        return Failed(
            deployment=deployment,
            kind=_kind_of_fault(error),
            reason=str(error),
            environment=environment(),
        )


def measure_speed(
    deployment: Deployment, bench: Bench, *, plan: MeasuringPlan | None = None
) -> Driven:
    """Measure a deployment's speed, and nothing else of it.

    Args:
        deployment: A point of the bench's space, or beside one.
        bench: The opened space.
        plan: How long and how well; None for the space's own.

    Raises:
        TrialError: The engine cannot be built, loaded or run, or cannot keep up with its load.
    """
    prepared = bench.prepare(deployment)
    batches = _batches(deployment, bench)
    engine = bench.backend.load(prepared.engine.path, deployment)
    try:
        requests = [feeds(batch, engine.inputs, source=bench.space.source) for batch in batches]
        return drive_deployment(
            engine, requests, deployment=deployment, plan=plan or bench.space.plan
        )
    finally:
        engine.close()


def score_report(deployment: Deployment, bench: Bench) -> Quality:
    """Score a deployment's engine on the report split, which no search has seen.

    Raises:
        TrialError: The engine cannot be built, loaded or scored.
    """
    prepared = bench.prepare(deployment)
    return _quality(deployment, prepared, bench, bench.dataset.report)[0]


def _completed(
    deployment: Deployment, bench: Bench, prepared: Prepared, on_phase: OnPhase
) -> Completed:
    on_phase("score")
    quality, score_s = _quality(deployment, prepared, bench, bench.dataset.search)
    on_phase("load")
    batches = _batches(deployment, bench)
    started = perf_counter()
    engine = bench.backend.load(prepared.engine.path, deployment)
    try:
        load_s = perf_counter() - started
        on_phase("measure")
        requests = [feeds(batch, engine.inputs, source=bench.space.source) for batch in batches]
        driven = drive_deployment(
            engine,
            requests,
            deployment=deployment,
            plan=bench.space.plan,
            question=_question(quality, bench.space),
        )
        measure_s = perf_counter() - started - load_s
    finally:
        engine.close()
    on_phase("memory")
    peak_memory_bytes = bench.backend.peak_memory(
        prepared.engine.path, deployment, requests[0], deadline_s=bench.space.plan.deadline_s
    )
    costs = Costs(
        convert_s=prepared.convert_s,
        build_s=prepared.build_s,
        score_s=score_s,
        load_s=load_s,
        cold_call_s=driven.cold_call_s,
        measure_s=measure_s,
    )
    completed = Completed(
        deployment=deployment,
        engine=_record(prepared),
        speed=driven.speed,
        quality=quality,
        peak_memory_bytes=peak_memory_bytes,
        costs=costs,
        environment=environment(extra=prepared.spec.environment),
        flags=driven.flags,
        blocks=driven.blocks,
        queueing=driven.queueing,
        quiet=driven.quiet,
        gpu=driven.gpu,
        on_device=_on_device(engine, driven),
    )
    _refuse_unscored(completed, bench.space)
    return completed


def _on_device(engine: Engine, driven: Driven) -> OnDevice | None:
    if not isinstance(engine, StatesTransfers) or engine.transfers is None:
        return None
    return OnDevice(
        transfers=engine.transfers, uses_graphs=engine.uses_graphs, timing=driven.timing
    )


def _batches(deployment: Deployment, bench: Bench) -> list[Tensors]:
    """Draw the batches that requests cycle over; fewer where they are large."""
    split, preprocessing = bench.dataset.search, bench.dataset.preprocessing
    size = deployment.batch_size
    held_bytes = _bytes_of(split.samples([0], preprocessing)) * size * deployment.concurrency
    count = min(_MAX_BATCHES, _SAMPLES_IN_FLIGHT // size, _REQUEST_BYTES // held_bytes)
    return request_batches(
        split,
        batch_size=size,
        count=max(_MIN_BATCHES, count),
        preprocessing=preprocessing,
        seed=bench.space.plan.seed,
    )


def _bytes_of(tensors: Tensors) -> int:
    return sum(array.nbytes for array in tensors.values())


def _question(quality: Quality, space: SearchSpace) -> Question:
    """Ask whether the deployment may be chosen at all."""
    scores = dict(quality.scores)
    scored = [bound for bound in space.constraints if bound.metric.name in scores]
    return Question(
        bounds=space.constraints,
        is_about_energy=ENERGY in wanted_metrics(space),
        is_out=any(misses(scores[bound.metric.name], bound) for bound in scored),
    )


def _quality(
    deployment: Deployment, prepared: Prepared, bench: Bench, split: Split
) -> tuple[Quality, float]:
    """Return an engine's quality on a split and the seconds it took; 0.0 from the store.

    Accuracy belongs to the engine, not to the deployment: it is scored once per engine.
    """
    task = bench.space.task
    parts: dict[str, object] = {
        "engine": asdict(prepared.spec),
        "split": split.digest,
        "task": [task.kind.value, task.metric, bench.metric_code],
        "preprocessing": asdict(task.preprocessing),
        "recipe": RECIPE,
    }

    def make(out: Path) -> None:
        engine = bench.backend.load(prepared.engine.path, deployment)
        try:
            quality = score_engine(
                engine.infer,
                engine.inputs,
                split,
                task=task,
                preprocessing=bench.dataset.preprocessing,
                batch_size=_scoring_batch(prepared.spec, engine),
                source=bench.space.source,
            )
        finally:
            engine.close()
        out.write_text(json_from_quality(quality), encoding="utf-8")

    scored = bench.store.obtain("quality", parts, make)
    quality = quality_from_json(scored.entry.path.read_text(encoding="utf-8"))
    return replace(quality, split=split.name), scored.seconds if scored.made else 0.0


def _scoring_batch(spec: EngineSpec, engine: Engine) -> int:
    """Return the only batch size that the engine takes, or a large one."""
    if spec.batch_size is None and spec.largest_batch is not None:
        return min(spec.largest_batch, _SCORING_BATCH)
    return spec.batch_size or engine.inputs[0].shape[0] or _SCORING_BATCH


def _refuse_unscored(completed: Completed, space: SearchSpace) -> None:
    """See that there is a number for all that is wanted; a model of few classes has no top five.

    Raises:
        FaultError: Energy or memory was promised (``refuse_unmetered``), and not told this time.
        DataError: There is not.
    """
    known = completed.metrics()
    for name in wanted_metrics(space):
        if name in _UNTOLD and name not in known:
            raise FaultError(
                f"{_UNTOLD[name]} told no {name} of '{completed.deployment}'; if it stays so, "
                f"take {name} out of {space.source}"
            )
        if name not in known:
            raise DataError(
                f"{space.source}: {name} says nothing about variant "
                f"'{completed.deployment.variant}', which has too few classes; take it out of "
                "objectives and constraints"
            )


def _record(prepared: Prepared) -> EngineRecord:
    return EngineRecord(
        variant_digest=prepared.variant_digest,
        model_digest=prepared.model.sha256,
        engine_digest=prepared.engine.sha256,
        engine_key=prepared.engine.key,
        size_bytes=prepared.engine.size_bytes,
    )


def _kind_of_infeasible(
    error: InfeasibleError,
) -> Literal["unsupported", "memory", "output", "saturated"]:
    if isinstance(error, MemoryLimitError):
        return "memory"
    if isinstance(error, SaturatedError):
        return "saturated"
    return "output" if isinstance(error, OutputError) else "unsupported"


def _kind_of_fault(error: FaultError) -> Literal["crash", "deadline", "fault"]:
    if isinstance(error, DeadlineError):
        return "deadline"
    return "crash" if isinstance(error, WorkerDiedError) else "fault"
