"""Where the operators of an optimized graph come from, proved and not guessed.

ONNX Runtime's optimizer renames what it fuses and keeps no record. Its names suggest which tensor
of the given model an operator makes; that holds only if the given operators from that tensor back
compute it from exactly the tensors that the operator reads, themselves identified in this way.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

WIDENED = "InsertedPrecisionFreeCast_"  # begins the names of float32 tensors that were float16

_SUFFIX = re.compile(r"(_nchwc)?(_token_\d+)?$")  # appended to names, of tensors or of operators
_MOVERS = ("ReorderInput", "ReorderOutput", "Transpose")  # inserted to change the layout
_INLINED = {"Max": "Relu"}  # float16 has no kernel of its own for some operators
_FUSED = re.compile(r"^(QLinear|QGemm$|Fused)")
_MOST_FORWARD = 3  # operators that are fused behind a named one: Add, activation, quantizer
_MOST_FUSED = 64  # operators; an attention block has thirty


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What an operator of the optimized graph does, in terms of the given one.

    Attributes:
        tensor: The given tensor that its first output holds, maybe in another layout; None where
            that is not known.
        nodes: Names of the given operators that it does the work of, in their order; empty where
            that is not known.
    """

    tensor: str | None = None
    nodes: tuple[str, ...] = ()


class Lineage:
    """Follows a graph as it was given through the optimized one, operator by operator."""

    def __init__(self, given: "GraphProto") -> None:
        self._nodes = list(given.node)
        self._makers = {name: at for at, node in enumerate(self._nodes) for name in node.output}
        self._named = {node.name: at for at, node in enumerate(self._nodes) if node.name}
        self._readers: dict[str, list[int]] = {}
        for at, node in enumerate(self._nodes):
            for name in node.input:
                self._readers.setdefault(name, []).append(at)
        self._constants = _constants(given)
        inputs = (value.name for value in given.input if value.name not in self._constants)
        self._held = {name: name for name in inputs}  # by tensor of the optimized graph

    def origin(self, node: "NodeProto", constants: Collection[str]) -> Origin:
        """Identify the next operator of the optimized graph, in its order of execution.

        Args:
            node: The operator.
            constants: Names of the optimized graph's own constants.
        """
        for name in node.output:
            if name in self._makers:  # the optimizer gives no old name to a new tensor
                self._held[name] = name
        passing = {*self._constants, *constants, ""}
        reads = [self._held.get(name) for name in node.input if name not in passing]
        sources = frozenset(name for name in reads if name is not None)
        found = self._first_proved(node, sources) if None not in reads else None
        if found is None:
            return Origin(tensor=self._held.get(node.output[0]))
        tensor, fused = found
        self._held[node.output[0]] = tensor
        return Origin(tensor=tensor, nodes=tuple(map(self._word, fused)))

    def _first_proved(
        self, node: "NodeProto", sources: frozenset[str]
    ) -> tuple[str, list[int]] | None:
        own = self._held.get(node.output[0])
        if own is not None:
            fused = self._between(own, sources)
            return None if fused is None else (own, fused)
        for end in self._candidates(node):
            fused = self._between(end, sources)
            if fused and self._does(node, fused, end):
                return end, fused
        if node.op_type in _MOVERS and len(sources) == 1:
            return next(iter(sources)), []
        return None

    def _candidates(self, node: "NodeProto") -> Iterator[str]:
        """Yield the given tensors that an operator with a new name for its output may make."""
        word = _SUFFIX.sub("", node.name)
        name = next(
            (
                one
                for one in (word, word.removeprefix(WIDENED), node.output[0].removeprefix(WIDENED))
                if one in self._makers
            ),
            None,
        )
        if name is None and word in self._named:
            name = self._nodes[self._named[word]].output[0]
        for _ in range(1 + _MOST_FORWARD):
            if name is None:
                return
            yield name
            readers = self._readers.get(name, [])
            name = self._nodes[readers[0]].output[0] if len(readers) == 1 else None

    def _does(self, node: "NodeProto", fused: list[int], end: str) -> bool:
        """Tell whether an operator says of itself that it does what these do, to the last one."""
        kinds = {self._nodes[at].op_type for at in fused}
        last = self._nodes[self._makers[end]].op_type
        kind = _FUSED.sub("", node.op_type) or "Gemm"
        kind = _INLINED.get(kind, kind)
        activation = next(
            (one.s.decode() for one in node.attribute if one.name == "activation" and one.s), None
        )
        if node.op_type.startswith("Q"):
            return kind in kinds and last == "QuantizeLinear"
        return kind in kinds and activation in (None, last)

    def _between(self, end: str, sources: frozenset[str]) -> list[int] | None:
        """Return the operators that compute ``end`` from exactly ``sources``, None if none do."""
        found: set[int] = set()
        reached: set[str] = set()
        open_ends = [end]
        while open_ends:
            name = open_ends.pop()
            if name in sources:
                reached.add(name)
            elif name in self._makers and name not in self._constants:
                at = self._makers[name]
                if at not in found:
                    found.add(at)
                    open_ends.extend(self._nodes[at].input)
            elif name and name not in self._constants:
                return None  # an input of the model that the operator does not read
            if len(found) > _MOST_FUSED:
                return None
        return sorted(found) if reached == sources else None

    def _word(self, at: int) -> str:
        node = self._nodes[at]
        return node.name or f"{node.op_type} of {node.output[0]}"


def _constants(graph: "GraphProto") -> frozenset[str]:
    """Name the tensors that no input of the model can change."""
    found = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" or (node.input and found.issuperset(node.input)):
            found.update(node.output)
    return frozenset(found)
