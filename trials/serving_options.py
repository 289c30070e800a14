"""Options of scope SERVING that mean the same to every backend on a GPU."""

from collections.abc import Mapping
from enum import StrEnum

from search_spaces.deployment import Scalar
from trials.backend import Option, Scope


class Transfers(StrEnum):
    """Whether copies between host and device are part of a request."""

    INCLUDE = "include"
    EXCLUDE = "exclude"


CUDA_GRAPH = Option(
    name="cuda_graph",
    scope=Scope.SERVING,
    default=True,
    choices=(False, True),
    help="a request is one launch of a CUDA graph, not one of each of its kernels",
)
TRANSFERS = Option(
    name="transfers",
    scope=Scope.SERVING,
    default=Transfers.INCLUDE.value,
    choices=tuple(each.value for each in Transfers),
    help="on a GPU, whether a request copies its inputs there and its outputs back",
)
ON_GPU = (CUDA_GRAPH, TRANSFERS)


def uses_cuda_graph(options: Mapping[str, Scalar]) -> bool:
    """Read ``cuda_graph`` from a deployment's options by name, or take its default."""
    return bool(options.get(CUDA_GRAPH.name, CUDA_GRAPH.default))


def transfers_of(options: Mapping[str, Scalar]) -> Transfers:
    """Read ``transfers`` from a deployment's options by name, or take its default."""
    return Transfers(str(options.get(TRANSFERS.name, TRANSFERS.default)))
