"""A GPU as the ``torch`` backend uses it: a stream for each lane, and CUDA graphs if asked for.

A request ends when its stream is idle, as seen by the thread that waits for it. Its inputs lie in
buffers of their own, in pinned memory of the host (``transfers: include``: copied there and back
in each request) or already on the device (``exclude``).

A graph is captured once per batch after the same work ran on the same stream, so that libraries
have made their workspaces and have chosen their kernels. **Whether a graph does the work is not
believed but tried:** its answers are filled with a pattern, it is replayed, and what it wrote is
held against what the work wrote before. A graph that was captured on the wrong stream is silently
empty, and very fast.

``Cuda`` is the seam; :class:`TorchCuda` is the real one.

References:
    PyTorch, CUDA semantics: CUDA Graphs (warm-up on a side stream, static buffers, pools).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from trials.backend import Request, Tensors, TensorSpec
from trials.backends.torch_errors import RUNTIME_ERRORS, mapped, trial_error
from trials.errors import FaultError

if TYPE_CHECKING:
    from torch import Tensor

Forward: TypeAlias = "Callable[..., Sequence[Tensor]]"
"""Tensors in the model's order in, tensors in the model's order out."""

_WARMING = 3  # runs before a capture, as PyTorch's own documentation has it
_CLOSE = 1e-2  # of the largest answer; the kernels are the same, so mostly it is 0
_capturing = Lock()  # one at a time in this process: allocations of others are no part of a graph


class Stream(Protocol):
    """A queue of work on the device."""

    def synchronize(self) -> None:
        """Wait until all of its work is done."""
        ...


class Graph(Protocol):
    """Captured work.

    Attributes:
        answers: The tensors that the work returned; each replay writes into them.
    """

    answers: "Sequence[Tensor]"

    def replay(self) -> None:
        """Queue the work on the current stream."""
        ...

    def reset(self) -> None:
        """Release what the graph holds."""
        ...


class Cuda(Protocol):
    """What is asked of a GPU's library. Thread-safe."""

    def stream(self) -> Stream:
        """Make a stream."""
        ...

    def current(self, stream: Stream) -> AbstractContextManager[Any]:
        """Make a stream the one that this thread's work goes to, until the block is left."""
        ...

    def on_device(self, tensor: "Tensor") -> "Tensor":
        """Copy a tensor to the device and wait until it is there."""
        ...

    def pinned(self, tensor: "Tensor") -> "Tensor":
        """Copy a tensor to host memory that the device reads directly."""
        ...

    def pool(self) -> object:
        """Make a pool of memory that graphs of one stream share."""
        ...

    def graph(self, work: "Callable[[], Sequence[Tensor]]", pool: object) -> Graph:
        """Capture what ``work`` queues on the current stream; nothing of it runs."""
        ...

    def use_tf32(self, *, allowed: bool) -> None:
        """Let products of fp32 be rounded to tf32, or not, from now on in this process."""
        ...

    def release(self) -> None:
        """Give memory back that is kept for later, and begin to look for a new peak."""
        ...

    def peak_bytes(self) -> int:
        """Return the most memory that was held since the last ``release``."""
        ...


@cache
def this_gpu() -> "TorchCuda":
    """Return the GPU that torch has chosen; one, for its switches are the process's."""
    return TorchCuda()


class TorchCuda:
    """The GPU that torch has chosen."""

    def __init__(self) -> None:
        self._tf32: bool | None = None

    def stream(self) -> Stream:
        """Make a stream."""
        import torch

        made: Stream = torch.cuda.Stream()
        return made

    def current(self, stream: Stream) -> AbstractContextManager[Any]:
        """Make a stream this thread's current one."""
        import torch

        entered: AbstractContextManager[Any] = torch.cuda.stream(stream)
        return entered

    def on_device(self, tensor: "Tensor") -> "Tensor":
        """Copy a tensor to the device."""
        return tensor.to("cuda")

    def pinned(self, tensor: "Tensor") -> "Tensor":
        """Copy a tensor to page-locked memory."""
        return tensor.cpu().pin_memory()

    def pool(self) -> object:
        """Make a pool."""
        import torch

        return torch.cuda.graph_pool_handle()

    def graph(self, work: "Callable[[], Sequence[Tensor]]", pool: object) -> "_TorchGraph":
        """Capture work; other threads may use the device meanwhile."""
        import torch

        graph = torch.cuda.CUDAGraph()
        return _TorchGraph(graph=graph, answers=captured(graph, work, pool))

    def release(self) -> None:
        """Empty the allocator's cache; also the workspaces that it keeps for each stream."""
        import torch

        torch.cuda.synchronize()
        torch._C._cuda_clearCublasWorkspaces()  # noqa: SLF001 - torch's own way, without a name
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def peak_bytes(self) -> int:
        """Return what the allocator had reserved of the device at most."""
        import torch

        return int(torch.cuda.max_memory_reserved())

    def use_tf32(self, *, allowed: bool) -> None:
        """Set both of torch's switches, unless they stand so: it is asked before each request."""
        if allowed is self._tf32:
            return
        import warnings

        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer switches exist, which Inductor cannot read
            torch.backends.cuda.matmul.allow_tf32 = allowed
            torch.backends.cudnn.allow_tf32 = allowed
        self._tf32 = allowed


