"""One way to drive them all: the load that a deployment names, and what no clock can see."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from search_spaces.arrivals import ConstantArrivals
from search_spaces.deployment import Deployment, OpenLoad, Precision
from search_spaces.space import MeasuringPlan
from trials.backend import EngineSpec
from trials.backends.fake import FakeEngine
from trials.backends.fake_model import FakeModel
from trials.backends.ort import OrtBackend
from trials.backends.ort_engine import OrtEngine
from trials.errors import UnsupportedError
from trials.measuring.batcher import Batcher
from trials.measuring.driving import drive_deployment, refuse_unseen
from trials.measuring.ladder import ladder_over
from trials.measuring.open_loop import OpenLoop
from trials.measuring.served import Timetable

PLAN = MeasuringPlan(max_s=1.0, block_s=0.05, warmup_s=0.05, arrivals=ConstantArrivals())
POINT = Deployment(variant="v", precision=Precision.FP32, batch_size=4, concurrency=1)
Images = Callable[[int], NDArray[np.float32]]


def loaded(model: Path) -> OrtEngine:
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
    return backend.load(model.with_suffix(".plan"), POINT)


@pytest.mark.parametrize("lanes", [1, 2])
def test_real_engine_serves_batches_of_every_size(
    residual_model: Path, images: Images, lanes: int
) -> None:
    engine = loaded(residual_model)
    ladder = ladder_over([{"images": images(4)}] * 2, size=4, lanes=lanes, is_fixed=False)
    batcher = Batcher(largest=4, max_delay_ns=0)
    due_s = np.repeat([0.0, 0.02, 0.04, 0.06], [4, 3, 2, 1])

    with OpenLoop(engine, ladder, lanes=lanes, batcher=batcher) as loop:
        loop.warm(loop.now_s() + 30)
        served = loop.serve(Timetable(due_s=due_s, counted=due_s.size, patience_s=60))

    assert ladder.sizes == (1, 2, 3, 4)
    assert served.answered == due_s.size
    np.testing.assert_array_equal(served.filled, served.sizes)


def test_fake_engine_is_measured_under_its_open_load() -> None:
    deployment = replace(POINT, load=OpenLoad(rate_rps=200, max_queue_delay_us=12_000))
    model = FakeModel(work_s=1e-3, accuracy=0.9, size_mb=40, seed=1)

    found = drive_deployment(
        FakeEngine(model, deployment, fault=None), [], deployment=deployment, plan=PLAN
    )

    assert found.queueing is not None
    # one every 5 ms and a wait of 12 ms: three to a batch
    assert found.queueing.batch_mean == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("step_s", [1e-7, 1e-3])
def test_latency_of_a_few_steps_of_the_clock_is_refused(step_s: float) -> None:
    with pytest.raises(UnsupportedError, match="too fast to be timed; raise batch_size"):
        refuse_unseen(9 * step_s, clock_step_s=step_s)


def test_latency_of_many_steps_of_the_clock_is_believed() -> None:
    refuse_unseen(2e-6, clock_step_s=5e-8)
