"""A model as the recipes want it: in fp32, without what can be folded, every node with a name."""

from pathlib import Path
from typing import TYPE_CHECKING

from trials.errors import UnsupportedError
from trials.models.layers import PRODUCTS
from trials.models.onnx_graph import drop_unused_domains, nodes, opset, tensors

if TYPE_CHECKING:
    from onnx import ModelProto

_LEAST_QDQ_OPSET = 13  # QuantizeLinear per channel
_ERROR = 3  # log severity of ONNX Runtime


def float_model(path: Path) -> "ModelProto":
    """Load a model with its data, refusing one that is no longer in fp32.

    Raises:
        UnsupportedError: It holds reduced types or dequantizers.
    """
    import onnx
    from onnx import TensorProto

    model = onnx.load_model(path)
    reduced = {TensorProto.FLOAT16, TensorProto.BFLOAT16}
    if any(node.op_type == "DequantizeLinear" for node in nodes(model)) or any(
        tensor.data_type in reduced for tensor in tensors(model)
    ):
        raise UnsupportedError(
            "the file is already in a reduced precision; use fp32, which runs it as it is, or "
            "name the original as the variant"
        )
    return model


def simplified_model(
    path: Path, scratch: Path, precision: str, *, least_opset: int = _LEAST_QDQ_OPSET
) -> "ModelProto":
    """Fold constants and batch normalizations, infer shapes and name every node.

    Args:
        path: A checked ONNX file.
        scratch: Folder for a file that may be overwritten.
        precision: What for, in messages.
        least_opset: Raised to it where the model's is older, though not from below 13.

    Raises:
        UnsupportedError: It is no longer in fp32, too old, or has nothing to lower.
    """
    import onnx
    import onnxruntime

    original = float_model(path)
    if opset(original) < _LEAST_QDQ_OPSET:
        raise UnsupportedError(
            f"{precision} needs opset {_LEAST_QDQ_OPSET}, the model has {opset(original)}; export "
            "it with a newer opset, such as 18"
        )
    if not any(node.op_type in PRODUCTS for node in original.graph.node):
        raise UnsupportedError("the model has no Conv, MatMul or Gemm to quantize; use fp32")
    simplified = scratch / "simplified.onnx"
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(simplified)
    options.log_severity_level = _ERROR
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    model = onnx.load_model(simplified)
    if opset(model) < least_opset:
        drop_unused_domains(model)
        model = onnx.version_converter.convert_version(model, least_opset)
    model = onnx.shape_inference.infer_shapes(model)
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"  # the quantizer tells nodes apart by name
    drop_unused_domains(model)
    return model
