"""The contract of ``trials/backend.py``, held against every backend that ships."""

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from ort_gpu_fake import ort_on_gpu
from torch_fakes import fake_card, residual_program
from trt_fakes import ComputedTensorRt

from search_spaces.deployment import Deployment, Precision
from search_spaces.space import FakeSource
from trials.abilities import TellsSomeMemory
from trials.backend import Backend, Engine, EngineSpec, Scope, Tensors
from trials.backends.catalog import backend_named
from trials.backends.fake import FakeBackend, fake_model_bytes
from trials.backends.torch_backend import TorchBackend
from trials.backends.torch_card import Card
from trials.capabilities import engine_spec
from trials.devices.fake import FakeDevice
from trials.errors import FaultError, TrialError, UnsupportedError

BATCH = 4
COMPUTED, GPU = "TensorRT on a computed device", "TensorRT on a GPU"
TORCH, TORCH_ON_GPU = "torch", "torch on a computed card"
BACKENDS = ("ort", "ort on a GPU", "fake", TORCH, TORCH_ON_GPU, COMPUTED)
BUILDERS = (*BACKENDS, "tensorrt")
"""Those that are held to what the text says of building; a GPU is needed for the rest."""


@dataclass(frozen=True)
class Case:
    make: Callable[[], Backend]
    model: Path
    deployment: Deployment
    batches: tuple[Tensors, ...]
    meaningless: tuple[str, ...] = ()  # options that say nothing of this deployment
    tells_memory: bool = True

    @cached_property
    def backend(self) -> Backend:
        return self.make()

    def spec(self) -> EngineSpec:
        return engine_spec(
            self.deployment,
            backend_name=self.backend.name,
            model_digest="0" * 64,
            capabilities=self.backend.capabilities(),
            environment=self.backend.environment(),
        )


for_builders = pytest.mark.parametrize("case", BUILDERS, indirect=True)


def made(kind: str) -> Backend:
    targets = {"tensorrt": "SM89"}
    if kind == COMPUTED:
        return ComputedTensorRt(FakeDevice())
    if kind == TORCH_ON_GPU:
        return TorchBackend(partial(_itself, fake_card()))
    return backend_named("tensorrt" if kind == GPU else kind, target=targets.get(kind))


@pytest.fixture(params=[*BACKENDS, pytest.param(GPU, marks=pytest.mark.gpu)])
def case(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    residual_model: Path,
    images: Callable[[int], NDArray[np.float32]],
) -> Case:
    deployment = Deployment(variant="v", precision=Precision.FP32, batch_size=BATCH, concurrency=2)
    if request.param == "fake":
        return fake_case(tmp_path, deployment)
    stack = images(3 * BATCH).reshape(3, BATCH, 3, 8, 8)
    if request.param in (TORCH, TORCH_ON_GPU):
        pytest.importorskip("torch", reason="needs the extra trifront[torch]")
        batches = tuple({"inputs": batch} for batch in stack)
        return named_case(request.param, residual_program(tmp_path), deployment, batches)
    batches = tuple({"images": batch} for batch in stack)
    if request.param == "ort on a GPU":
        return Case(
            ort_on_gpu,
            residual_model,
            replace(deployment, options=(("provider", "cuda"),)),
            batches,
            meaningless=("threads", "spinning"),
            tells_memory=False,
        )
    if request.param == "tensorrt":
        pytest.importorskip("tensorrt_rtx", reason="builds without a GPU")
    return named_case(request.param, residual_model, deployment, batches)


def named_case(
    name: str, model: Path, deployment: Deployment, batches: tuple[Tensors, ...]
) -> Case:
    again = partial(made, name)
    if name == GPU:
        try:
            again().capabilities()
        except UnsupportedError as error:
            pytest.skip(str(error).partition(":")[0])
    return Case(again, model, deployment, batches)


def fake_case(folder: Path, deployment: Deployment) -> Case:
    model = folder / "fake.json"
    source = FakeSource(name="v", work_ms=0.1, accuracy=0.9, size_mb=10)
    model.write_bytes(fake_model_bytes(source))
    rows = np.stack([np.arange(3 * BATCH), np.arange(3 * BATCH) % 10], axis=1)
    split = rows.astype(np.float32).reshape(3, BATCH, 2)
    samples = tuple({"samples": batch} for batch in split)
    return Case(FakeBackend, model, deployment, samples)


def _itself(card: Card) -> Card:
    return card


@pytest.fixture
def plan(case: Case, tmp_path: Path) -> Path:
    folder = tmp_path / "engine"
    folder.mkdir()
    case.backend.build(case.model, case.spec(), folder / "plan")
    return folder / "plan"


