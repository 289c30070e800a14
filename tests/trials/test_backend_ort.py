"""What is particular to ONNX Runtime; the contract is in ``test_backend_contract.py``."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from converting import convert
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from search_spaces.deployment import Deployment, Precision
from trials.backend import Capabilities, Engine, EngineSpec, Tensors
from trials.backends.ort import OrtBackend
from trials.backends.ort_errors import trial_error
from trials.backends.ort_unsigned import use_unsigned
from trials.errors import FaultError, MemoryLimitError, OutputError, UnsupportedError
from trials.inspection import Layer

Images = Callable[[int], NDArray[np.float32]]
LEVELS = ("disable", "basic", "extended", "all")


def deployment(precision: Precision = Precision.FP32, **options: bool | int | str) -> Deployment:
    return Deployment(
        variant="v",
        precision=precision,
        batch_size=1,
        concurrency=1,
        options=tuple(sorted(options.items())),
    )


def spec(precision: Precision = Precision.FP32, level: str = "all") -> EngineSpec:
    return EngineSpec(
        backend="ort",
        model_digest="0" * 64,
        precision=precision,
        batch_size=None,
        options=(("graph_optimization", level),),
        environment=(),
    )


def engine(
    model: Path, precision: Precision = Precision.FP32, level: str = "all", **options: bool | int
) -> Engine:
    backend = OrtBackend()
    plan = model.with_name(f"{model.stem}-{level}.plan")
    backend.build(model, spec(precision, level), plan)
    return backend.load(plan, deployment(precision, **options))


def converted(model: Path, precision: Precision, batches: list[Tensors]) -> Path:
    out = model.with_name(f"{precision}.onnx")
    convert(model, precision, out, calibration=batches)
    return out


def logits(engine: Engine, images: NDArray[np.float32]) -> NDArray[np.float32]:
    return engine.infer({"images": images})["logits"]


def layers(
    model: Path, precision: Precision = Precision.FP32, level: str = "all"
) -> dict[str, Layer]:
    backend, plan = OrtBackend(), model.with_name("inspected.plan")
    backend.build(model, spec(precision, level), plan)
    found = backend.inspect(model, spec(precision, level), plan)
    return {layer.outputs[0].name: layer for layer in found}


@pytest.mark.parametrize("level", LEVELS)
def test_every_optimization_level_gives_the_same_answers(
    residual_model: Path, images: Images, level: str
) -> None:
    plain = logits(engine(residual_model, level="disable"), images(5))

    optimized = logits(engine(residual_model, level=level), images(5))

    np.testing.assert_allclose(optimized, plain, atol=1e-5)  # sums in another order


def test_optimization_is_stored_in_the_plan(residual_model: Path) -> None:
    counts = {}
    for level in LEVELS:
        engine(residual_model, level=level).close()
        plan = residual_model.with_name(f"{residual_model.stem}-{level}.plan")
        counts[level] = len(onnx.load_model(plan).graph.node)

    assert counts["disable"] > counts["basic"] > counts["extended"]


def test_saved_graph_is_not_optimized_again(residual_model: Path, images: Images) -> None:
    """An engine must run what was stored: loading at another level would change it."""
    import onnxruntime

    saved = engine(residual_model)
    session = onnxruntime.InferenceSession(residual_model, providers=["CPUExecutionProvider"])

    expected = session.run(None, {"images": images(6)})[0]

    assert np.array_equal(logits(saved, images(6)), expected)


def test_threads_and_spinning_do_not_change_the_answers(
    residual_model: Path, images: Images
) -> None:
    one = logits(engine(residual_model), images(3))
    two = logits(engine(residual_model, threads=2, spinning=False), images(3))

    np.testing.assert_allclose(two, one, atol=1e-6)


def test_dynamic_int8_answers_depend_on_the_batch(residual_model: Path, images: Images) -> None:
    """Activation scales span the batch of a call, so the precision is declared batch-bound."""
    loud = images(2)
    loud[1] *= 20
    model = converted(residual_model, Precision.INT8_DYNAMIC, [])
    dynamic = engine(model, Precision.INT8_DYNAMIC)

    alone = logits(dynamic, loud[:1])[0]
    beside_a_loud_one = logits(dynamic, loud)[0]

    assert not np.allclose(alone, beside_a_loud_one, atol=1e-3)
    assert OrtBackend().capabilities().batch_bound == (Precision.INT8_DYNAMIC,)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.INT8])
def test_other_answers_do_not_depend_on_the_batch(
    residual_model: Path, images: Images, precision: Precision
) -> None:
    loud = images(2)
    loud[1] *= 20
    model = converted(residual_model, precision, [{"images": images(16)}])
    loaded = engine(model, precision)

    np.testing.assert_allclose(logits(loaded, loud[:1])[0], logits(loaded, loud)[0], atol=1e-5)


def test_int8_runs_on_integers_although_its_model_is_signed(
    residual_model: Path, images: Images
) -> None:
    model = converted(residual_model, Precision.INT8, [{"images": images(64)}])
    engine(model, Precision.INT8).close()

    operators = [
        node.op_type for node in onnx.load_model(model.with_name("int8-all.plan")).graph.node
    ]

    assert operators.count("QLinearConv") == 2
    assert "Conv" not in operators


def test_unsigned_activations_answer_as_signed_ones(residual_model: Path, images: Images) -> None:
    """Calibrated on the very images, nothing is clipped, so the values must be the same."""
    model = converted(residual_model, Precision.INT8, [{"images": images(32)}])
    signed = onnx.load_model(model)
    unsigned = onnx.load_model(model)

    rewritten = use_unsigned(unsigned)

    onnx.checker.check_model(unsigned)
    assert rewritten == 5
    onnx.save_model(unsigned, model.with_name("unsigned.onnx"))
    left = logits(engine(model, level="disable"), images(32))
    right = logits(engine(model.with_name("unsigned.onnx"), level="disable"), images(32))
    np.testing.assert_allclose(left, right, atol=1e-5)
    assert signed != unsigned


def test_model_without_quantizers_is_left_alone(residual_model: Path) -> None:
    model = onnx.load_model(residual_model)

    assert use_unsigned(model) == 0
    assert model == onnx.load_model(residual_model)


def test_outputs_of_unknown_shape_are_bound_all_the_same(
    write_model: Callable[..., Path],
) -> None:
    model = write_model(
        [helper.make_node("Compress", ["x", "keep"], ["y"], axis=1)],
        inputs={"x": ("batch", 4)},
        outputs={"y": ("batch", "kept")},
        weights={"keep": np.array([True, False, True, False])},
    )
    loaded = engine(model)

    with loaded.lane([{"x": np.ones((3, 4), np.float32)}]) as requests:
        requests[0]()


def test_operator_that_the_runtime_lacks_is_unsupported(write_model: Callable[..., Path]) -> None:
    model = write_model(
        [helper.make_node("Foo", ["x"], ["y"], domain="my.ops")],
        inputs={"x": ("batch", 4)},
        outputs={"y": ("batch", 4)},
        domains=["my.ops"],
    )

    with pytest.raises(UnsupportedError, match=r"my\.ops:Foo"):
        engine(model)


def test_opset_from_the_future_is_unsupported(write_model: Callable[..., Path]) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    model = write_model([node], inputs={"x": (1,)}, outputs={"y": (1,)}, opset=99)

    with pytest.raises(UnsupportedError, match="Opset 99"):
        engine(model)


def test_text_input_is_unsupported(write_model: Callable[..., Path]) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    model = write_model(
        [node], inputs={"x": ("n",)}, outputs={"y": ("n",)}, dtype=TensorProto.STRING
    )

    with pytest.raises(UnsupportedError, match="numeric"):
        engine(model)


def test_batch_that_a_fixed_model_cannot_take_is_unsupported(
    fixed_model: Path, images: Images
) -> None:
    loaded = engine(fixed_model)

    with pytest.raises(UnsupportedError, match="Got: 2 Expected: 1"):
        logits(loaded, images(2))


def test_output_that_breaks_its_promise_is_an_output_error(
    write_model: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    model = write_model(
        [helper.make_node("Expand", ["x", "to"], ["y"])],
        inputs={"x": ("batch", 1), "to_": ("batch", 1)},
        outputs={"y": ("batch", 1)},
        weights={"to": np.array([1, 1], np.int64)},
    )
    loaded = engine(model)
    broken = [replace(loaded.outputs[0], shape=(None, 7))]
    loaded._outputs = tuple(broken)  # type: ignore[attr-defined] # no real model lies to order

    with pytest.raises(OutputError, match="promised was float32"):
        loaded.infer({name: np.ones((2, 1), np.float32) for name in ("x", "to_")})

    assert capfd.readouterr().err == ""


def test_request_that_does_not_fit_is_a_memory_limit(write_model: Callable[..., Path]) -> None:
    """A tensor of 64 TB: no machine has it."""
    model = write_model(
        [helper.make_node("Expand", ["x", "to"], ["y"])],
        inputs={"x": ("batch", 1)},
        outputs={"y": ("wide", "high")},
        weights={"to": np.array([1 << 22, 1 << 22], np.int64)},
    )

    with pytest.raises(MemoryLimitError, match="lower batch_size"):
        engine(model).infer({"x": np.ones((1, 1), np.float32)})


def test_building_is_silent(
    residual_model: Path, images: Images, capfd: pytest.CaptureFixture[str]
) -> None:
    logits(engine(residual_model), images(2))

    assert capfd.readouterr() == ("", "")


def test_log_of_a_build_names_the_transformations(residual_model: Path, tmp_path: Path) -> None:
    log = OrtBackend().build(residual_model, spec(), tmp_path / "plan")

    assert "GraphTransformer ConvActivationFusion modified: 1" in log.text
    assert log.text.endswith("Session successfully initialized.\n")


def test_failed_build_leaves_no_listener_behind(
    residual_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    with pytest.raises(FaultError):
        OrtBackend().build(tmp_path / "gone", spec(), tmp_path / "plan")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 1
    onnxruntime.InferenceSession(residual_model, options, providers=["CPUExecutionProvider"])

    assert "Session successfully initialized" in capfd.readouterr().err


@pytest.mark.parametrize("level", LEVELS)
def test_every_operator_of_the_model_is_found_in_exactly_one_layer(
    residual_model: Path, level: str
) -> None:
    found = layers(residual_model, level=level)

    operators = "Conv of a", "Relu of c", "Conv of d", "Add of e", "Relu of f"
    others = "GlobalAveragePool of g", "Reshape of h", "Gemm of logits"
    normalized = {"BatchNormalization of b"}  # folded into the convolution before, or on its own
    named = [name for layer in found.values() for name in layer.fused_from]
    assert sorted({*named} - normalized) == sorted((*operators, *others))
    assert len(named) == len(set(named))


def test_fused_layer_has_the_shape_of_its_last_operator(residual_model: Path) -> None:
    fused = [layer for layer in layers(residual_model).values() if "Add of e" in layer.fused_from]

    assert [layer.fused_from for layer in fused] == [("Conv of d", "Add of e", "Relu of f")]
    assert fused[0].operator == "com.microsoft.nchwc.Conv"
    assert (fused[0].outputs[0].dtype, fused[0].outputs[0].shape) == ("float32", (None, 8, 8, 8))
    assert dict(fused[0].facts)["activation"] == "Relu"


def test_integer_layers_say_where_they_come_from(residual_model: Path, images: Images) -> None:
    model = converted(residual_model, Precision.INT8, [{"images": images(64)}])

    found = layers(model, Precision.INT8).values()

    fused = [layer for layer in found if layer.operator == "com.microsoft.QLinearConv"]
    assert len(fused) == 2
    for layer in fused:
        assert layer.fused_from[-1].endswith("QuantizeLinear")
        assert layer.outputs[0].shape == (None, 8, 8, 8)


def test_layers_run_in_half_precision_are_seen_to_be_widened(
    residual_model: Path, images: Images
) -> None:
    """There are no float16 kernels for most operators on the CPU, and the table says so."""
    model = converted(residual_model, Precision.FP16, [{"images": images(8)}])

    found = layers(model, Precision.FP16).values()

    assert {one.dtype for layer in found for one in layer.outputs} == {"float32"}
    assert all(layer.outputs[0].shape is not None for layer in found)


def test_parameters_of_a_branch_count_at_the_layer_that_holds_it(
    write_model: Callable[..., Path],
) -> None:
    value = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    weights = numpy_helper.from_array(np.ones((4, 100), np.float32), "w")
    body = [helper.make_node("MatMul", ["x", "w"], ["z"])]
    branch = helper.make_graph(body, "branch", [], [value], [weights])
    node = helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)
    model = write_model(
        [helper.make_node("Cast", ["flags"], ["flag"], to=TensorProto.BOOL), node],
        inputs={"x": ("batch", 4), "flags": (1,)},
        outputs={"y": ("batch", 100)},
    )

    found = layers(model, level="disable")["y"]

    assert found.parameter_bytes == 2 * 1_600
    assert dict(found.facts)["then_branch"] == "a graph of 1 operators"


def test_unknown_error_is_a_fault_on_one_line() -> None:
    error = trial_error(RuntimeError("[ONNXRuntimeError] : 1 : FAIL : went\n wrong"), "loading")

    assert isinstance(error, FaultError)
    assert str(error) == "loading: ONNX Runtime failed (went wrong)"


def test_environment_names_library_cpu_and_instruction_set() -> None:
    assert [name for name, _ in OrtBackend().environment()] == [
        "cpu",
        "cpu_flags",
        "onnxruntime",
        "recipe",
    ]


def test_refusals_give_a_reason_each() -> None:
    capabilities: Capabilities = OrtBackend().capabilities()

    assert all(reason for _, reason in capabilities.refusals)
