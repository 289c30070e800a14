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
from trials.backends.trt_build import build_failure
from trials.backends.trt_library import Library, Said, library
from trials.errors import MemoryLimitError, UnsupportedError
from trials.models.precision import OpenedLowering, convert

pytestmark = pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed"
)

BATCH = 4
OTHERS = ("tf32", "int8-dynamic", "int4")  # refused, or of wider models than this one


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


@pytest.fixture(params=[each for each in Precision if each.value not in OTHERS])
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


def test_int4_weights_of_matrix_products_build(
    backend: Backend, write_model: Callable[..., Path], tmp_path: Path
) -> None:
    weights = {"w": np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)}
    model = write_model(
        [helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)],
        inputs={"x": ("n", 32)},
        outputs={"y": ("n", 64)},
        weights=weights,
    )
    convert(model, Precision.INT4, tmp_path / "int4.onnx", calibration=[])

    backend.build(tmp_path / "int4.onnx", spec_for(backend, Precision.INT4), tmp_path / "plan")

    assert (tmp_path / "plan").stat().st_size > 1000


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16, Precision.INT8, "fp8"])
def test_model_that_keeps_a_layer_in_fp32_builds(
    backend: Backend,
    residual_model: Path,
    images: Callable[[int], NDArray[np.float32]],
    precision: str,
) -> None:
    lowered, mixed = Precision(precision), residual_model.with_name("mixed.onnx")
    opened = OpenedLowering(residual_model, lowered, calibration=[{"images": images(8)}])
    onnx.save_model(opened.keeping([opened.layers[0].name]), mixed)

    backend.build(mixed, spec_for(backend, lowered), mixed.with_name("plan"))

    assert mixed.with_name("plan").stat().st_size > 1000


@pytest.mark.parametrize("kept", [0, 2])
@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "fp8", "int4"])
def test_attention_builds_in_every_precision(
    backend: Backend, attention_model: Path, precision: str, kept: int
) -> None:
    calibration = [{"tokens": np.random.default_rng(1).random((8, 8, 32), np.float32)}]
    opened = OpenedLowering(attention_model, Precision(precision), calibration=calibration)
    lowered, plan = attention_model.with_name("low.onnx"), attention_model.with_name("plan")
    onnx.save_model(opened.keeping([layer.name for layer in opened.layers[:kept]]), lowered)

    backend.build(lowered, spec_for(backend, Precision(precision)), plan)

    assert plan.stat().st_size > 1000


@pytest.mark.parametrize(
    ("target", "missing"),
    [("SM75", {"fp32", "bf16", "int8", "int4", "fp8"}), ("SM80", {"fp8"}), ("SM89", set())],
)
def test_older_devices_are_told_which_precisions_they_lack(target: str, missing: set[str]) -> None:
    refusals = backend_named("tensorrt", target=target).capabilities().refusals

    older = {precision.value for precision, reason in refusals if "is older" in reason}
    assert older == missing


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


def test_target_that_rtx_does_not_know_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"does not build for SM90; use SM75, SM80"):
        backend_named("tensorrt", target="SM90").capabilities()


def test_nothing_is_measured_without_a_gpu(tmp_path: Path) -> None:
    deployment = Deployment(variant="v", precision=Precision.FP32, batch_size=1, concurrency=1)

    with pytest.raises(UnsupportedError, match="measures none yet"):
        backend_named("tensorrt").capabilities()
    with pytest.raises(UnsupportedError, match="measures none yet"):
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
