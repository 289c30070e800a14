"""Type a model in bf16: 8 bits of exponent as fp32 has, 8 bits of precision.

An operator is typed so where ONNX defines it for bf16, from opset 22 on convolutions and pooling
among them; others stay in fp32, with casts around them, as do those that are named. Inputs and
outputs of the model keep their types. The products of bf16 are exact in fp32, in which GPUs add
them up (Kalamkar et al. 2019, A study of BFLOAT16 for deep learning training, arXiv:1905.12322).
"""

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from trials.errors import UnsupportedError
from trials.models.onnx_graph import drop_unread_constants, element_types

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto
    from onnx.defs import OpSchema

BF16_OPSET = 22  # Conv and pooling

_TYPE = "tensor(bfloat16)"


def use_bfloat16(model: "ModelProto", kept: Collection[str]) -> None:
    """Type a model in bf16, in place.

    Args:
        model: In fp32, of opset 22 or newer, with named nodes and inferred types.
        kept: Names of nodes that stay in fp32.

    Raises:
        UnsupportedError: It has control flow, whose bodies would need other types too.
    """
    for node in model.graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise UnsupportedError(
                f"node {node.name!r} ({node.op_type}) holds a graph of its own, which is not "
                "typed in bf16; use fp16"
            )
    _Typing(model).apply(kept)


class _Typing:
    """The model while it is typed: under which name each tensor is there in which type."""

    def __init__(self, model: "ModelProto") -> None:
        from onnx import TensorProto

        self._model = model
        self._float, self._narrow = int(TensorProto.FLOAT), int(TensorProto.BFLOAT16)
        self._types = element_types(model)
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._outputs = {value.name for value in model.graph.output}
        self._opsets = {one.domain or "ai.onnx": one.version for one in model.opset_import}
        self._names: dict[tuple[str, int], str] = {}
        self._nodes: list[NodeProto] = []

    def apply(self, kept: Collection[str]) -> None:
        graph = self._model.graph
        for node in list(graph.node):
            places = None if node.name in kept else self._places(node)
            self._append(node, places or (frozenset(), frozenset()))
        del graph.node[:], graph.value_info[:]
        graph.node.extend(self._nodes)
        drop_unread_constants(self._model)

    def _places(self, node: "NodeProto") -> tuple[frozenset[int], frozenset[int]] | None:
        """Return which inputs and outputs become bf16; None where the operator has no bf16."""
        from onnx import defs

        domain = node.domain or "ai.onnx"
        try:
            schema = defs.get_schema(
                node.op_type, self._opsets.get(domain, 1), "" if domain == "ai.onnx" else domain
            )
        except defs.SchemaError:  # another domain's, of which nothing is known
            return None
        allowed = {one.type_param_str: one.allowed_type_strs for one in schema.type_constraints}
        sides = []
        for names, formals in ((node.input, schema.inputs), (node.output, schema.outputs)):
            typed = set()
            for place, formal in self._floats(names, formals):
                types = allowed.get(formal)
                if types is None:
                    continue  # it takes fp32 and nothing else, whatever the others are
                if _TYPE not in types:
                    return None
                typed.add(place)
            sides.append(frozenset(typed))
        inputs, outputs = sides
        return (inputs, outputs) if inputs else None

    def _floats(
        self, names: Sequence[str], formals: "Sequence[OpSchema.FormalParameter]"
    ) -> Iterator[tuple[int, str]]:
        """Yield the place of each fp32 tensor, and the type that the operator declares for it."""
        for place, name in enumerate(names):
            if name and self._types.get(name) == self._float:
                yield place, formals[min(place, len(formals) - 1)].type_str

    def _append(self, node: "NodeProto", places: tuple[frozenset[int], frozenset[int]]) -> None:
        inputs, outputs = places
        for place, name in enumerate(node.input):
            if name and self._types.get(name) == self._float:
                node.input[place] = self._named(
                    name, self._narrow if place in inputs else self._float
                )
        for attribute in node.attribute:
            if node.op_type == "Cast" and outputs and attribute.name == "to":
                attribute.i = self._narrow
        self._nodes.append(node)
        for place, name in enumerate(node.output):
            if place not in outputs:
                continue
            made = f"{name}_bf16" if name in self._outputs else name
            node.output[place] = made
            self._names[name, self._narrow] = made
            if name in self._outputs:
                self._cast(made, name, self._float)
                self._names[name, self._float] = name

    def _named(self, name: str, kind: int) -> str:
        """Return the name under which a tensor has a type, casting it where it has another."""
        from onnx import numpy_helper

        known = self._names.get((name, kind))
        if known is not None:
            return known
        narrow = (name, self._narrow) in self._names
        if kind == self._float and (not narrow or name in self._constants):
            return name  # constants stay beside what is made of them, as long as they are read
        if name in self._constants:
            import ml_dtypes

            made = f"{name}_bf16"
            array = numpy_helper.to_array(self._constants[name]).astype(ml_dtypes.bfloat16)
            self._model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), made))
        else:
            made = f"{name}_{'fp32' if kind == self._float else 'bf16'}"
            self._cast(self._names.get((name, self._narrow), name), made, kind)
        self._names[name, kind] = made
        return made

    def _cast(self, source: str, made: str, kind: int) -> None:
        from onnx import helper

        self._nodes.append(helper.make_node("Cast", [source], [made], f"{made}_cast", to=kind))
