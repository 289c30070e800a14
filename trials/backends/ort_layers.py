"""The layer table of an engine of ONNX Runtime, read from the optimized graph that was saved."""

import math
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING

from trials.backends.ort_lineage import WIDENED, Lineage, Origin
from trials.inspection import Layer, LayerOutput

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

_BLOCKED = "com.microsoft.nchwc"  # operators on channels in blocks; their type is float alone
_LARGE_BYTES = 1024  # of a constant that no inference of shapes looks into
_MOST_CHARACTERS = 60  # of a fact


def layers_of(given: "ModelProto", optimized: "ModelProto") -> tuple[Layer, ...]:
    """Describe every operator of an optimized graph, in its order of execution.

    Args:
        given: What the optimizer was given; used up, because its large constants are taken out.
        optimized: What it saved.
    """
    lineage = Lineage(given.graph)
    constants = {one.name: _bytes_of(one) for one in optimized.graph.initializer}
    types = _inferred(given) | _types(optimized.graph)
    layers = []
    for node in optimized.graph.node:
        origin = lineage.origin(node, constants)
        layers.append(
            Layer(
                name=node.name or node.output[0],
                operator=f"{node.domain}.{node.op_type}".removeprefix("."),
                outputs=tuple(_outputs(node, origin, types)),
                parameter_bytes=_parameter_bytes(node, constants),
                fused_from=() if origin.nodes == (node.name,) else origin.nodes,
                facts=tuple((one.name, _fact(one)) for one in node.attribute),
            )
        )
    return tuple(layers)


def _outputs(
    node: "NodeProto", origin: Origin, types: Mapping[str, LayerOutput]
) -> Iterator[LayerOutput]:
    """Yield what is known of each output: by its own name, else the shape of what it holds."""
    for place, name in enumerate(node.output):
        if name in types:
            yield types[name]
        elif name:
            held = types.get(origin.tensor or "") if place == 0 else None
            yield LayerOutput(
                name=name,
                dtype="float32" if node.domain == _BLOCKED or name.startswith(WIDENED) else None,
                shape=None if held is None else held.shape,
            )


def _inferred(model: "ModelProto") -> dict[str, LayerOutput]:
    """Infer the types of a model's tensors without copying its weights."""
    from onnx import helper, shape_inference

    graph = model.graph
    declared = {value.name for value in graph.input}
    large = [one for one in graph.initializer if _bytes_of(one) > _LARGE_BYTES]
    for tensor in large:
        if tensor.name not in declared:
            value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            graph.input.append(value)
        graph.initializer.remove(tensor)
    return _types(shape_inference.infer_shapes(model).graph)


def _types(graph: "GraphProto") -> dict[str, LayerOutput]:
    values = (*graph.input, *graph.value_info, *graph.output)
    return {one.name: _type(one) for one in values if one.type.HasField("tensor_type")}


def _type(value: "ValueInfoProto") -> LayerOutput:
    tensor = value.type.tensor_type
    sizes = (one.dim_value if one.HasField("dim_value") else None for one in tensor.shape.dim)
    return LayerOutput(
        name=value.name,
        dtype=_dtype(tensor.elem_type),
        shape=tuple(sizes) if tensor.HasField("shape") else None,
    )


@cache
def _dtype(element: int) -> str | None:
    from onnx import TensorProto, helper

    if element == TensorProto.UNDEFINED:
        return None
    return helper.tensor_dtype_to_np_dtype(element).name


def _parameter_bytes(node: "NodeProto", constants: Mapping[str, int]) -> int:
    """Add up what a node reads, and what the graphs in it hold."""
    total = sum(constants.get(name, 0) for name in node.input)
    for attribute in node.attribute:
        if attribute.HasField("t"):
            total += _bytes_of(attribute.t)
        if attribute.HasField("g"):
            total += sum(map(_bytes_of, attribute.g.initializer))
            total += sum(_parameter_bytes(inner, constants) for inner in attribute.g.node)
    return total


def _bytes_of(tensor: "TensorProto") -> int:
    from onnx import helper

    if tensor.HasField("raw_data"):
        return len(tensor.raw_data)
    size: int = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize * math.prod(tensor.dims)
    return size


def _fact(attribute: "AttributeProto") -> str:
    """Write an attribute in a few characters."""
    from onnx import AttributeProto, helper

    if attribute.type == AttributeProto.GRAPH:
        return f"a graph of {len(attribute.g.node)} operators"
    if attribute.type == AttributeProto.TENSOR:
        return f"{_dtype(attribute.t.data_type)}{list(attribute.t.dims)}"
    value = helper.get_attribute_value(attribute)
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…"
