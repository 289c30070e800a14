"""Quantize/dequantize pairs of fp8 and int4, which no library of ours writes well.

fp8 is E4M3 (Micikevicius et al. 2022, FP8 formats for deep learning, arXiv:2209.05433): weights are
stored in 8 bits with one scale per output channel; an activation is quantized before each product
that reads it, with one scale that puts the largest value that calibration saw at the largest
number of the format. int4 is of weights alone, symmetric, one scale for each block along the axis
that is summed (ONNX opset 21); the product itself stays in fp32.

ONNX Runtime's own fp8 quantizer writes wrong scales; NVIDIA's wants torch and rewrites its input.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trials.backend import Tensors
from trials.models.layers import PRODUCTS, Product, channel_axis, reduction_axis
from trials.models.rehearsal import Rehearsal

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

FP8_OPSET, INT4_OPSET = 19, 21  # QuantizeLinear of fp8; DequantizeLinear in blocks
BLOCKED = ("MatMul", "Gemm")

_FP8_LARGEST = 448.0  # of E4M3
_INT4_LARGEST = 7.0  # symmetric: -8 is left out
_BLOCKS = (128, 64, 32, 16)  # values that share a scale; the first that divides the axis
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

    edit = _Edit(model)
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
    edit = _Edit(model)
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


def _fp8_weight(edit: "_Edit", node: "NodeProto") -> str:
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


def _int4_weight(edit: "_Edit", node: "NodeProto") -> str:
    import ml_dtypes

    weights = edit.array(node.input[1])
    axis = reduction_axis(node, weights.ndim)
    block = _block_of(weights.shape[axis])
    assert block is not None, "only products that can be cut into blocks are named"
    by_block = np.moveaxis(weights, axis, 0).reshape(-1, block, weights.shape[1 - axis])
    peaks = np.abs(by_block).max(axis=1, keepdims=True)
    scales = np.where(peaks > 0, peaks / _INT4_LARGEST, 1.0).astype(np.float32)
    rounded = np.clip(np.rint(by_block / scales), -_INT4_LARGEST, _INT4_LARGEST)
    stored = np.moveaxis(rounded.reshape(-1, weights.shape[1 - axis]), 0, axis)
    return edit.stored(
        node.input[1],
        np.ascontiguousarray(stored).astype(ml_dtypes.int4),
        np.ascontiguousarray(np.moveaxis(scales[:, 0, :], 0, axis)),
        axis=axis,
        block_size=block,
    )


def _block_of(width: int) -> int | None:
    return next((block for block in _BLOCKS if width % block == 0), None)


@dataclass
class _Edit:
    """Nodes in the order of execution, with those that were added before their readers."""

    model: "ModelProto"
    nodes: list["NodeProto"] = field(default_factory=list)
    made: dict[str, str] = field(default_factory=dict)

    def array(self, name: str) -> NDArray[np.float32]:
        from onnx import numpy_helper

        for tensor in self.model.graph.initializer:
            if tensor.name == name:
                return numpy_helper.to_array(tensor)
        raise KeyError(name)

    def append(self, node: "NodeProto") -> None:
        self.nodes.append(node)

    def constant(self, name: str, array: NDArray[Any]) -> str:
        from onnx import numpy_helper

        self.model.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def pair(self, tensor: str, scale: NDArray[np.float32], zero: str) -> str:
        """Quantize and dequantize an activation, once for all that read it so."""
        from onnx import helper

        if tensor not in self.made:
            stem = f"{tensor}_narrow"
            scaled = self.constant(f"{stem}_scale", scale)
            self.append(
                helper.make_node(
                    "QuantizeLinear", [tensor, scaled, zero], [f"{stem}_q"], f"{stem}_q"
                )
            )
            self.append(
                helper.make_node(
                    "DequantizeLinear", [f"{stem}_q", scaled, zero], [stem], f"{stem}_dq"
                )
            )
            self.made[tensor] = stem
        return self.made[tensor]

    def stored(
        self, tensor: str, values: NDArray[Any], scales: NDArray[np.float32], **attributes: int
    ) -> str:
        """Dequantize weights that are stored narrow, once for all that read them so."""
        from onnx import helper

        if tensor not in self.made:
            stem = f"{tensor}_narrow"
            narrow = self.constant(f"{stem}_q", values)
            scaled = self.constant(f"{stem}_scale", scales)
            self.append(
                helper.make_node(
                    "DequantizeLinear", [narrow, scaled], [stem], f"{stem}_dq", **attributes
                )
            )
            self.made[tensor] = stem
        return self.made[tensor]

    def finish(self) -> None:
        """Put the nodes back, and forget the constants that nobody reads any more."""
        graph = self.model.graph
        del graph.node[:]
        graph.node.extend(self.nodes)
        read = {name for node in graph.node for name in node.input}
        read |= {value.name for value in graph.output}
        kept: list[TensorProto] = [one for one in graph.initializer if one.name in read]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        del graph.value_info[:]


assert set(BLOCKED) < set(PRODUCTS)
