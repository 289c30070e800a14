"""TensorRT engines, built for real and without a GPU where TensorRT for RTX is installed."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import trt_models
from converting import convert
from numpy.typing import NDArray
from onnx import TensorProto, helper

from search_spaces.deployment import Deployment, Precision, Scalar
from trials.abilities import Workshop
from trials.backend import Backend, EngineSpec, Tensors
from trials.backends.catalog import backend_named
from trials.backends.trt import TensorRtBackend
from trials.backends.trt_build import Order, build_failure, build_plan
from trials.backends.trt_library import Library, Said, library
from trials.backends.trt_options import DYNAMIC, FIXED
from trials.capabilities import engine_spec
from trials.devices.catalog import this_device
from trials.devices.device import Device
from trials.errors import FaultError, MemoryLimitError, UnsupportedError
from trials.models.precision import OpenedLowering

pytestmark = pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed"
)

BATCH = 4
LARGEST = 16
OTHERS = (Precision.INT8_DYNAMIC, Precision.INT4)  # refused, or of wider models than these


def spec_for(
    backend: Backend,
    precision: Precision,
    batch_size: int = BATCH,
    options: Sequence[tuple[str, Scalar]] = (),
) -> EngineSpec:
    return engine_spec(
        Deployment(
            variant="v",
            precision=precision,
            batch_size=batch_size,
            concurrency=1,
            options=tuple(options),
        ),
        backend_name=backend.name,
        model_digest="0" * 64,
        capabilities=backend.capabilities(),
        environment=backend.environment(),
        largest_batch=LARGEST,
    )


@pytest.fixture
def backend() -> Backend:
    return backend_named("tensorrt", target="SM89")


@pytest.fixture
def cnn(tmp_path: Path) -> Path:
    onnx.save(trt_models.cnn(), tmp_path / "cnn.onnx")
    return tmp_path / "cnn.onnx"


@pytest.fixture(params=["cnn", "residual", "transformer"])
def network(
    request: pytest.FixtureRequest,
    residual_model: Path,
    images: Callable[[int], NDArray[np.float32]],
    tmp_path: Path,
) -> tuple[Path, Tensors]:
    """Return a network and inputs that calibrate it."""
    generator = np.random.default_rng(3)
    if request.param == "residual":
        return residual_model, {"images": images(8)}
    path = tmp_path / f"{request.param}.onnx"
    if request.param == "cnn":
        onnx.save(trt_models.cnn(), path)
        samples = {"images": generator.standard_normal((8, 3, 16, 16))}
    else:
        onnx.save(trt_models.transformer(), path)
        shape = (8, trt_models.TOKENS, trt_models.WIDTH)
        samples = {"tokens": generator.standard_normal(shape)}
    return path, {name: each.astype(np.float32) for name, each in samples.items()}


@pytest.mark.parametrize(
    ("precision", "profile"),
    [*product([each for each in Precision if each not in OTHERS], [FIXED, DYNAMIC])],
)
def test_every_precision_that_is_honoured_builds(
    backend: Backend, network: tuple[Path, Tensors], precision: Precision, profile: str
) -> None:
    model, samples = network
    typed, plan = model.with_name("typed.onnx"), model.with_name("plan")
    convert(model, precision, typed, calibration=[samples])

    spec = spec_for(backend, precision, options=[("batch_profile", profile)])
    log = backend.build(typed, spec, plan)

    assert precision in backend.capabilities().precisions
    assert plan.stat().st_size > 1000
    shape = ",".join(map(str, next(iter(samples.values())).shape[1:]))
    least, most = (BATCH, BATCH) if profile == FIXED else (1, LARGEST)
    assert (
        f"MinShape: [{least},{shape}], OptShape: [{most},{shape}], MaxShape: [{most},{shape}]"
        in log.text
    )


@pytest.mark.parametrize(
    ("model", "precision", "target", "builds"),
    [
        (trt_models.bf16_convolution, Precision.BF16, "SM75", False),
        (trt_models.bf16_convolution, Precision.BF16, "SM80", True),
        (trt_models.fp8_product, Precision.FP8, "SM80", False),
        (trt_models.fp8_product, Precision.FP8, "SM89", True),
    ],
)
def test_types_that_a_device_lacks_are_unsupported_and_not_a_fault(
    tmp_path: Path,
    model: Callable[[], onnx.ModelProto],
    precision: Precision,
    target: str,
    *,
    builds: bool,
) -> None:
    """What the compiler says of types that no converter of ours makes, it says of every model."""
    onnx.save(model(), tmp_path / "typed.onnx")
    spec = spec_for(backend_named("tensorrt", target=target), precision)
    order = Order(model=tmp_path / "typed.onnx", spec=spec, target=target)

    if builds:
        build_plan(library(), order, tmp_path / "plan")
        assert (tmp_path / "plan").stat().st_size > 1000
    else:
        with pytest.raises(UnsupportedError, match=f"target.*{target.lower()}"):
            build_plan(library(), order, tmp_path / "plan")


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
    [
        ("SM75", {"fp32", "tf32", "bf16", "int8", "int4", "fp8"}),
        ("SM80", {"fp8"}),
        ("SM89", set()),
    ],
)
def test_older_devices_are_told_which_precisions_they_lack(target: str, missing: set[str]) -> None:
    refusals = backend_named("tensorrt", target=target).capabilities().refusals

    older = {precision.value for precision, reason in refusals if "is older" in reason}
    assert older == missing


@pytest.mark.parametrize("target", ["SM86", "SM89", "SM120"])
def test_targets_get_engines_of_their_own(cnn: Path, tmp_path: Path, target: str) -> None:
    backend = backend_named("tensorrt", target=target)

    backend.build(cnn, spec_for(backend, Precision.FP32), tmp_path / "plan")

    assert ("compute_capability", target) in backend.environment()
    other = backend_named("tensorrt", target="SM80")
    assert spec_for(backend, Precision.FP32) != spec_for(other, Precision.FP32)


def plan_of(backend: Backend, model: Path, spec: EngineSpec) -> bytes:
    plan = model.with_name("plan")
    backend.build(model, spec, plan)
    return plan.read_bytes()


def test_batch_size_is_in_the_engine(backend: Backend, cnn: Path) -> None:
    one, many = (spec_for(backend, Precision.FP32, size) for size in (1, 64))

    assert one != many
    assert plan_of(backend, cnn, one) != plan_of(backend, cnn, many)


def test_dynamic_engine_is_one_for_all_batch_sizes_of_a_space(backend: Backend, cnn: Path) -> None:
    dynamic = [("batch_profile", "dynamic")]
    most = {"opt_batch_size": 2 * LARGEST, "max_batch_size": 2 * LARGEST}

    one, other = (spec_for(backend, Precision.FP32, size, dynamic) for size in (1, 8))
    wider = replace(one, options=tuple(sorted((dict(one.options) | most).items())))

    assert one == other
    assert one.batch_size is None
    assert one.largest_batch == LARGEST
    assert len({plan_of(backend, cnn, each) for each in (one, wider)}) == 2
    sizes = {"min_batch_size": 1, "opt_batch_size": LARGEST, "max_batch_size": LARGEST}
    assert sizes.items() <= dict(one.options).items()


def test_model_of_a_fixed_batch_has_no_dynamic_engine(
    backend: Backend, fixed_model: Path, tmp_path: Path
) -> None:
    spec = spec_for(backend, Precision.FP32, options=[("batch_profile", "dynamic")])

    with pytest.raises(UnsupportedError, match="would be the same engine as fixed; use fixed"):
        backend.build(fixed_model, spec, tmp_path / "plan")


def test_fp32_does_not_compute_in_tf32(backend: Backend, cnn: Path) -> None:
    """TensorRT allows TF32 unless it is told not to; a plan says which it was."""
    plain = plan_of(backend, cnn, spec_for(backend, Precision.FP32))
    rounded = plan_of(backend, cnn, spec_for(backend, Precision.TF32))

    assert b"tf32=0" in plain
    assert b"tf32=1" in rounded


@pytest.mark.parametrize("mebibytes", [1, 8])
def test_workspace_that_is_too_small_is_a_fact_about_the_deployment(
    backend: Backend, tmp_path: Path, mebibytes: int
) -> None:
    """It is refused in two ways: no kernel is that small, or the one that was chosen is not."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    weight = helper.make_tensor("w", TensorProto.FLOAT, [64, 64, 3, 3], np.ones(36864))
    values = [helper.make_tensor_value_info(n, 1, ["n", 64, 32, 32]) for n in "xy"]
    graph = helper.make_graph([node], "g", values[:1], values[1:], [weight])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10),
        tmp_path / "wide.onnx",
    )
    spec = spec_for(backend, Precision.FP32, 64, [("workspace_mib", mebibytes)])

    with pytest.raises(
        MemoryLimitError, match=r"of \d MiB \(workspace_mib\).*raise workspace_mib"
    ):
        backend.build(tmp_path / "wide.onnx", spec, tmp_path / "plan")

    assert not (tmp_path / "plan").exists()


