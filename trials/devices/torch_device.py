"""A GPU through PyTorch with CUDA: for machines that have it and lack pycuda.

Read, not run by us: PyTorch 2.13, whose names are tested against the installed one.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from trials.devices.device import (
    DeviceFacts,
    DeviceMemory,
    Event,
    Graph,
    PinnedArray,
    nvml_uuid,
)
from trials.errors import FaultError, MemoryLimitError, UnsupportedError
from trials.machine.gpus import driver_version

_MS_PER_S = 1e3
_PLACE = "cuda:0"  # the first GPU that CUDA shows
_capturing = Lock()  # one at a time: what warnings do is set for all threads at once


def torch_device() -> "TorchDevice":
    """Find the first GPU that CUDA shows (``CUDA_VISIBLE_DEVICES``).

    Raises:
        UnsupportedError: PyTorch is not installed, or has no CUDA, or there is no GPU.
    """
    try:
        torch = import_module("torch")
    except ImportError as error:
        raise UnsupportedError(f"PyTorch: {error}") from error
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = f"it is built for CUDA {built} and sees no GPU" if built else "it has no CUDA"
        raise UnsupportedError(f"PyTorch {torch.__version__}: {why}")
    return TorchDevice(torch)


@contextmanager
def _mapped(torch: Any, doing: str) -> Iterator[None]:
    """Raise what PyTorch raises as an error of ours."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryLimitError(
            f"{doing}: the GPU has no memory for it; lower batch_size or concurrency"
        ) from error
    except RuntimeError as error:
        raise FaultError(f"{doing}: CUDA failed ({str(error).splitlines()[0]})") from error


class TorchDevice:
    """A GPU; see :class:`trials.devices.device.Device`."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch

    @cached_property
    def facts(self) -> DeviceFacts:
        """Which it is; asked once, for the version of the driver is NVML's to tell."""
        with _mapped(self._torch, "asking which GPU it is"):
            found = self._torch.cuda.get_device_properties(_PLACE)
        return DeviceFacts(
            name=str(found.name),
            uuid=nvml_uuid(str(found.uuid), name=str(found.name)),
            compute_capability=(int(found.major), int(found.minor)),
            driver=driver_version(),
            memory_bytes=int(found.total_memory),
        )

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the device that of the calling thread."""
        with self._torch.cuda.device(_PLACE):
            yield

    def memory(self, size_bytes: int) -> "TorchMemory":
        """Allocate."""
        torch = self._torch
        with _mapped(torch, "allocating memory"):
            return TorchMemory(torch.empty(size_bytes, dtype=torch.uint8, device=_PLACE))

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> "TorchPinned":
        """Allocate page-locked memory of the host."""
        torch, kind = self._torch, np.dtype(dtype)
        size = int(np.prod(shape)) * kind.itemsize
        with _mapped(torch, "allocating pinned memory"):
            held = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        return TorchPinned(held, held.numpy().view(kind).reshape(shape))

    def stream(self) -> "TorchStream":
        """Make a stream; PyTorch's come from a pool of 32."""
        with _mapped(self._torch, "making a stream"):
            return TorchStream(self._torch, self._torch.cuda.Stream(_PLACE))

    def event(self, *, sleeps: bool = False) -> "TorchEvent":
        """Make an event that can tell times; without ``sleeps``, waiting for it spins."""
        with _mapped(self._torch, "making an event"):
            made = self._torch.cuda.Event(enable_timing=True, blocking=sleeps)
            return TorchEvent(self._torch, made)

    def close(self) -> None:
        """Give back what PyTorch's allocator keeps; the context is PyTorch's own."""
        with _mapped(self._torch, "letting go of the GPU"):
            self._torch.cuda.empty_cache()


class TorchMemory:
    """Memory of a GPU."""

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor
        self.address = int(tensor.data_ptr())
        self.size_bytes = int(tensor.numel())

    @property
    def tensor(self) -> Any:
        """Its bytes, of shape ``(size_bytes,)``."""
        return self._tensor

    def close(self) -> None:
        """Give it back to PyTorch's allocator."""
        del self._tensor


