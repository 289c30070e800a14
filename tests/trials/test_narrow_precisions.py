"""bf16, fp8 and int4 models: what is in the file, and what it answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from converting import convert
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from search_spaces.deployment import Precision
from trials.backend import Tensors
from trials.errors import UnsupportedError
from trials.models.fidelity import LEAST_DB, refuse_unfaithful, signal_to_noise_db
from trials.models.onnx_graph import element_types, opset
from trials.models.rehearsal import Rehearsal

WIDE, HIDDEN, CLASSES = 32, 64, 4
Made = Callable[[Precision], ModelProto]


@pytest.fixture
def samples() -> NDArray[np.float32]:
    return np.asarray(np.random.default_rng(1).standard_normal((64, WIDE)), np.float32)


@pytest.fixture
def perceptron(write_model: Callable[..., Path]) -> Path:
    """Two products: a Gemm with transposed weights, as torch exports it, and a MatMul."""
    random = np.random.default_rng(0)
    weights = {
        "first": np.asarray(random.standard_normal((HIDDEN, WIDE)), np.float32),
        "bias": np.asarray(random.standard_normal(HIDDEN), np.float32),
        "second": np.asarray(random.standard_normal((HIDDEN, CLASSES)), np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "first", "bias"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("MatMul", ["a", "second"], ["y"]),
    ]
    return write_model(
        nodes, inputs={"x": ("n", WIDE)}, outputs={"y": ("n", CLASSES)}, weights=weights
    )


@pytest.fixture
def made(perceptron: Path, samples: NDArray[np.float32], tmp_path: Path) -> Made:
    """Convert the perceptron."""

    def make(precision: Precision) -> ModelProto:
        out = tmp_path / f"{precision}.onnx"
        convert(perceptron, precision, out, calibration=[{"x": samples}])
        onnx.checker.check_model(out, full_check=True)
        return onnx.load_model(out)

    return make


def constants(model: ModelProto) -> dict[str, NDArray[Any]]:
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


def answers(model: ModelProto, samples: NDArray[np.float32]) -> Tensors:
    return Rehearsal(model).answers([{"x": samples}])


def test_bf16_is_in_the_types_of_all_but_inputs_and_outputs(made: Made) -> None:
    model = made(Precision.BF16)

    types = element_types(model)
    outer = {"x", "y"}
    assert {types.pop(name) for name in outer} == {TensorProto.FLOAT}
    assert set(types.values()) == {TensorProto.BFLOAT16}
    assert {tensor.data_type for tensor in model.graph.initializer} == {TensorProto.BFLOAT16}


def test_bf16_rehearsal_rounds_where_the_reference_rounds(
    made: Made, samples: NDArray[np.float32]
) -> None:
    """ONNX's reference implementation also rounds within a product, so it is a little coarser."""
    model = made(Precision.BF16)

    [reference] = ReferenceEvaluator(model).run(None, {"x": samples})

    rehearsed = answers(model, samples)["y"]
    assert np.array_equal(rehearsed, rehearsed.astype(ml_dtypes.bfloat16).astype(np.float32))
    assert signal_to_noise_db({"y": rehearsed}, {"y": np.asarray(reference, np.float32)}) > 35


def test_bf16_leaves_an_operator_in_fp32_that_onnx_has_no_bf16_for(
    write_model: Callable[..., Path], samples: NDArray[np.float32], tmp_path: Path
) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("TopK", ["h", "k"], ["v", "i"], name="largest"),
        helper.make_node("Relu", ["v"], ["y"]),
    ]
    weights = {"w": np.eye(WIDE, dtype=np.float32), "k": np.array([3])}
    path = write_model(nodes, inputs={"x": ("n", WIDE)}, outputs={"y": ("n", 3)}, weights=weights)

    convert(path, Precision.BF16, tmp_path / "out", calibration=[])

    model = onnx.load_model(tmp_path / "out")
    types = element_types(model)
    read = {node.op_type: types[node.input[0]] for node in model.graph.node}
    assert read["TopK"] == TensorProto.FLOAT
    assert read["MatMul"] == read["Relu"] == TensorProto.BFLOAT16
    expected = np.maximum(np.sort(samples)[:, :-4:-1], 0)
    assert np.allclose(answers(model, samples)["y"], expected, rtol=2**-8)


