"""TensorRT engines, built for real and without a GPU where TensorRT for RTX is installed."""

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from search_spaces.deployment import Deployment, Precision
from trials.backend import Backend, EngineSpec
from trials.backends.catalog import backend_named
from trials.backends.trt import TensorRtBackend
from trials.backends.trt_build import build_failure
from trials.backends.trt_library import Library, Said, library
from trials.devices.fake import FakeDevice
from trials.errors import FaultError, MemoryLimitError, UnsupportedError
from trials.models.precision import convert

pytestmark = pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed"
)

BATCH = 4


def spec_for(backend: Backend, precision: Precision, batch_size: int = BATCH) -> EngineSpec:
    return EngineSpec(
        backend=backend.name,
        model_digest="0" * 64,
        precision=precision,
        batch_size=batch_size,
        options=(),
        environment=backend.environment(),
    )


@pytest.fixture
def backend() -> Backend:
    return backend_named("tensorrt", target="SM89")


@pytest.fixture(params=[Precision.FP32, Precision.FP16, Precision.INT8])
def typed(
    request: pytest.FixtureRequest,
    residual_model: Path,
    images: Callable[[int], NDArray[np.float32]],
    tmp_path: Path,
) -> tuple[Path, Precision]:
    model = tmp_path / "typed.onnx"
    convert(residual_model, request.param, model, calibration=[{"images": images(8)}])
    return model, request.param


def test_every_precision_that_is_honoured_builds(
    backend: Backend, typed: tuple[Path, Precision], tmp_path: Path
) -> None:
    (model, precision), plan = typed, tmp_path / "plan"

    log = backend.build(model, spec_for(backend, precision), plan)

    assert precision in backend.capabilities().precisions
    assert plan.stat().st_size > 1000
    assert f"{BATCH},3,8,8" in log.text.replace(" ", "")


@pytest.mark.parametrize("target", ["SM86", "SM89", "SM120"])
def test_targets_get_engines_of_their_own(
    residual_model: Path, tmp_path: Path, target: str
) -> None:
    backend = backend_named("tensorrt", target=target)

    backend.build(residual_model, spec_for(backend, Precision.FP32), tmp_path / "plan")

    assert ("compute_capability", target) in backend.environment()
    other = backend_named("tensorrt", target="SM80")
    assert spec_for(backend, Precision.FP32) != spec_for(other, Precision.FP32)


def test_batch_size_is_in_the_engine(
    backend: Backend, residual_model: Path, tmp_path: Path
) -> None:
    one, many = tmp_path / "one", tmp_path / "many"

    backend.build(residual_model, spec_for(backend, Precision.FP32, 1), one)
    backend.build(residual_model, spec_for(backend, Precision.FP32, 64), many)

    assert backend.capabilities().batch_in_engine
    assert one.read_bytes() != many.read_bytes()


def test_node_that_tensorrt_does_not_have_is_named(backend: Backend, tmp_path: Path) -> None:
    node = helper.make_node("NonZero", ["x"], ["y"], name="the_odd_one")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])
    y = helper.make_tensor_value_info("y", TensorProto.INT64, [2, "k"])
    model = helper.make_model(helper.make_graph([node], "g", [x], [y]))
    onnx.save(model, tmp_path / "odd.onnx")

    with pytest.raises(UnsupportedError, match=r"'the_odd_one' \(NonZero\)"):
        backend.build(tmp_path / "odd.onnx", spec_for(backend, Precision.FP32), tmp_path / "plan")

    assert not (tmp_path / "plan").exists()


def test_model_with_other_free_dimensions_is_refused(backend: Backend, tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "length"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "length"])
    onnx.save(helper.make_model(helper.make_graph([node], "g", [x], [y])), tmp_path / "free.onnx")

    with pytest.raises(UnsupportedError, match="'x' has free dimensions besides the batch"):
        backend.build(tmp_path / "free.onnx", spec_for(backend, Precision.FP32), tmp_path / "plan")


def test_file_that_is_no_model_is_refused(backend: Backend, tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"no model at all")

    with pytest.raises(UnsupportedError, match=r"cannot read no\.onnx"):
        backend.build(tmp_path / "no.onnx", spec_for(backend, Precision.FP32), tmp_path / "plan")


def test_device_without_fp32_products_says_so() -> None:
    refusals = dict(backend_named("tensorrt", target="SM75").capabilities().refusals)

    assert "compute capability 8.0" in refusals[Precision.FP32]


def test_target_that_rtx_does_not_know_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"does not build for SM90; use SM75, SM80"):
        backend_named("tensorrt", target="SM90").capabilities()


def test_nothing_is_measured_without_a_gpu(tmp_path: Path) -> None:
    deployment = Deployment(variant="v", precision=Precision.FP32, batch_size=1, concurrency=1)

    with pytest.raises(UnsupportedError, match="no NVIDIA GPU: engines can be built"):
        backend_named("tensorrt").capabilities()
    with pytest.raises(UnsupportedError, match="no NVIDIA GPU: engines can be built"):
        backend_named("tensorrt", target="SM89").load(tmp_path / "plan", deployment)


def test_builder_that_runs_out_of_memory_is_told_from_one_that_breaks() -> None:
    full, odd = Said(), Said()
    full.errors.append("Requested amount of GPU memory: OutOfMemory (no details)")
    odd.errors.append("the compiler lost its way")

    assert isinstance(build_failure(full, 8), MemoryLimitError)
    assert "lost its way" in str(build_failure(odd, 8))


def test_library_names_its_targets_oldest_first() -> None:
    found: Library = library()

    assert found.targets()[0] == "SM75"
    assert replace(found, is_rtx=False).targets() == ()


def test_engine_is_built_for_the_gpu_of_this_machine_where_none_is_named() -> None:
    backend = TensorRtBackend(find_device=FakeDevice)

    facts = dict(backend.environment())

    assert facts["compute_capability"] == "SM89"
    assert facts["device"] == "computed device"
    assert Precision.INT8 in backend.capabilities().precisions


def test_plan_without_a_driver_is_refused_in_one_line(
    backend: Backend, residual_model: Path, tmp_path: Path
) -> None:
    """The library refuses for want of a driver, and the plan is not said to be damaged."""
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("there is a driver")
    backend.build(residual_model, spec_for(backend, Precision.FP32), tmp_path / "plan")
    here = TensorRtBackend(find_device=FakeDevice)
    point = Deployment(variant="v", precision=Precision.FP32, batch_size=BATCH, concurrency=1)

    with pytest.raises(FaultError) as caught:
        here.load(tmp_path / "plan", point)

    assert len(str(caught.value).splitlines()) == 1
    assert "needs a newer NVIDIA driver" in str(caught.value)