@pytest.fixture
def engine(case: Case, plan: Path) -> Engine:
    return case.backend.load(plan, case.deployment)


@for_builders
def test_capabilities_and_environment_are_stable(case: Case) -> None:
    first = case.backend.capabilities(), case.backend.environment()
    again = case.make()
    second = again.capabilities(), again.environment()

    assert first == second
    assert case.backend.environment() == tuple(sorted(case.backend.environment()))


@for_builders
def test_every_precision_is_either_honoured_or_refused_with_a_reason(case: Case) -> None:
    capabilities = case.backend.capabilities()

    named = [*capabilities.precisions, *(each for each, _ in capabilities.refusals)]

    assert sorted(named) == sorted(Precision)


@for_builders
def test_defaults_of_options_are_values_that_the_option_takes(case: Case) -> None:
    for option in case.backend.capabilities().options:
        if option.choices:
            assert option.default in option.choices
        else:
            assert int(option.default) >= option.least


@for_builders
def test_build_refuses_a_precision_that_is_not_listed(case: Case, tmp_path: Path) -> None:
    refused, _ = case.backend.capabilities().refusals[0]
    spec = replace(case.spec(), precision=refused)

    with pytest.raises(UnsupportedError, match=refused):
        case.backend.build(case.model, spec, tmp_path / "plan")

    assert not (tmp_path / "plan").exists()


@for_builders
def test_build_refuses_a_file_that_is_no_model(case: Case, tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(b"\x00noise" * 20)

    with pytest.raises(TrialError):
        case.backend.build(tmp_path / "noise", case.spec(), tmp_path / "plan")


@for_builders
def test_build_writes_the_plan_and_nothing_else(case: Case, tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    before = sorted(tmp_path.rglob("*"))

    case.backend.build(case.model, case.spec(), tmp_path / "engine" / "plan")

    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "engine" / "plan"])


@for_builders
def test_build_leaves_the_model_as_it_was(case: Case, tmp_path: Path) -> None:
    before = case.model.read_bytes()

    case.backend.build(case.model, case.spec(), tmp_path / "plan")

    assert case.model.read_bytes() == before


@for_builders
def test_build_says_nothing_aloud_and_returns_what_the_builder_said(
    case: Case, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = case.backend.build(case.model, case.spec(), tmp_path / "plan")

    assert log.text.splitlines()
    assert capfd.readouterr() == ("", "")


def test_layers_end_in_the_outputs_of_the_engine(case: Case, plan: Path, engine: Engine) -> None:
    layers = case.backend.inspect(case.model, case.spec(), plan)

    made = {one.name: (one.dtype, one.shape) for layer in layers for one in layer.outputs}
    assert all(made[one.name] == (one.dtype, one.shape) for one in engine.outputs)


def test_layers_are_named_and_hold_the_parameters(case: Case, plan: Path) -> None:
    layers = case.backend.inspect(case.model, case.spec(), plan)

    assert all(layer.name and layer.operator and layer.outputs for layer in layers)
    assert sum(layer.parameter_bytes for layer in layers) > 1_000


def test_inspecting_again_says_the_same_and_changes_nothing(case: Case, plan: Path) -> None:
    before = case.model.read_bytes(), plan.read_bytes()

    first, again = (case.backend.inspect(case.model, case.spec(), plan) for _ in range(2))

    assert first == again
    assert before == (case.model.read_bytes(), plan.read_bytes())
    assert list(plan.parent.iterdir()) == [plan]


def test_inspecting_what_is_no_plan_is_a_fault(case: Case, tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(b"\x00noise" * 20)

    for path in (tmp_path / "noise", tmp_path / "gone"):
        with pytest.raises(FaultError):
            case.backend.inspect(case.model, case.spec(), path)


def test_infer_returns_the_promised_outputs(case: Case, engine: Engine) -> None:
    outputs = engine.infer(case.batches[0])

    assert [spec.name for spec in engine.inputs] == list(case.batches[0])
    assert [spec.name for spec in engine.outputs] == list(outputs)
    for spec in engine.outputs:
        array = outputs[spec.name]
        assert array.dtype.name == spec.dtype
        assert array.shape == tuple(dim or BATCH for dim in spec.shape)


def test_infer_returns_fresh_arrays(case: Case, engine: Engine) -> None:
    name = engine.outputs[0].name
    first = engine.infer(case.batches[0])[name]
    kept = first.copy()

    engine.infer(case.batches[1])

    assert np.array_equal(first, kept)


def test_infer_may_be_called_from_many_threads(case: Case, engine: Engine) -> None:
    name = engine.outputs[0].name
    alone = [engine.infer(batch)[name] for batch in case.batches]

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda i: engine.infer(case.batches[i % 3])[name], range(60)))

    assert all(np.array_equal(each, alone[i % 3]) for i, each in enumerate(together))