def test_bf16_of_a_model_with_control_flow_is_refused(
    write_model: Callable[..., Path], tmp_path: Path
) -> None:
    value = helper.make_tensor_value_info("r", TensorProto.FLOAT, None)
    body = helper.make_graph([helper.make_node("Relu", ["h"], ["r"])], "branch", [], [value])
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("ReduceMax", ["h"], ["m"], keepdims=0),
        helper.make_node("Greater", ["m", "zero"], ["is"]),
        helper.make_node("If", ["is"], ["y"], then_branch=body, else_branch=body),
    ]
    weights = {"w": np.eye(4, dtype=np.float32), "zero": np.zeros((), np.float32)}
    path = write_model(nodes, inputs={"x": ("n", 4)}, outputs={"y": ("n", 4)}, weights=weights)

    with pytest.raises(UnsupportedError, match=r"\(If\) holds a graph of its own"):
        convert(path, Precision.BF16, tmp_path / "out", calibration=[])


def test_fp8_stores_weights_in_a_quarter_with_a_scale_per_channel(
    made: Made, perceptron: Path
) -> None:
    model = made(Precision.FP8)

    stored, given = constants(model), constants(onnx.load_model(perceptron))
    for name, axis in (("first", 0), ("second", 1)):
        narrow, scales = stored[f"{name}_narrow_q"], stored[f"{name}_narrow_scale"]
        assert narrow.dtype == ml_dtypes.float8_e4m3fn
        spread = scales if axis else scales[:, None]
        again = narrow.astype(np.float32) * spread
        # three bits of mantissa: half a step is a 16th; the least step of the format is 2^-9
        error = np.abs(again - given[name])
        assert (error <= np.maximum(np.abs(given[name]) / 16, spread * 2**-10 * 1.01)).all()
    assert not {"first", "second"} & stored.keys()


def test_fp8_scales_an_activation_to_the_largest_value_that_calibration_saw(
    made: Made, samples: NDArray[np.float32]
) -> None:
    model = made(Precision.FP8)

    stored = constants(model)
    [quantizer] = [node for node in model.graph.node if node.input[0] == "x"]
    assert quantizer.op_type == "QuantizeLinear"
    assert stored[quantizer.input[1]] == pytest.approx(np.abs(samples).max() / 448)
    assert stored[quantizer.input[2]].dtype == ml_dtypes.float8_e4m3fn
    assert opset(model) >= 19


def test_int4_scales_blocks_of_the_axis_that_is_summed(made: Made, perceptron: Path) -> None:
    model = made(Precision.INT4)

    stored, given = constants(model), constants(onnx.load_model(perceptron))
    by_output = {node.output[0]: node for node in model.graph.node}
    for name, axis, block in (("first", 1, 32), ("second", 0, 64)):
        attributes = {one.name: one.i for one in by_output[f"{name}_narrow"].attribute}
        assert attributes == {"axis": axis, "block_size": block}
        narrow, scales = stored[f"{name}_narrow_q"], stored[f"{name}_narrow_scale"]
        assert narrow.dtype == ml_dtypes.int4
        spread = np.repeat(scales, block, axis=axis)
        inside = np.abs(given[name]) <= 7 * spread
        error = np.abs(narrow.astype(np.float32) * spread - given[name])
        assert (error[inside] <= spread[inside] / 2 * 1.001).all()
    assert opset(model) >= 21


