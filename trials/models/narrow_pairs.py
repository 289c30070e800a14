"""Quantize/dequantize pairs of fp8 and int4, which no library of ours writes well.

fp8 is E4M3 (Micikevicius et al. 2022, FP8 formats for deep learning, arXiv:2209.05433): weights
are stored in 8 bits with one scale per output channel; an activation is quantized before each
product that reads it, with one scale that puts the largest value that calibration saw at the
largest number of the format. int4 is of weights alone, symmetric, one scale for each block along
the axis that is summed (ONNX opset 21), clipped where that leaves less squared error; the product
itself stays in fp32.

ONNX Runtime's own fp8 quantizer writes wrong scales; NVIDIA's wants torch and rewrites its input.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trials.backend import Tensors
from trials.models.graph_edit import GraphEdit
from trials.models.layers import Product, channel_axis, reduction_axis
from trials.models.rehearsal import Rehearsal

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

FP8_OPSET, INT4_OPSET = 19, 21  # QuantizeLinear of fp8; DequantizeLinear in blocks
BLOCKED = ("MatMul", "Gemm")

_FP8_LARGEST = 448.0  # of E4M3
_INT4_LARGEST = 7.0  # symmetric: -8 is left out
_BLOCKS = (128, 64, 32, 16)  # values that share a scale; the first that divides the axis
_CLIPPED = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7)  # shares of the largest value that int4 reaches to
_MATRIX = 2  # rank


def add_fp8_pairs(
    model: "ModelProto", layers: Collection[str], largest: Mapping[str, float]
) -> None:
    """Quantize weights and activations of products to fp8, in place.

    Args:
        model: Of opset 19 or newer, with named nodes.
        layers: Names of the products, all with constant weights.
        largest: The largest absolute value of each tensor that they read.
    """
    import ml_dtypes

    edit = GraphEdit(model)
    zero = edit.constant("fp8_zero", np.zeros((), ml_dtypes.float8_e4m3fn))
    for node in model.graph.node:
        if node.name in layers:
            node.input[0] = edit.pair(node.input[0], _fp8_scale(largest[node.input[0]]), zero)
            node.input[1] = _fp8_weight(edit, node)
        edit.append(node)
    edit.finish()


def add_int4_weights(model: "ModelProto", layers: Collection[str]) -> None:
    """Store the weights of matrix products in four bits, in place.

    Args:
        model: Of opset 21 or newer, with named nodes.
        layers: Names of the products, all of them ``blocked``.
    """
    edit = GraphEdit(model)
    for node in model.graph.node:
        if node.name in layers:
            node.input[1] = _int4_weight(edit, node)
        edit.append(node)
    edit.finish()


def blocked(model: "ModelProto", products: Sequence[Product]) -> list[Product]:
    """Return the products whose weights can be cut into blocks: matrices of a fitting width."""
    nodes = {node.name: node for node in model.graph.node}
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    found = []
    for product in products:
        shape = shapes.get(product.weight, ())
        if product.operator in BLOCKED and len(shape) == _MATRIX:
            axis = reduction_axis(nodes[product.name], _MATRIX)
            if _block_of(shape[axis]) is not None:
                found.append(product)
    return found


def largest_activations(
    model: "ModelProto", layers: Collection[str], batches: Sequence[Tensors]
) -> dict[str, float]:
    """Return the largest absolute value of each tensor that products read.

    Args:
        model: In fp32, with named nodes.
        layers: Names of the products.
        batches: Of samples, by input name, at least one.
    """
    import onnx

    names = {node.input[0] for node in model.graph.node if node.name in layers}
    inputs = {value.name for value in model.graph.input}
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    made = {value.name for value in watched.graph.output}
    watched.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in sorted(names - inputs - made)
    )
    largest = dict.fromkeys(names, 0.0)
    rehearsal = Rehearsal(watched)
    for batch in batches:
        seen = {**batch, **rehearsal.answers([batch])}
        for name in names:
            largest[name] = max(largest[name], float(np.abs(seen[name]).max()))
    return largest


def _fp8_scale(largest: float) -> NDArray[np.float32]:
    return np.asarray(largest / _FP8_LARGEST or 1.0, np.float32)  # 1 where all is zero


def _fp8_weight(edit: GraphEdit, node: "NodeProto") -> str:
    import ml_dtypes

    weights = edit.array(node.input[1])
    axis = channel_axis(node, weights.ndim)
    others = tuple(each for each in range(weights.ndim) if each != axis)
    peaks = np.abs(weights).max(axis=others, keepdims=True)
    scales = np.where(peaks > 0, peaks / _FP8_LARGEST, 1.0).astype(np.float32)
    stored = np.clip(weights / scales, -_FP8_LARGEST, _FP8_LARGEST)
    return edit.stored(
        node.input[1], stored.astype(ml_dtypes.float8_e4m3fn), scales.reshape(-1), axis=axis
    )


def _int4_weight(edit: GraphEdit, node: "NodeProto") -> str:
    import ml_dtypes

    weights = edit.array(node.input[1])
    axis = reduction_axis(node, weights.ndim)
    block = _block_of(weights.shape[axis])
    assert block is not None, "only products that can be cut into blocks are named"
    by_block = np.moveaxis(weights, axis, 0).reshape(-1, block, weights.shape[1 - axis])
    rounded, scales = _rounded_to_int4(by_block)
    stored = np.moveaxis(rounded.reshape(-1, weights.shape[1 - axis]), 0, axis)
    return edit.stored(
        node.input[1],
        np.ascontiguousarray(stored).astype(ml_dtypes.int4),
        np.ascontiguousarray(np.moveaxis(scales[:, 0, :], 0, axis)),
        axis=axis,
        block_size=block,
    )


def _rounded_to_int4(
    by_block: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Round blocks with the scale, of a few, that leaves the least squared error.

    Args:
        by_block: Shape ``(blocks, block, columns)``.

    Returns:
        Whole numbers of the same shape, and scales of shape ``(blocks, 1, columns)``.
    """
    peaks = np.abs(by_block).max(axis=1, keepdims=True)
    whole = np.where(peaks > 0, peaks / _INT4_LARGEST, 1.0).astype(np.float32)
    best, scales, least = np.zeros_like(by_block), whole, np.full_like(whole, np.inf)
    for share in _CLIPPED:
        tried = whole * np.float32(share)
        rounded = np.clip(np.rint(by_block / tried), -_INT4_LARGEST, _INT4_LARGEST)
        error = np.square(rounded * tried - by_block).sum(axis=1, keepdims=True)
        better = error < least
        best, scales = np.where(better, rounded, best), np.where(better, tried, scales)
        least = np.minimum(least, error)
    return best, scales


def _block_of(width: int) -> int | None:
    return next((block for block in _BLOCKS if width % block == 0), None)