def test_workspace_that_is_large_enough_builds(backend: Backend, cnn: Path) -> None:
    spec = spec_for(backend, Precision.FP32, options=[("workspace_mib", 64)])

    assert plan_of(backend, cnn, spec)


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


def test_precision_that_is_refused_is_not_built(
    backend: Backend, cnn: Path, tmp_path: Path
) -> None:
    spec = spec_for(backend, Precision.INT8_DYNAMIC)

    with pytest.raises(UnsupportedError, match="scales of activations beforehand"):
        backend.build(cnn, spec, tmp_path / "plan")


def test_target_that_rtx_does_not_know_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"does not build for SM90; use SM75, SM80"):
        backend_named("tensorrt", target="SM90").capabilities()


def nothing_here() -> Device:
    raise UnsupportedError("nobody can use a GPU")


def test_nothing_is_measured_without_a_gpu(tmp_path: Path) -> None:
    deployment = Deployment(variant="v", precision=Precision.FP32, batch_size=1, concurrency=1)
    here = TensorRtBackend(find_device=nothing_here)

    with pytest.raises(
        UnsupportedError, match="no NVIDIA GPU: engines can be built, not measured"
    ):
        here.capabilities()
    with pytest.raises(UnsupportedError, match="no NVIDIA GPU: engines can be built"):
        backend_named("tensorrt", target="SM89").load(tmp_path / "plan", deployment)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Requested amount of GPU memory: OutOfMemory (no details)", MemoryLimitError),
        ("no tactics to implement the operation within workspace limit", MemoryLimitError),
        ("Cannot compile for target(s) sm80", UnsupportedError),
        ("the compiler lost its way", FaultError),
    ],
)
def test_builder_that_gives_up_says_whose_fault_it_is(
    backend: Backend, said: str, kind: type[Exception]
) -> None:
    listener = Said()
    listener.errors.append(said)

    failure = build_failure(listener, spec_for(backend, Precision.FP32))

    assert type(failure) is kind
    assert said in str(failure)


