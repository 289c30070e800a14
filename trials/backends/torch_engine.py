"""An engine of torch: a program that all requests share, on a CPU or a GPU."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trials.backend import Request, Tensors, TensorSpec
from trials.backends.torch_card import Meters
from trials.backends.torch_cuda import Cuda, CudaLanes, Forward
from trials.backends.torch_errors import RUNTIME_ERRORS, mapped, trial_error
from trials.errors import OutputError, UnsupportedError
from trials.machine.gpu_source import GpuSource
from trials.models.signature import PlainSignature
from trials.serving_options import Transfers

if TYPE_CHECKING:
    from torch import Tensor


class Place(Protocol):
    """Where an engine runs."""

    def answers(self, inputs: Sequence[NDArray[Any]]) -> "Sequence[Tensor]":
        """Run one batch in this thread and return its answers, on the CPU."""
        ...

    def lane(self, batches: Sequence[Tensors]) -> AbstractContextManager[Sequence[Request]]:
        """Bind requests; see :meth:`trials.backend.Engine.lane`."""
        ...

    @property
    def transfers(self) -> Transfers | None:
        """Whether a request copies to a device and back; None without one."""
        ...

    @property
    def uses_graphs(self) -> bool:
        """Whether a request is one launch of a CUDA graph."""
        ...

    def gpu(self) -> AbstractContextManager[GpuSource | None]:
        """Open the meters; see :meth:`trials.abilities.RunsOnGpu.gpu`."""
        ...

    def close(self) -> None:
        """Give back what was kept for later."""
        ...


class TorchEngine:
    """One program in one place; see :class:`trials.backend.Engine`."""

    def __init__(self, signature: PlainSignature, place: Place) -> None:
        self._signature = signature
        self._place = place

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs in the model's order."""
        return self._signature.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs in the model's order."""
        return self._signature.outputs

    @property
    def transfers(self) -> str | None:
        """Whether copies to the GPU and back are part of a request; None on the CPU."""
        return self._place.transfers

    @property
    def uses_graphs(self) -> bool:
        """Whether a request is one launch of a CUDA graph."""
        return self._place.uses_graphs

    def gpu(self) -> AbstractContextManager[GpuSource | None]:
        """Open the meters of the GPU; None on the CPU, or where nobody can read them."""
        return self._place.gpu()

    def infer(self, inputs: Tensors) -> Tensors:
        """Run one batch and return fresh arrays.

        Raises:
            OutputError: An output has another shape or type than promised.
            UnsupportedError: The program does not take inputs of this shape.
            MemoryLimitError: The batch does not fit.
            FaultError: torch broke.
        """
        self._check(inputs)
        with mapped("running a batch"):
            answers = self._place.answers([inputs[spec.name] for spec in self.inputs])
        arrays = [np.array(answer.numpy()) for answer in answers]  # fresh, whatever they share
        for spec, array in zip(self.outputs, arrays, strict=True):
            _check_output(spec, array)
        return {spec.name: array for spec, array in zip(self.outputs, arrays, strict=True)}

    @contextmanager
    def lane(self, batches: Sequence[Tensors]) -> Iterator[Sequence[Request]]:
        """Bind one request per batch for one worker thread.

        Raises:
            UnsupportedError: The program does not take inputs of this shape.
            MemoryLimitError: The buffers do not fit.
            FaultError: torch broke.
        """
        for batch in batches:
            self._check(batch)
        with self._place.lane(batches) as requests:
            yield requests

    def close(self) -> None:
        """Release the program."""
        self._place.close()
        del self._place

    def _check(self, inputs: Tensors) -> None:
        """See that inputs fit; torch would broadcast, or break somewhere in the middle."""
        for spec in self.inputs:
            array = inputs[spec.name]
            if not spec.takes(array):
                raise UnsupportedError(
                    f"input {spec.name!r} is {array.dtype.name} {array.shape}, and the engine "
                    f"takes {spec.dtype} {spec.shape}; use the shapes and types that it was "
                    "exported for"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuPlace:
    """The CPU.

    Attributes:
        threads: That work on one request; each lane has as many of its own.
        scoring_threads: That work on one batch that is scored: 1, so that scores do not depend on
            how an engine is served, unless the code was compiled for another number.
    """

    forward: Forward
    inputs: tuple[TensorSpec, ...]
    threads: int
    scoring_threads: int = 1

    def answers(self, inputs: Sequence[NDArray[Any]]) -> "Sequence[Tensor]":
        """Run one batch in this thread."""
        import torch

        with torch.inference_mode():
            use_threads(self.scoring_threads)
            return self.forward(*(torch.from_numpy(np.array(array)) for array in inputs))

    @contextmanager
    def lane(self, batches: Sequence[Tensors]) -> Iterator[Sequence[Request]]:
        """Copy the inputs; answers are made anew by each request, as torch does."""
        import torch

        with torch.inference_mode():  # of this thread, and so of its requests
            use_threads(self.threads)
            with mapped("binding buffers"):
                bound = [
                    tuple(torch.from_numpy(np.array(batch[spec.name])) for spec in self.inputs)
                    for batch in batches
                ]
            yield tuple(_request(self.forward, tensors) for tensors in bound)

    @property
    def transfers(self) -> None:
        """There is no device."""

    @property
    def uses_graphs(self) -> bool:
        """There is no device."""
        return False

    def gpu(self) -> AbstractContextManager[None]:
        """There is no GPU."""
        return nullcontext()

    def close(self) -> None:
        """Keep nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaPlace:
    """A GPU.

    Attributes:
        meters: Opens its meters, once a measurement.
    """

    lanes: CudaLanes
    cuda: Cuda
    meters: Meters

    def answers(self, inputs: Sequence[NDArray[Any]]) -> "Sequence[Tensor]":
        """Run one batch on this thread's current stream, without a graph."""
        import torch

        with torch.inference_mode():
            tensors = (self.cuda.on_device(torch.from_numpy(np.array(one))) for one in inputs)
            return [answer.cpu() for answer in self.lanes.forward(*tensors)]

    def lane(self, batches: Sequence[Tensors]) -> AbstractContextManager[Sequence[Request]]:
        """Bind requests on a stream of this thread's own."""
        return self.lanes.lane(batches)

    @property
    def transfers(self) -> Transfers:
        """Whether requests begin and end in the memory of the host."""
        return Transfers.INCLUDE if self.lanes.with_transfers else Transfers.EXCLUDE

    @property
    def uses_graphs(self) -> bool:
        """Whether requests replay a CUDA graph."""
        return self.lanes.is_graphed

    def gpu(self) -> AbstractContextManager[GpuSource | None]:
        """Open the meters."""
        return self.meters()

    def close(self) -> None:
        """Give unused memory back, so that the next engine finds the device as this one did."""
        self.cuda.release()


def use_threads(threads: int) -> None:
    """Let operators that this thread calls use that many threads.

    OpenMP keeps the number by thread. A thread that was never asked takes over, at its first
    operator, what any thread set last; so it is asked first.
    """
    import torch

    torch.get_num_threads()
    torch.set_num_threads(threads)


def _request(forward: Callable[..., object], inputs: "tuple[Tensor, ...]") -> Request:
    def request() -> None:
        try:
            forward(*inputs)
        except RUNTIME_ERRORS as error:
            raise trial_error(error, "running a request") from error

    return request


def _check_output(spec: TensorSpec, array: NDArray[Any]) -> None:
    if not spec.takes(array):
        raise OutputError(
            f"output {spec.name!r} is {array.dtype.name} {array.shape}, promised was {spec.dtype} "
            f"{spec.shape}; see that the module's answers do not depend on what it is fed"
        )