@dataclass(kw_only=True)
class _TorchGraph:
    graph: Any
    answers: "Sequence[Tensor]"

    def replay(self) -> None:
        self.graph.replay()

    def reset(self) -> None:
        self.graph.reset()


def captured(
    graph: Any, work: "Callable[[], Sequence[Tensor]]", pool: object
) -> "Sequence[Tensor]":
    """Capture work into a graph of torch and return its answers; nothing of it runs.

    Raises:
        RuntimeError: torch's own: what the work raised, if it did, or what ending raised.
    """
    graph.capture_begin(pool=pool, capture_error_mode="thread_local")
    try:
        answers = work()
    except BaseException:
        # ending a capture that broke raises too, and says less
        with suppress(RuntimeError, UserWarning):
            graph.capture_end()
        raise
    graph.capture_end()
    return answers


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaLanes:
    """Makes the lanes of one engine.

    Attributes:
        inputs: In the model's order.
        is_graphed: Requests replay a CUDA graph.
        with_transfers: Requests begin and end in the memory of the host.
    """

    cuda: Cuda
    forward: Forward
    inputs: tuple[TensorSpec, ...]
    is_graphed: bool
    with_transfers: bool

    @contextmanager
    def lane(self, batches: Sequence[Tensors]) -> Iterator[Sequence[Request]]:
        """Bind one request per batch, on a stream of this thread's own.

        Raises:
            MemoryLimitError: The buffers do not fit.
            FaultError: torch broke, or a graph does not do the work.
        """
        import torch

        graphs: list[Graph] = []
        stream = self.cuda.stream()
        with torch.inference_mode(), self.cuda.current(stream):
            try:
                with mapped("binding buffers"):
                    bound = [self._work(batch) for batch in batches]
                    stream.synchronize()
                    queues: Sequence[Callable[[], object]] = bound
                    if self.is_graphed:
                        self._capture(bound, stream, graphs)
                        queues = [graph.replay for graph in graphs]
                yield tuple(_request(queue, stream) for queue in queues)
            finally:
                stream.synchronize()
                for graph in graphs:
                    graph.reset()

    def _work(self, batch: Tensors) -> "Callable[[], Sequence[Tensor]]":
        """Return what queues a request on the current stream, and returns its answers."""
        import torch

        given = [torch.from_numpy(np.array(batch[spec.name])) for spec in self.inputs]
        on_device = [self.cuda.on_device(tensor) for tensor in given]
        forward = self.forward
        if not self.with_transfers:
            return lambda: forward(*on_device)
        at_home = [self.cuda.pinned(tensor) for tensor in given]
        answers = [self.cuda.pinned(answer) for answer in forward(*on_device)]

        def work() -> "Sequence[Tensor]":
            for there, here in zip(on_device, at_home, strict=True):
                there.copy_(here, non_blocking=True)
            for here, there in zip(answers, forward(*on_device), strict=True):
                here.copy_(there, non_blocking=True)
            return answers

        return work

    def _capture(
        self,
        bound: "Sequence[Callable[[], Sequence[Tensor]]]",
        stream: Stream,
        graphs: list[Graph],
    ) -> None:
        """Add a graph of each work; those made before one that fails are the caller's too."""
        with _capturing:
            pool = self.cuda.pool()
            for work in bound:
                for _ in range(0 if graphs else _WARMING):
                    work()
                answers = work()
                stream.synchronize()
                expected = [answer.clone() for answer in answers]
                graphs.append(self.cuda.graph(work, pool))
                _try(graphs[-1], expected, stream)


def _try(graph: Graph, expected: "Sequence[Tensor]", stream: Stream) -> None:
    """Replay a graph over poisoned answers.

    Raises:
        FaultError: It did not write what the work wrote.
    """
    import torch

    for answer, wanted in zip(graph.answers, expected, strict=True):
        answer.copy_(_poison(wanted))
    stream.synchronize()
    graph.replay()
    stream.synchronize()
    for answer, wanted in zip(graph.answers, expected, strict=True):
        largest = float(torch.nan_to_num(wanted.double()).abs().max()) if wanted.numel() else 0.0
        if not torch.allclose(
            answer.double(), wanted.double(), rtol=0.0, atol=_CLOSE * largest, equal_nan=True
        ):
            raise FaultError(
                "a CUDA graph does not give the answers of the work that it was captured from; "
                "report the model to trifront, and use cuda_graph: false"
            )


def _poison(wanted: "Tensor") -> "Tensor":
    """Return what no work writes: another number in every place."""
    return wanted * float("nan") if wanted.is_floating_point() else wanted == 0


def _request(queue: Callable[[], object], stream: Stream) -> Request:
    wait = stream.synchronize

    def request() -> None:
        try:
            queue()
            wait()
        except RUNTIME_ERRORS as error:
            raise trial_error(error, "running a request") from error

    return request