def test_builder_that_cannot_be_made_is_a_fault_and_not_the_models(
    backend: Backend, cnn: Path
) -> None:
    real = library()

    def lost(logger: Any) -> None:
        logger.log(real.module.ILogger.Severity.ERROR, "CUDA initialization failure: 999")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    module = SimpleNamespace(**{**vars(real.module), "Builder": lost})
    without_cuda = TensorRtBackend("SM89", load=lambda: replace(real, module=module))

    with pytest.raises(FaultError, match=r"building cnn\.onnx for SM89: .* failure: 999"):
        without_cuda.build(cnn, spec_for(backend, Precision.FP32), cnn.with_name("plan"))


def test_library_names_its_targets_oldest_first() -> None:
    found: Library = library()

    assert found.targets()[0] == "SM75"
    assert replace(found, is_rtx=False).targets() == ()


@pytest.mark.gpu
def test_engine_is_built_for_the_gpu_of_this_machine_and_its_timings_are_kept(
    cnn: Path, tmp_path: Path
) -> None:
    try:
        gpu = this_device().facts
    except UnsupportedError:
        pytest.skip("no NVIDIA GPU")
    here = TensorRtBackend()
    shop = Workshop(tell=lambda _name, _share: None, shelf=tmp_path / "shelf")
    everything = [(one.name, one.default) for one in here.capabilities().options]

    for _ in range(2):
        spec = spec_for(here, Precision.FP32, options=everything)
        here.build_at_length(cnn, spec, tmp_path / "plan", shop)

    assert {("device", gpu.name), ("device_driver", gpu.driver)} <= set(here.environment())
    assert (tmp_path / "plan").stat().st_size > 1000
    assert (tmp_path / "shelf").exists() != library().is_rtx
