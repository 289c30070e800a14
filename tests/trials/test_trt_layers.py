"""Layers from what TensorRT's engine inspector tells, in the forms of its documentation."""

import pytest

from trials.backends.trt_layers import layers_from_inspector
from trials.errors import FaultError
from trials.inspection import LayerOutput

CONVOLUTION = {
    "Name": "conv1 + relu1",
    "LayerType": "CaskConvolution",
    "Inputs": [{"Name": "x", "Dimensions": [8, 3, 32, 32], "Format/Datatype": "Half"}],
    "Outputs": [
        {
            "Name": "y",
            "Location": "Device",
            "Dimensions": [8, 16, 32, 32],
            "Format/Datatype": "Channel major FP16 format where channel % 8 == 0",
        }
    ],
    "ParameterType": "Convolution",
    "Weights": {"Type": "Half", "Count": 432},
    "Bias": {"Type": "Half", "Count": 16},
    "TacticName": "sm80_xmma_fprop",
    "StreamId": 0,
    "Metadata": "[ONNX Layer: conv1]\u001e[ONNX Layer: relu1]",
}


def test_layer_has_its_outputs_parameters_and_origin() -> None:
    (layer,) = layers_from_inspector({"Layers": [CONVOLUTION], "Bindings": ["x", "y"]})

    assert (layer.name, layer.operator) == ("conv1 + relu1", "Convolution")
    assert layer.outputs == (LayerOutput(name="y", dtype="float16", shape=(8, 16, 32, 32)),)
    assert layer.parameter_bytes == 2 * (432 + 16)
    assert layer.fused_from == ("conv1", "relu1")
    assert layer.facts == (("tactic", "sm80_xmma_fprop"),)


@pytest.mark.parametrize(
    ("told", "dtype"),
    [
        ("Float", "float32"),
        ("Row major linear FP32", "float32"),
        ("Half", "float16"),
        ("Thirty-two wide channel vectorized row major Int8 format", "int8"),
        ("Row major linear INT8 format", "int8"),
        ("UInt8", "uint8"),
        ("BFloat16", "bfloat16"),
        ("Int64", "int64"),
        ("N/A due to dynamic shapes", None),
    ],
)
def test_type_is_read_of_its_name_or_of_a_formats(told: str, dtype: str | None) -> None:
    output = {"Name": "y", "Dimensions": [2], "Format/Datatype": told}

    (layer,) = layers_from_inspector({"Layers": [{"Name": "a", "Outputs": [output]}]})

    assert layer.outputs[0].dtype == dtype


def test_free_dimension_and_what_is_not_told_stay_open() -> None:
    outputs = [{"Name": "y", "Dimensions": [-1, 5]}, {"Name": "z"}]

    (layer,) = layers_from_inspector({"Layers": [{"Name": "a", "Outputs": outputs}]})

    assert [one.shape for one in layer.outputs] == [(None, 5), None]
    assert layer.operator == "unknown"
    assert layer.parameter_bytes == 0


def test_plan_that_was_built_to_tell_names_alone_has_no_layers() -> None:
    assert layers_from_inspector({"Layers": ["conv1 + relu1"], "Bindings": []}) == ()


@pytest.mark.parametrize("told", [{}, {"Layers": 3}, [], None])
def test_other_documents_are_a_fault(told: object) -> None:
    with pytest.raises(FaultError, match="tells of no layers"):
        layers_from_inspector(told)
