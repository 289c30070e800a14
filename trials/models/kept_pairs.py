"""Keep some products of a quantized model in fp32: let them read what stood before their pairs.

A pair is taken out for the kept product alone, and stays for whoever else reads it. An addition
that joins a kept convolution with another branch goes with it, for its pairs are there only to be
fused with that convolution. What nobody reads any more is removed.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

from trials.models.layers import PRODUCTS
from trials.models.onnx_graph import drop_unread_constants, names_read

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def keep_in_fp32(model: "ModelProto", kept: Collection[str]) -> None:
    """Take the quantize/dequantize pairs around products out of a model, in place.

    Args:
        model: With pairs before products, weights included: their values in fp32 are still there.
        kept: Names of the products.
    """
    view = _View(model)
    raised = [node for node in model.graph.node if node.name in kept]
    for node in raised:
        _read_unpaired(node, view)
        for reader in view.readers_of(node.output[0]):
            if reader.op_type == "Add":
                _read_unpaired(reader, view)
        _answer_unpaired(node, view)
    _remove_unread(model)


class _View:
    """Who makes a tensor, and which pair it comes from."""

    def __init__(self, model: "ModelProto") -> None:
        self.model = model
        self._makers = {name: node for node in model.graph.node for name in node.output}
        self.outputs = {value.name for value in model.graph.output}

    def before_pair(self, name: str) -> str:
        """Return the tensor that was quantized and dequantized to make this one, or its own."""
        outer = self._makers.get(name)
        if outer is None or outer.op_type != "DequantizeLinear":
            return name
        inner = self._makers.get(outer.input[0])
        if inner is None or inner.op_type != "QuantizeLinear":
            return name
        before: str = inner.input[0]
        return before

    def readers_of(self, name: str) -> "list[NodeProto]":
        """Return who reads a tensor, or the pair behind it."""
        nodes = [node for node in self.model.graph.node if node.op_type != "QuantizeLinear"]
        return [node for node in nodes if name in (self.before_pair(each) for each in node.input)]


def _read_unpaired(node: "NodeProto", view: _View) -> None:
    for place, name in enumerate(node.input):
        node.input[place] = view.before_pair(name)


def _answer_unpaired(node: "NodeProto", view: _View) -> None:
    """Let readers that are no products, and the model's outputs, have the answer as it is."""
    answer = node.output[0]
    for reader in view.readers_of(answer):
        if reader.op_type not in PRODUCTS:
            for place, name in enumerate(reader.input):
                if view.before_pair(name) == answer:
                    reader.input[place] = answer
    for made in [name for name in view.outputs if view.before_pair(name) == answer]:
        _answer_as(made, node, view.model)


def _answer_as(output: str, node: "NodeProto", model: "ModelProto") -> None:
    """Let a node make an output of the model, which the pair behind it made until now."""
    answer = node.output[0]
    for each in model.graph.node:
        if output in each.output:
            each.output[0] = f"{output}_unread"
        for place, name in enumerate(each.input):
            if name == answer:
                each.input[place] = output
    node.output[0] = output


def _remove_unread(model: "ModelProto") -> None:
    graph = model.graph
    wanted = {value.name for value in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if not wanted.isdisjoint(node.output):
            nodes.append(node)
            wanted.update(names_read(node))
    del graph.node[:]
    graph.node.extend(reversed(nodes))
    drop_unread_constants(model)
