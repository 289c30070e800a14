"""Drive an engine as its deployment says: a closed or an open loop, spent or computed."""

from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from time import perf_counter

from search_spaces.deployment import Deployment, OpenLoad
from search_spaces.space import MeasuringPlan
from trials.abilities import ComputesBlocks, ComputesServices, QueuesRequests
from trials.backend import Engine, Tensors
from trials.errors import UnsupportedError
from trials.measuring.batcher import Batcher
from trials.measuring.computed_open_loop import ComputedOpenLoop
from trials.measuring.gpu_watch import watched
from trials.measuring.ladder import Ladder, ladder_over
from trials.measuring.load import Driven, drive
from trials.measuring.open_drive import Serving, drive_open
from trials.measuring.open_loop import OpenLoop
from trials.measuring.stopping import Question
from trials.measuring.surroundings import Surroundings

_NS_PER_US = 1_000
_READINGS = 1_000
_LEAST_STEPS = 10  # of the clock in a latency; a tenth of it is then the clock's doing


def drive_deployment(
    engine: Engine,
    batches: Sequence[Tensors],
    *,
    deployment: Deployment,
    plan: MeasuringPlan,
    question: Question | None = None,
) -> Driven:
    """Measure an engine under its deployment's load.

    Args:
        engine: A loaded engine that nobody else uses meanwhile.
        batches: Inputs of the deployment's batch size, at least one.
        deployment: How it is served and loaded.
        plan: How long and how well.
        question: What a search wants to know, which may be known early; None for the numbers. An
            open loop is measured to the plan's end all the same.

    Raises:
        UnsupportedError: The engine is faster than the clock can see.
        TrialError: As for :func:`trials.measuring.load.drive` and
            :func:`trials.measuring.open_drive.drive_open`.
    """
    if deployment.load is not None:
        driven = _open(engine, batches, deployment, load=deployment.load, plan=plan)
    else:
        driven = drive(
            engine,
            batches,
            concurrency=deployment.concurrency,
            batch_size=deployment.batch_size,
            plan=plan,
            question=question,
        )
    if not isinstance(engine, ComputesServices | ComputesBlocks):
        refuse_unseen(driven.speed.latency_p50_s.value, clock_step_s=_clock_step_s())
    return driven


def refuse_unseen(latency_s: float, *, clock_step_s: float) -> None:
    """See that a latency is long enough to be timed.

    Args:
        latency_s: The median, seconds.
        clock_step_s: Between two readings that follow each other, seconds.

    Raises:
        UnsupportedError: It is not.
    """
    if latency_s < _LEAST_STEPS * clock_step_s:
        raise UnsupportedError(
            f"a request takes {latency_s * 1e6:.2f} us (median), and two readings of the clock "
            f"are {clock_step_s * 1e6:.2f} us apart: too fast to be timed; raise batch_size"
        )


def open_ladder(engine: Engine, batches: Sequence[Tensors], deployment: Deployment) -> Ladder:
    """Say which batch sizes each lane holds bound under an open load.

    Args:
        engine: What binds them.
        batches: Inputs of the deployment's batch size, at least one.
        deployment: How it is served.
    """
    return ladder_over(
        batches,
        size=deployment.batch_size,
        lanes=deployment.concurrency,
        is_fixed=_is_fixed(engine),
        is_costly=isinstance(engine, QueuesRequests),
    )


def _open(
    engine: Engine,
    batches: Sequence[Tensors],
    deployment: Deployment,
    *,
    load: OpenLoad,
    plan: MeasuringPlan,
) -> Driven:
    lanes, largest = deployment.concurrency, deployment.batch_size
    serving = Serving(load=load, lanes=lanes, largest=largest)
    batcher = Batcher(
        largest=largest,
        max_delay_ns=load.max_queue_delay_us * _NS_PER_US,
        preferred=plan.preferred_batch_sizes,
    )
    if isinstance(engine, ComputesServices):
        return drive_open(ComputedOpenLoop(engine, lanes=lanes, batcher=batcher), serving, plan)
    with (
        watched(engine) as gpu,
        OpenLoop(
            engine, open_ladder(engine, batches, deployment), lanes=lanes, batcher=batcher
        ) as loop,
    ):
        return drive_open(loop, serving, plan, around=Surroundings(gpu=gpu))


def _is_fixed(engine: Engine) -> bool:
    """Tell whether the engine takes batches of one size only; smaller ones are then filled up."""
    return any(spec.shape[:1] != (None,) for spec in engine.inputs)


def _clock_step_s() -> float:
    """Return how far apart two readings of the clock are that follow each other, seconds."""
    readings = [perf_counter() for _ in range(_READINGS)]
    return median(after - before for before, after in pairwise(readings))