class TorchPinned:
    """Page-locked memory of the host."""

    def __init__(self, tensor: Any, array: NDArray[Any]) -> None:
        self.tensor = tensor
        self.array = array

    def close(self) -> None:
        """Give it back to PyTorch's allocator."""
        del self.tensor, self.array


class TorchEvent:
    """An event that tells times."""

    def __init__(self, torch: Any, event: Any) -> None:
        self._torch = torch
        self.event = event

    def is_done(self) -> bool:
        """Tell whether it has happened."""
        with _mapped(self._torch, "asking for an event"):
            return bool(self.event.query())

    def wait(self) -> None:
        """Wait for it, without the interpreter's lock."""
        with _mapped(self._torch, "waiting for an event"):
            self.event.synchronize()

    def elapsed_s(self, since: Event) -> float:
        """Return the time between two that have happened."""
        assert isinstance(since, TorchEvent), "events of one device"
        with _mapped(self._torch, "asking for the time between events"):
            return float(since.event.elapsed_time(self.event)) / _MS_PER_S

    def close(self) -> None:
        """Let it be destroyed."""
        del self.event


class TorchGraph:
    """A captured graph."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph

    def close(self) -> None:
        """Give it back."""
        self.graph.reset()


class TorchStream:
    """A stream of a GPU."""

    def __init__(self, torch: Any, stream: Any) -> None:
        self._torch = torch
        self._stream = stream
        self.handle = int(stream.cuda_stream)

    def copy_in(self, target: DeviceMemory, source: PinnedArray) -> None:
        """Copy an array to memory."""
        assert isinstance(target, TorchMemory), "memory of one device"
        assert isinstance(source, TorchPinned), "memory of one device"
        with self._doing("copying to the GPU"):
            size = source.tensor.numel()
            target.tensor[:size].copy_(source.tensor, non_blocking=True)

    def copy_out(self, target: PinnedArray, source: DeviceMemory) -> None:
        """Copy memory to an array."""
        assert isinstance(source, TorchMemory), "memory of one device"
        assert isinstance(target, TorchPinned), "memory of one device"
        with self._doing("copying from the GPU"):
            size = target.tensor.numel()
            target.tensor.copy_(source.tensor[:size], non_blocking=True)

    def fill(self, target: DeviceMemory, byte: int) -> None:
        """Set every byte."""
        assert isinstance(target, TorchMemory), "memory of one device"
        with self._doing("filling memory"):
            target.tensor.fill_(byte)

    def record(self, event: Event) -> None:
        """Let an event happen when the work so far is done."""
        assert isinstance(event, TorchEvent), "events of one device"
        with _mapped(self._torch, "recording an event"):
            event.event.record(self._stream)

    def capture(self, enqueue: Callable[[], object]) -> TorchGraph:
        """Capture what is asked of this stream; what other threads do is none of its business."""
        graph = self._torch.cuda.CUDAGraph()
        with _capturing, self._doing("capturing"), warnings.catch_warnings():
            # of an empty graph PyTorch only warns
            warnings.filterwarnings("error", message=".*CUDA Graph is empty", category=UserWarning)
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                enqueue()
            except BaseException:
                self._abandon(graph)
                raise
            try:
                graph.capture_end()
            except UserWarning as warning:
                raise FaultError(f"nothing was captured: {warning}") from warning
        return TorchGraph(graph)

    def launch(self, graph: Graph) -> None:
        """Do captured work."""
        assert isinstance(graph, TorchGraph), "graphs of one device"
        with self._doing("launching a graph"):
            graph.graph.replay()

    def synchronize(self) -> None:
        """Wait until all work is done, without the interpreter's lock."""
        with _mapped(self._torch, "waiting for a stream"):
            self._stream.synchronize()

    def close(self) -> None:
        """Give it back to PyTorch's pool."""
        del self._stream

    @contextmanager
    def _doing(self, doing: str) -> Iterator[None]:
        """Let PyTorch's own work go to this stream."""
        with self._torch.cuda.stream(self._stream), _mapped(self._torch, doing):
            yield

    @staticmethod
    def _abandon(graph: Any) -> None:
        """End a capture that broke; its own error is the one to raise."""
        try:
            graph.capture_end()
        except (RuntimeError, UserWarning):
            return
