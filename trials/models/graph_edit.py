"""Put quantizers and dequantizers into a graph, before the nodes that read them."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trials.models.onnx_graph import drop_unread_constants

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


@dataclass
class GraphEdit:
    """Nodes in the order of execution, with those that were added before their readers.

    The graph of the model is as it was until :meth:`finish`, but for constants that were added.
    """

    model: "ModelProto"
    nodes: list["NodeProto"] = field(default_factory=list)
    made: dict[str, str] = field(default_factory=dict)

    def array(self, name: str) -> NDArray[np.float32]:
        """Return a constant.

        Raises:
            KeyError: There is none of that name.
        """
        from onnx import numpy_helper

        for tensor in self.model.graph.initializer:
            if tensor.name == name:
                return numpy_helper.to_array(tensor)
        raise KeyError(name)

    def append(self, node: "NodeProto") -> None:
        """Add a node; those that it reads were added before."""
        self.nodes.append(node)

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """Add a constant and return its name."""
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
        self,
        tensor: str,
        values: NDArray[Any],
        scales: NDArray[np.float32],
        *,
        axis: int,
        block_size: int | None = None,
    ) -> str:
        """Dequantize weights that are stored narrow, once for all that read them so."""
        from onnx import helper

        if tensor not in self.made:
            attributes: dict[str, Any] = {"axis": axis}
            if block_size is not None:
                attributes["block_size"] = block_size
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
        del graph.value_info[:]
        drop_unread_constants(self.model)
