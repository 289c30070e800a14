"""A whole trial with TensorRT on a computed device: from the shipped space to a record."""

from dataclasses import replace
from pathlib import Path

import pytest
from trt_fakes import Behaviour, ComputedTensorRt

from search_spaces.catalog import space_path
from search_spaces.files import space_from_yaml
from search_spaces.space import MeasuringPlan, SearchSpace
from trials.bench import Bench
from trials.data.dataset import dataset_from_task
from trials.devices.fake import FakeDevice
from trials.outcome import Completed
from trials.run import run_trial
from trials.store.store import Store

PLAN = MeasuringPlan(max_s=1.0, block_s=0.1, warmup_s=0.05, block_requests=20)


@pytest.fixture
def space() -> SearchSpace:
    found = space_from_yaml(space_path("resnet-tensorrt"))
    return replace(found, variants=found.variants[:1], plan=PLAN)


def test_trial_ends_with_accuracy_speed_memory_and_how_it_was_served(
    space: SearchSpace, tmp_path: Path
) -> None:
    device = FakeDevice()
    backend = ComputedTensorRt(device, Behaviour(kernel_s=1e-3))
    dataset = dataset_from_task(space.task, source=space.source)
    bench = Bench(space, Store(tmp_path, limit_bytes=10**9), backend=backend, dataset=dataset)
    point = next(
        one for one in space.deployments() if one.batch_size == 64 and one.concurrency == 2
    )

    outcome = run_trial(point, bench, on_phase=lambda _: None)

    assert isinstance(outcome, Completed), outcome
    assert outcome.quality is not None
    assert outcome.metric("accuracy").value > 0.9  # as everywhere else
    assert outcome.on_device is not None
    assert outcome.on_device.transfers == "include"
    assert outcome.on_device.uses_graphs
    assert outcome.on_device.timing is not None
    assert outcome.on_device.timing.gpu_p50_s >= 1e-3
    assert outcome.peak_memory_bytes is not None
    assert all(block.device is not None for block in outcome.blocks)
    device.close()  # nothing of scoring, driving or inspecting is left