def test_requests_of_a_lane_return_nothing(case: Case, engine: Engine) -> None:
    with engine.lane(case.batches) as requests:
        calls: list[Callable[[], object]] = [*requests, *requests]
        results = [call() for call in calls]

    assert results == [None] * 6


def test_lanes_in_two_threads_do_not_disturb_one_another(case: Case, engine: Engine) -> None:
    def work(_: int) -> int:
        done = 0
        with engine.lane(case.batches) as requests:
            for _ in range(20):
                for request in requests:
                    request()
                    done += 1
        return done

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(work, range(2)))

    assert done == [60, 60]


def test_lane_outlives_the_arrays_that_it_was_entered_with(case: Case, engine: Engine) -> None:
    batches = [{name: array.copy() for name, array in batch.items()} for batch in case.batches]
    with engine.lane(batches) as requests:
        for batch in batches:
            for array in batch.values():
                array.fill(np.nan)
        del batches
        gc.collect()
        for request in requests:
            request()


def test_lane_is_left_cleanly_when_its_body_raises(case: Case, engine: Engine) -> None:
    with pytest.raises(KeyError), engine.lane(case.batches):
        raise KeyError("a worker broke")

    with engine.lane(case.batches) as requests:
        requests[0]()


def test_lane_of_no_batch_has_no_request(engine: Engine) -> None:
    with engine.lane([]) as requests:
        assert len(requests) == 0


def test_engine_can_be_closed_and_loaded_again(case: Case, plan: Path) -> None:
    first = case.backend.load(plan, case.deployment)
    answer = first.infer(case.batches[0])
    first.close()

    again = case.backend.load(plan, case.deployment)

    for name, array in again.infer(case.batches[0]).items():
        assert np.array_equal(array, answer[name])


def test_building_twice_gives_the_same_answers(case: Case, plan: Path, tmp_path: Path) -> None:
    case.backend.build(case.model, case.spec(), tmp_path / "again")

    engines = [case.backend.load(each, case.deployment) for each in (plan, tmp_path / "again")]

    first, second = (engine.infer(case.batches[0]) for engine in engines)
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_plan_is_a_fault(case: Case, plan: Path, share: float) -> None:
    content = plan.read_bytes()
    plan.write_bytes(content[: int(len(content) * share)])

    with pytest.raises(FaultError):
        case.backend.load(plan, case.deployment)


def test_missing_plan_is_a_fault(case: Case, tmp_path: Path) -> None:
    with pytest.raises(FaultError):
        case.backend.load(tmp_path / "gone", case.deployment)


def test_loading_takes_every_serving_option(case: Case, plan: Path) -> None:
    for option in case.backend.capabilities().options:
        if option.scope is Scope.SERVING:
            for value in option.honoured or (1, 2):
                options = (*case.deployment.options, (option.name, value))
                deployment = replace(case.deployment, options=tuple(sorted(options)))
                if option.name in case.meaningless and value != option.default:
                    with pytest.raises(UnsupportedError, match=option.name):
                        case.backend.load(plan, deployment)
                    continue
                engine = case.backend.load(plan, deployment)
                assert engine.infer(case.batches[0])
                engine.close()


def test_memory_grows_with_the_requests_in_flight(case: Case, plan: Path) -> None:
    def needed_bytes(concurrency: int) -> int:
        deployment = replace(case.deployment, concurrency=concurrency)
        told = case.backend.peak_memory(plan, deployment, case.batches[0], deadline_s=60)
        assert told is not None
        return told

    if not case.tells_memory:
        pytest.skip("memory of a GPU is not told")
    one, four = needed_bytes(1), needed_bytes(4)

    batch_bytes = sum(array.nbytes for array in case.batches[0].values())
    assert one > 0
    assert four - one >= 3 * batch_bytes


def test_memory_is_the_same_whatever_was_done_before(case: Case, plan: Path) -> None:
    """To 5 % and half a megabyte is promised; alone on a machine it is to some pages."""
    first = case.backend.peak_memory(plan, case.deployment, case.batches[0], deadline_s=60)
    engines = [case.backend.load(plan, case.deployment) for _ in range(3)]
    for engine in engines:
        engine.infer(case.batches[0])
        engine.close()

    again = case.backend.peak_memory(plan, case.deployment, case.batches[1], deadline_s=60)

    if not case.tells_memory:
        assert first is again is None
        assert isinstance(case.backend, TellsSomeMemory)
        assert case.backend.why_no_peak_memory(case.deployment)
        return
    assert first is not None
    assert again == pytest.approx(first, abs=65_536)
