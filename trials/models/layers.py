"""The layers that a precision lowers one by one: convolutions and matrix products.

They are told apart by the name of their node, which a model that comes from here always has, and
shown to people with the name of their weights, which is what the network's author wrote.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

PRODUCTS = ("Conv", "MatMul", "Gemm")

_WEIGHT = 1  # index of the input that holds the weights
_LEAST_RANK = 2  # of weights that are multiplied


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A node that multiplies.

    Attributes:
        name: Of the node; no other node of the graph has it.
        operator: ``Conv``, ``MatMul`` or ``Gemm``.
        weight: Name of its constant weights; empty where both factors are activations.
        parameters: How many numbers the weights hold; 0 where there are none.
    """

    name: str
    operator: str
    weight: str
    parameters: int

    def __str__(self) -> str:
        return f"{self.name} ({self.weight})" if self.weight else self.name


def products_of(model: "ModelProto") -> tuple[Product, ...]:
    """List the products of a graph in the order of execution.

    Args:
        model: One whose nodes are named.
    """
    sizes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    return tuple(_product(node, sizes) for node in model.graph.node if node.op_type in PRODUCTS)


def weighted(products: Iterable[Product], operators: Iterable[str] = PRODUCTS) -> list[Product]:
    """Return those of some operators that have constant weights."""
    return [one for one in products if one.weight and one.operator in set(operators)]


def name_nodes(model: "ModelProto") -> None:
    """Give every node a name of its own; those that have one keep it."""
    given = {node.name for node in model.graph.node}
    seen: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{index}"
            while node.name in given:
                node.name += "_"
            given.add(node.name)
        seen.add(node.name)


def reduction_axis(node: "NodeProto", rank: int) -> int:
    """Return the axis of a product's weights along which it sums; for MatMul and Gemm."""
    transposed = any(one.name == "transB" and one.i for one in node.attribute)
    return rank - 1 if transposed else rank - 2


def channel_axis(node: "NodeProto", rank: int) -> int:
    """Return the axis of a product's weights along which its outputs lie."""
    if node.op_type == "Conv":
        return 0
    return rank - 2 if reduction_axis(node, rank) == rank - 1 else rank - 1


def _product(node: "NodeProto", sizes: dict[str, "Iterable[int]"]) -> Product:
    from math import prod

    name = node.input[_WEIGHT]
    dims = tuple(sizes.get(name, ()))
    stored = len(dims) >= _LEAST_RANK
    return Product(
        name=node.name,
        operator=node.op_type,
        weight=name if stored else "",
        parameters=prod(dims) if stored else 0,
    )
