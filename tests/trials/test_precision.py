import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from converting import convert
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from search_spaces.deployment import Precision
from trials.backend import Tensors
from trials.errors import UnsupportedError
from trials.models.onnx_model import content_digest, read_facts
from trials.models.precision import converter_versions, needs_calibration, write_as_it_is
from trials.models.rehearsal import Rehearsal

Images = Callable[[int], NDArray[np.float32]]
MADE = tuple(each for each in Precision if each is not Precision.INT4)  # it needs wider weights


@pytest.fixture
def calibration(images: Images) -> list[Tensors]:
    return [{"images": images(64)[start : start + 16]} for start in range(0, 64, 16)]


def answers(model: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    [logits] = Rehearsal(onnx.load_model(model)).answers([{"images": images}]).values()
    return logits


@pytest.mark.parametrize("precision", MADE)
def test_converted_model_is_valid_and_answers_alike(
    residual_model: Path,
    images: Images,
    calibration: list[Tensors],
    precision: Precision,
) -> None:
    out = residual_model.with_name("out.onnx")

    convert(residual_model, precision, out, calibration=calibration)

    assert read_facts(out).inputs == read_facts(residual_model).inputs
    expected = answers(residual_model, images(64))
    # 8 bits: an error of a few percent of the spread of the answers
    assert np.abs(answers(out, images(64)) - expected).max() < 0.1 * np.ptp(expected)


@pytest.mark.parametrize("precision", MADE)
def test_conversion_touches_and_leaves_nothing_but_its_result(
    residual_model: Path, calibration: list[Tensors], tmp_path: Path, precision: Precision
) -> None:
    before = content_digest(residual_model)
    (tmp_path / "made").mkdir()

    convert(residual_model, precision, tmp_path / "made" / "out", calibration=calibration)

    assert content_digest(residual_model) == before
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["out"]


@pytest.mark.parametrize("precision", MADE)
def test_conversion_is_silent_and_leaves_logging_alone(
    residual_model: Path,
    calibration: list[Tensors],
    capfd: pytest.CaptureFixture[str],
    precision: Precision,
) -> None:
    before = (list(logging.root.handlers), logging.root.manager.disable)

    convert(residual_model, precision, residual_model.with_name("o"), calibration=calibration)

    assert capfd.readouterr() == ("", "")
    assert (logging.root.handlers, logging.root.manager.disable) == before


def test_fp32_is_the_file_as_it_is(residual_model: Path, tmp_path: Path) -> None:
    write_as_it_is(residual_model, tmp_path / "out")

    assert (tmp_path / "out").read_bytes() == residual_model.read_bytes()


def test_external_data_is_taken_into_the_file(
    residual_model: Path, images: Images, tmp_path: Path
) -> None:
    split = tmp_path / "split.onnx"
    model = onnx.load_model(residual_model)
    onnx.save_model(
        model, split, save_as_external_data=True, location="split.bin", size_threshold=256
    )
    (tmp_path / "elsewhere").mkdir()

    write_as_it_is(split, tmp_path / "elsewhere" / "out")

    expected = answers(residual_model, images(2))
    assert np.array_equal(answers(tmp_path / "elsewhere" / "out", images(2)), expected)


def test_int8_can_be_built_by_strict_backends(
    residual_model: Path, calibration: list[Tensors], tmp_path: Path
) -> None:
    """TensorRT refuses zero points other than 0, types other than int8 and integer biases."""
    convert(residual_model, Precision.INT8, tmp_path / "out", calibration=calibration)

    model = onnx.load_model(tmp_path / "out")
    constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    quantizers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    zeros = [constants[node.input[2]] for node in quantizers]
    assert len(quantizers) >= 5
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    assert not any(each.dtype == np.int32 for each in constants.values())
    assert {one.domain for one in model.opset_import} <= {"", "ai.onnx"}


def test_int8_scales_weights_per_channel(
    residual_model: Path, calibration: list[Tensors], tmp_path: Path
) -> None:
    convert(residual_model, Precision.INT8, tmp_path / "out", calibration=calibration)

    model = onnx.load_model(tmp_path / "out")
    dims = {each.name: list(each.dims) for each in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node}
    weights = [makers[node.input[1]] for node in model.graph.node if node.op_type == "Conv"]
    assert [dims[each.input[1]] for each in weights] == [[8], [8]]


def test_int8_puts_nothing_between_a_convolution_and_its_activation(
    residual_model: Path, calibration: list[Tensors], tmp_path: Path
) -> None:
    convert(residual_model, Precision.INT8, tmp_path / "out", calibration=calibration)

    nodes = onnx.load_model(tmp_path / "out").graph.node
    first = next(node for node in nodes if node.op_type == "Conv")
    readers = [node.op_type for node in nodes if first.output[0] in node.input]
    assert readers == ["Relu"]


def test_constant_of_an_operator_that_has_no_bf16_stays_in_fp32_for_it(
    write_model: Callable[..., Path], tmp_path: Path
) -> None:
    """ONNX has no Einsum of bf16; the product before it reads the same constant in bf16."""
    nodes = [
        helper.make_node("MatMul", ["x", "shared"], ["h"]),
        helper.make_node("Einsum", ["h", "shared"], ["y"], equation="ij,jk->ik"),
    ]
    model = write_model(
        nodes,
        inputs={"x": ("n", 4)},
        outputs={"y": ("n", 4)},
        weights={"shared": np.eye(4, dtype=np.float32)},
        opset=22,
    )

    convert(model, Precision.BF16, tmp_path / "out", calibration=[])

    onnx.checker.check_model(tmp_path / "out", full_check=True)


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP8])
def test_calibrated_precision_without_samples_is_refused(
    residual_model: Path, tmp_path: Path, precision: Precision
) -> None:
    with pytest.raises(UnsupportedError, match=f"{precision} needs calibration samples"):
        convert(residual_model, precision, tmp_path / "out", calibration=[])

    assert not (tmp_path / "out").exists()


