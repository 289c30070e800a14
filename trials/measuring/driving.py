"""Drive an engine as its deployment says: a closed or an open loop, spent or computed."""

from collections.abc import Sequence

from search_spaces.deployment import Deployment
from search_spaces.space import MeasuringPlan
from trials.backend import ComputesServices, Engine, Tensors
from trials.measuring.batcher import Batcher
from trials.measuring.computed_open_loop import ComputedOpenLoop
from trials.measuring.ladder import ladder_over
from trials.measuring.load import Driven, drive
from trials.measuring.open_drive import Serving, drive_open
from trials.measuring.open_loop import OpenLoop

_NS_PER_US = 1_000


def drive_deployment(
    engine: Engine, batches: Sequence[Tensors], *, deployment: Deployment, plan: MeasuringPlan
) -> Driven:
    """Measure an engine under its deployment's load.

    Args:
        engine: A loaded engine that nobody else uses meanwhile.
        batches: Inputs of the deployment's batch size, at least one.
        deployment: How it is served and loaded.
        plan: How long and how well.

    Raises:
        TrialError: As for :func:`trials.measuring.load.drive` and
            :func:`trials.measuring.open_drive.drive_open`.
    """
    if deployment.load is None:
        return drive(
            engine,
            batches,
            concurrency=deployment.concurrency,
            batch_size=deployment.batch_size,
            plan=plan,
        )
    lanes, largest = deployment.concurrency, deployment.batch_size
    serving = Serving(load=deployment.load, lanes=lanes, largest=largest)
    batcher = Batcher(
        largest=largest,
        max_delay_ns=deployment.load.max_queue_delay_us * _NS_PER_US,
        preferred=plan.preferred_batch_sizes,
    )
    if isinstance(engine, ComputesServices):
        return drive_open(ComputedOpenLoop(engine, lanes=lanes, batcher=batcher), serving, plan)
    ladder = ladder_over(batches, size=largest, lanes=lanes, is_fixed=_is_fixed(engine))
    with OpenLoop(engine, ladder, lanes=lanes, batcher=batcher) as loop:
        return drive_open(loop, serving, plan)


def _is_fixed(engine: Engine) -> bool:
    """Tell whether the engine takes batches of one size only; smaller ones are then filled up."""
    return any(spec.shape[:1] != (None,) for spec in engine.inputs)
