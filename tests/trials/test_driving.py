"""One way to drive them all: the load that a deployment names, and what no clock can see."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from search_spaces.arrivals import ConstantArrivals
from search_spaces.deployment import Deployment, OpenLoad, Precision
from search_spaces.space import MeasuringPlan
from trials.backend import EngineSpec, Tensors
from trials.backends.ort import OrtBackend
from trials.backends.ort_engine import OrtEngine
from trials.errors import UnsupportedError
from trials.measuring.driving import drive_deployment, refuse_unseen

PLAN = MeasuringPlan(max_s=1.0, block_s=0.05, warmup_s=0.05, arrivals=ConstantArrivals())
Images = Callable[[int], NDArray[np.float32]]


def point(*, batch: int = 1, lanes: int = 1, rate: float = 200, delay_us: int = 0) -> Deployment:
    return Deployment(
        variant="v",
        precision=Precision.FP32,
        batch_size=batch,
        concurrency=lanes,
        load=OpenLoad(rate_rps=rate, max_queue_delay_us=delay_us),
    )


def loaded(model: Path, deployment: Deployment) -> OrtEngine:
    backend = OrtBackend()
    spec = EngineSpec(
        backend="ort",
        model_digest="0" * 64,
        precision=Precision.FP32,
        batch_size=None,
        options=(),
        environment=backend.environment(),
    )
    backend.build(model, spec, model.with_suffix(".plan"))
    return backend.load(model.with_suffix(".plan"), deployment)


def batches_of(images: Images, size: int) -> Sequence[Tensors]:
    return [{"images": images(size)} for _ in range(4)]


def test_real_engine_serves_requests_that_come_on_their_own(
    residual_model: Path, images: Images
) -> None:
    deployment = point(batch=4, lanes=2, delay_us=12_000)
    engine = loaded(residual_model, deployment)

    found = drive_deployment(engine, batches_of(images, 4), deployment=deployment, plan=PLAN)

    assert found.queueing is not None
    # one every 5 ms and a wait of 12 ms: three to a batch, as far as the machine lets us
    assert 2 <= found.queueing.batch_mean <= 4
    assert found.queueing.padded_share == 0
    assert found.speed.latency_p50_s.value >= 0.002


def test_real_engine_of_a_fixed_batch_serves_single_requests(
    fixed_model: Path, images: Images
) -> None:
    deployment = point()
    engine = loaded(fixed_model, deployment)

    found = drive_deployment(engine, batches_of(images, 1), deployment=deployment, plan=PLAN)

    assert found.queueing is not None
    assert found.queueing.batch_mean == 1


@pytest.mark.parametrize("step_s", [1e-7, 1e-3])
def test_latency_of_a_few_steps_of_the_clock_is_refused(step_s: float) -> None:
    with pytest.raises(UnsupportedError, match="too fast to be timed; raise batch_size"):
        refuse_unseen(9 * step_s, clock_step_s=step_s)


def test_latency_of_many_steps_of_the_clock_is_believed() -> None:
    refuse_unseen(2e-6, clock_step_s=5e-8)