def test_model_without_products_is_not_quantized(
    write_model: Callable[..., Path], tmp_path: Path
) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    model = write_model([node], inputs={"x": ("n", 4)}, outputs={"y": ("n", 4)})

    with pytest.raises(UnsupportedError, match="no Conv, MatMul or Gemm to quantize"):
        convert(model, Precision.INT8_DYNAMIC, tmp_path / "out", calibration=[])


def test_old_opset_is_not_quantized(write_model: Callable[..., Path], tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    weights = {"w": np.eye(4, dtype=np.float32)}
    model = write_model(
        [node], inputs={"x": ("n", 4)}, outputs={"y": ("n", 4)}, weights=weights, opset=11
    )

    with pytest.raises(UnsupportedError, match="opset 13, the model has 11"):
        convert(model, Precision.INT8, tmp_path / "o", calibration=[{"x": np.ones((1, 4), "f4")}])


@pytest.mark.parametrize("again", [Precision.FP16, Precision.INT8_DYNAMIC])
@pytest.mark.parametrize("first", [Precision.FP16, Precision.INT8])
def test_reduced_model_is_not_reduced_again(
    residual_model: Path,
    calibration: list[Tensors],
    first: Precision,
    again: Precision,
) -> None:
    once, twice = residual_model.with_name("once"), residual_model.with_name("twice")
    convert(residual_model, first, once, calibration=calibration)

    with pytest.raises(UnsupportedError, match="already in a reduced precision"):
        convert(once, again, twice, calibration=calibration)


def test_trouble_in_a_converter_is_told_in_one_line(
    write_model: Callable[..., Path], tmp_path: Path
) -> None:
    model = write_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        inputs={"x": ("n", 4)},
        outputs={"y": ("n", 4)},
        weights={"w": np.eye(4)},
        dtype=TensorProto.DOUBLE,
    )

    with pytest.raises(UnsupportedError, match="cannot be converted to int8") as caught:
        convert(model, Precision.INT8, tmp_path / "o", calibration=[{"x": np.ones((1, 3))}])

    assert "\n" not in str(caught.value)
    assert not (tmp_path / "o").exists()


def test_precisions_with_scales_of_activations_are_calibrated() -> None:
    calibrated = [each for each in Precision if needs_calibration(each)]

    assert calibrated == [Precision.INT8, Precision.FP8]


def test_versions_name_what_changes_the_result() -> None:
    assert converter_versions(Precision.FP32) == ()
    assert [name for name, _ in converter_versions(Precision.INT8)] == [
        "onnx",
        "onnxruntime",
        "recipe",
    ]