def test_int4_clips_where_that_leaves_less_error(made: Made, perceptron: Path) -> None:
    model = made(Precision.INT4)

    weights = constants(onnx.load_model(perceptron))["first"]
    stored = constants(model)
    scales = stored["first_narrow_scale"]
    whole = np.abs(weights).max(axis=1, keepdims=True) / 7
    unclipped = np.rint(weights / whole) * whole
    made_weights = stored["first_narrow_q"].astype(np.float32) * scales
    assert (scales < whole * 0.99).any()
    assert np.square(made_weights - weights).sum() < np.square(unclipped - weights).sum()


def test_int4_of_narrow_weights_is_refused(residual_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="can be cut into blocks of 16 or more for int4"):
        convert(residual_model, Precision.INT4, tmp_path / "out", calibration=[])


@pytest.mark.parametrize("precision", LEAST_DB)
def test_what_is_made_stays_well_within_the_bound(
    made: Made, perceptron: Path, samples: NDArray[np.float32], precision: Precision
) -> None:
    model = made(precision)

    old = answers(onnx.load_model(perceptron), samples)
    assert signal_to_noise_db(answers(model, samples), old) > LEAST_DB[precision] + 6
    written = perceptron.with_name(f"{precision}.onnx")
    refuse_unfaithful(written, perceptron, precision, [{"x": samples}])


def test_conversion_that_went_wrong_is_refused_with_the_numbers(
    made: Made, perceptron: Path, samples: NDArray[np.float32], tmp_path: Path
) -> None:
    """Scales of activations that are far too small are what ONNX Runtime's fp8 quantizer makes."""
    model = made(Precision.FP8)
    for tensor in model.graph.initializer:
        if tensor.name == "x_narrow_scale":
            tensor.CopyFrom(numpy_helper.from_array(np.array(1e-5, np.float32), tensor.name))
    onnx.save_model(model, tmp_path / "wrong.onnx")

    with pytest.raises(
        UnsupportedError, match=r"in fp8 its answers to 64 samples .*dB .*at least 6 dB"
    ) as caught:
        refuse_unfaithful(tmp_path / "wrong.onnx", perceptron, Precision.FP8, [{"x": samples}])

    assert "\n" not in str(caught.value)


def test_ratio_of_signal_to_noise_is_in_decibels() -> None:
    old = {"y": np.full((4, 2), 10.0)}

    assert signal_to_noise_db({"y": np.full((4, 2), 11.0)}, old) == pytest.approx(20)
    assert signal_to_noise_db(old, old) == np.inf
    assert signal_to_noise_db({"y": np.full((4, 2), np.nan)}, old) == -np.inf


def test_output_without_signal_says_nothing_of_noise() -> None:
    """A head that is masked, or answers zero to these samples, is no reason to refuse a model."""
    old = {"logits": np.ones((2, 3), np.float32), "masked": np.zeros((2, 3), np.float32)}
    new = {"logits": old["logits"] * np.float32(1.1), "masked": old["masked"] + np.float32(1e-6)}

    assert signal_to_noise_db(new, old) == pytest.approx(20, abs=1e-3)
    new["masked"][0] = np.nan
    assert signal_to_noise_db(new, old) == -np.inf


def test_answers_of_another_shape_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="where the original answers"):
        signal_to_noise_db({"y": np.ones((4, 3))}, {"y": np.ones((4, 2))})


def test_answers_that_are_no_floats_are_left_to_the_scores() -> None:
    old, new = np.arange(4), np.zeros(4, np.int64)

    assert signal_to_noise_db({"class": new}, {"class": old}) == np.inf


def test_model_that_takes_no_such_batch_is_told_in_one_line(
    perceptron: Path, samples: NDArray[np.float32]
) -> None:
    rehearsal = Rehearsal(onnx.load_model(perceptron))

    with pytest.raises(UnsupportedError, match="cannot be checked on the CPU") as caught:
        rehearsal.answers([{"x": samples[:, :5]}])

    assert "\n" not in str(caught.value)
