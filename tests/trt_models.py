"""Small networks as ONNX, in the precisions that TensorRT reads from the file's types."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

TOKENS, WIDTH, HEADS = 8, 16, 2
_FP8_OPSET, _IR = 19, 10


def _normal(seed: int, *shape: int) -> NDArray[np.float32]:
    values = np.random.default_rng(seed).standard_normal(shape) / np.sqrt(shape[-1])
    return np.asarray(values, np.float32)


def _model(
    nodes: Sequence[Any],
    *,
    inputs: dict[str, Sequence[Any]],
    outputs: dict[str, Sequence[Any]],
    weights: Sequence[TensorProto],
    dtype: int = TensorProto.FLOAT,
    opset: int = _FP8_OPSET,
) -> ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in outputs.items()],
        list(weights),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=_IR)


def cnn() -> ModelProto:
    """Two convolutions and a classifier; images of 3 × 16 × 16, batch free."""
    nodes = [
        helper.make_node("Conv", ["images", "first"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["c", "second"], ["d"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("GlobalAveragePool", ["e"], ["f"]),
        helper.make_node("Flatten", ["f"], ["g"]),
        helper.make_node("Gemm", ["g", "head", "bias"], ["logits"]),
    ]
    weights = {
        "first": _normal(0, 16, 3, 3, 3),
        "second": _normal(1, 16, 16, 3, 3),
        "head": _normal(2, 16, 5),
        "bias": _normal(3, 5),
    }
    return _model(
        nodes,
        inputs={"images": ("n", 3, 16, 16)},
        outputs={"logits": ("n", 5)},
        weights=[numpy_helper.from_array(each, name) for name, each in weights.items()],
    )


def transformer() -> ModelProto:
    """One block of self-attention with a feed-forward layer; 8 tokens of 16, batch free."""
    heads = [0, TOKENS, HEADS, WIDTH // HEADS]
    nodes = [
        helper.make_node("LayerNormalization", ["tokens", "scale", "shift"], ["n"], axis=-1),
        *(
            helper.make_node(*each)
            for name in "qkv"
            for each in (
                ("MatMul", ["n", f"w{name}"], [f"{name}1"]),
                ("Reshape", [f"{name}1", "heads"], [f"{name}2"]),
            )
        ),
        helper.make_node("Transpose", ["q2"], ["q3"], perm=[0, 2, 1, 3]),
        helper.make_node("Transpose", ["k2"], ["k3"], perm=[0, 2, 3, 1]),
        helper.make_node("Transpose", ["v2"], ["v3"], perm=[0, 2, 1, 3]),
        helper.make_node("MatMul", ["q3", "k3"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "v3"], ["o1"]),
        helper.make_node("Transpose", ["o1"], ["o2"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["o2", "flat"], ["o3"]),
        helper.make_node("Add", ["o3", "tokens"], ["r"]),
        helper.make_node("MatMul", ["r", "up"], ["u"]),
        helper.make_node("Relu", ["u"], ["g"]),
        helper.make_node("MatMul", ["g", "down"], ["d"]),
        helper.make_node("Add", ["d", "r"], ["answers"]),
    ]
    weights: dict[str, NDArray[Any]] = {
        "scale": np.ones(WIDTH, np.float32),
        "shift": np.zeros(WIDTH, np.float32),
        "heads": np.array(heads, np.int64),
        "flat": np.array([0, TOKENS, WIDTH], np.int64),
        "up": _normal(4, WIDTH, 4 * WIDTH),
        "down": _normal(5, 4 * WIDTH, WIDTH),
    }
    weights |= {f"w{name}": _normal(6 + at, WIDTH, WIDTH) for at, name in enumerate("qkv")}
    return _model(
        nodes,
        inputs={"tokens": ("n", TOKENS, WIDTH)},
        outputs={"answers": ("n", TOKENS, WIDTH)},
        weights=[numpy_helper.from_array(each, name) for name, each in weights.items()],
    )


def bf16_convolution() -> ModelProto:
    """A convolution whose tensors are all of type bfloat16."""
    values = _normal(0, 16, 16, 3, 3).ravel()
    weight = helper.make_tensor("w", TensorProto.BFLOAT16, [16, 16, 3, 3], values)
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["answers"]),
    ]
    return _model(
        nodes,
        inputs={"images": ("n", 16, 16, 16)},
        outputs={"answers": ("n", 16, 16, 16)},
        weights=[weight],
        dtype=TensorProto.BFLOAT16,
        opset=22,  # the first whose Conv takes bfloat16
    )


def fp8_product() -> ModelProto:
    """A matrix product between pairs of quantize and dequantize to float8 E4M3."""
    zero = helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, [], [0.0])
    nodes = [
        helper.make_node("QuantizeLinear", ["rows", "step", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["x"]),
        helper.make_node("QuantizeLinear", ["w", "step", "zero"], ["wq"]),
        helper.make_node("DequantizeLinear", ["wq", "step", "zero"], ["wx"]),
        helper.make_node("MatMul", ["x", "wx"], ["answers"]),
    ]
    return _model(
        nodes,
        inputs={"rows": ("n", 32)},
        outputs={"answers": ("n", 32)},
        weights=[
            numpy_helper.from_array(_normal(0, 32, 32), "w"),
            numpy_helper.from_array(np.array(0.05, np.float32), "step"),
            zero,
        ],
    )
