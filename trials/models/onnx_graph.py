"""Walk ONNX models: every graph, node and tensor, however deeply nested, and the files named."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from trials.errors import ModelError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

_OWN_DOMAINS = ("", "ai.onnx")


def graphs(graph: "GraphProto") -> Iterator["GraphProto"]:
    """Yield a graph and all that its control-flow nodes hold."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from graphs(inner)


def names_read(node: "NodeProto") -> Iterator[str]:
    """Yield the tensors that a node reads, and those of the bodies of its control flow."""
    yield from node.input
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            yield from (value.name for value in body.output)
            for inner in body.node:
                yield from names_read(inner)


def nodes(model: "ModelProto") -> Iterator["NodeProto"]:
    """Yield the nodes of all graphs and local functions."""
    for graph in graphs(model.graph):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def tensors(model: "ModelProto") -> Iterator["TensorProto"]:
    """Yield every stored tensor: initializers and constants."""
    for graph in graphs(model.graph):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def element_types(model: "ModelProto") -> dict[str, int]:
    """Return the element type of each tensor of the main graph, as far as ONNX infers it."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


def domains(model: "ModelProto") -> tuple[str, ...]:
    """Return the operator domains in use, other than ONNX's own and the model's own functions."""
    local = {function.domain for function in model.functions}
    used = {node.domain for node in nodes(model)}
    return tuple(sorted(used - local - set(_OWN_DOMAINS)))


def opset(model: "ModelProto") -> int:
    """Return the version of ONNX's own operators that a model was written for."""
    return max(
        (one.version for one in model.opset_import if one.domain in _OWN_DOMAINS), default=0
    )


def drop_unused_domains(model: "ModelProto") -> None:
    """Forget the operator domains that no node uses; strict readers refuse unknown ones."""
    used = {node.domain for node in nodes(model)} | set(_OWN_DOMAINS)
    kept = [one for one in model.opset_import if one.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def drop_unread_constants(model: "ModelProto") -> None:
    """Forget the constants of the main graph that no node, body or output of it reads."""
    graph = model.graph
    read = {name for node in graph.node for name in names_read(node)}
    read |= {value.name for value in graph.output}
    kept = [one for one in graph.initializer if one.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def external_files(model: "ModelProto", path: Path) -> dict[str, Path]:
    """Find the files beside ``path`` that hold tensors, by the name that the model gives them.

    Raises:
        ModelError: One is missing, or lies outside the model's folder.
    """
    folder = path.parent.resolve()
    found: dict[str, Path] = {}
    for location in sorted(set(chain.from_iterable(map(_locations, tensors(model))))):
        file = folder / location
        if Path(location).is_absolute() or not file.resolve().is_relative_to(folder):
            raise ModelError(
                f"{path}: its external data {location!r} lies outside the model's folder; "
                "save the model again with its data beside it"
            )
        if not file.is_file():
            raise ModelError(
                f"{path}: its external data {location!r} is missing; put it beside the model"
            )
        found[location] = file
    return found


def _locations(tensor: "TensorProto") -> list[str]:
    return [entry.value for entry in tensor.external_data if entry.key == "location"]
