"""CUDA's two libraries, as far as ``trials/devices/cuda.py`` calls them, on a computed device.

Written after pycuda 2026.1 and cuda.bindings 13.5: names, arguments and ways to fail.
"""

from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import partial
from threading import local
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trials.devices.device import Graph
from trials.devices.fake import FakeDevice
from trials.devices.fake_things import FakeEvent, FakeGraph, FakeMemory, FakePinned, FakeStream
from trials.errors import FaultError, MemoryLimitError, TrialError


class CudaError(Exception):
    """``pycuda.driver.Error``."""


class CudaMemoryError(CudaError):
    """``pycuda.driver.MemoryError``."""


class CUresult(IntEnum):
    """Codes of the driver."""

    CUDA_SUCCESS = 0
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901


def driver_over(device: FakeDevice) -> tuple[Any, Any]:
    """Return (``pycuda.driver``, ``cuda.bindings.driver``) over a computed device."""
    return Driver(device), _bindings_over(device)


def calls(call: Callable[..., Any], *args: Any) -> Any:
    """Call, and fail as pycuda does."""
    try:
        return call(*args)
    except MemoryLimitError as error:
        raise CudaMemoryError(f"cuMemAlloc failed: out of memory ({error})") from error
    except TrialError as error:
        raise CudaError(f"a call failed: {error}") from error


class Driver:
    """``pycuda.driver``."""

    Error = CudaError
    MemoryError = CudaMemoryError

    def __init__(self, device: FakeDevice) -> None:
        self.device = device
        self.pinned: dict[int, FakePinned] = {}
        self.Context = Context(device)
        self.Device = partial(Device, self)
        self.Event = partial(Event, device)
        self.event_flags = SimpleNamespace(DEFAULT=0, BLOCKING_SYNC=1)
        self.Stream = partial(Stream, device)

    def mem_alloc(self, size: int) -> "Allocation":
        return Allocation(calls(self.device.memory, size))

    def pagelocked_empty(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        held = calls(self.device.pinned, shape, dtype)
        array: NDArray[Any] = np.asarray(Pagelocked(self, held))
        self.pinned[array.ctypes.data] = held
        return array

    def memcpy_htod_async(self, to: int, array: NDArray[Any], stream: "Stream") -> None:
        memory = SimpleNamespace(address=to, size_bytes=array.nbytes)
        calls(stream.inner.copy_in, memory, self.pinned[array.ctypes.data])

    def memcpy_dtoh_async(self, array: NDArray[Any], at: int, stream: "Stream") -> None:
        memory = SimpleNamespace(address=at, size_bytes=array.nbytes)
        calls(stream.inner.copy_out, self.pinned[array.ctypes.data], memory)

    def memset_d8_async(self, to: int, byte: int, size: int, stream: "Stream") -> None:
        calls(stream.inner.fill, SimpleNamespace(address=to, size_bytes=size), byte)


class Context:
    """A context; what is static in pycuda is so here, because there is one."""

    def __init__(self, device: FakeDevice) -> None:
        self._device = device
        self._seats = local()

    def push(self) -> None:
        seat = self._device.current()
        seat.__enter__()
        self._seats.stack = [*getattr(self._seats, "stack", []), seat]

    def pop(self) -> None:
        *self._seats.stack, seat = self._seats.stack
        seat.__exit__(None, None, None)


class Device:
    """A device."""

    def __init__(self, driver: Driver, index: int) -> None:
        assert index == 0
        self._driver = driver

    def name(self) -> str:
        return self._driver.device.facts.name

    def compute_capability(self) -> tuple[int, int]:
        return self._driver.device.facts.compute_capability

    def total_memory(self) -> int:
        return self._driver.device.facts.memory_bytes

    def retain_primary_context(self) -> Context:
        return self._driver.Context


class Allocation:
    """Memory of the device, which is given back once."""

    def __init__(self, memory: FakeMemory) -> None:
        self._memory = memory

    def __int__(self) -> int:
        return self._memory.address

    def free(self) -> None:
        calls(self._memory.close)


class Pagelocked:
    """What an array of pycuda is a view of."""

    def __init__(self, driver: Driver, held: FakePinned) -> None:
        self._driver = driver
        self._held = held
        self.__array_interface__ = held.array.__array_interface__

    def free(self) -> None:
        del self._driver.pinned[self._held.array.ctypes.data]
        calls(self._held.close)


class Event:
    """An event, given back with its object."""

    def __init__(self, device: FakeDevice, flags: int = 0) -> None:
        self._device = device
        self.flags = flags
        self.inner: FakeEvent = calls(device.event)

    def __del__(self) -> None:
        self._device._gpu.alive -= 1

    def record(self, stream: "Stream") -> None:
        calls(stream.inner.record, self.inner)

    def query(self) -> bool:
        return bool(calls(self.inner.is_done))

    def synchronize(self) -> None:
        calls(self.inner.wait)

    def time_since(self, start: "Event") -> float:
        return float(calls(self.inner.elapsed_s, start.inner)) * 1e3


class Stream:
    """A stream, given back with its object."""

    def __init__(self, device: FakeDevice, flags: int) -> None:
        assert flags == 1, "the default kind waits for the default stream"
        self._device = device
        self.inner: FakeStream = calls(device.stream)
        self.handle = self.inner.handle

    def __del__(self) -> None:
        self._device._gpu.alive -= 1

    def synchronize(self) -> None:
        calls(self.inner.synchronize)


def _bindings_over(device: FakeDevice) -> Any:
    """Return ``cuda.bindings.driver``, whose calls return codes instead of raising."""
    captures: dict[int, _Capture] = {}

    def begin(stream: int, mode: str) -> tuple[CUresult]:
        assert mode == "thread local"
        captures[stream] = _Capture(device, device._streams[stream])
        return (CUresult.CUDA_SUCCESS,)

    def end(stream: int) -> tuple[CUresult, Any]:
        try:
            work = captures.pop(stream).ended()
        except FaultError:
            return CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, None
        return CUresult.CUDA_SUCCESS, work

    def instantiate(work: Sequence[Any], flags: int) -> tuple[CUresult, Graph]:
        assert flags == 0
        stream = next(iter(device._streams.values()))
        return CUresult.CUDA_SUCCESS, FakeGraph(stream._seat, tuple(work))

    def launch(graph: FakeGraph, stream: int) -> tuple[CUresult]:
        device._streams[stream].launch(graph)
        return (CUresult.CUDA_SUCCESS,)

    def destroy(graph: FakeGraph) -> tuple[CUresult]:
        graph.close()
        return (CUresult.CUDA_SUCCESS,)

    return SimpleNamespace(
        CUresult=CUresult,
        CUstream=int,
        CUstreamCaptureMode=SimpleNamespace(
            CU_STREAM_CAPTURE_MODE_THREAD_LOCAL="thread local",
        ),
        cuDeviceGet=lambda index: (CUresult.CUDA_SUCCESS, index),
        cuDeviceGetUuid=lambda _: (CUresult.CUDA_SUCCESS, SimpleNamespace(bytes=b"\x01" * 16)),
        cuStreamBeginCapture=begin,
        cuStreamEndCapture=end,
        cuGraphGetNodes=lambda work: (CUresult.CUDA_SUCCESS, [], len(work)),
        cuGraphInstantiate=instantiate,
        cuGraphLaunch=launch,
        cuGraphExecDestroy=destroy,
        cuGraphDestroy=lambda _: (CUresult.CUDA_SUCCESS,),
    )


class _Capture:
    """A capture between its begin and its end."""

    def __init__(self, device: FakeDevice, stream: FakeStream) -> None:
        self._threads = device._gpu.threads
        self._stream = stream
        stream._captured, stream._spoilt, self._threads.capturing = [], None, stream

    def ended(self) -> Sequence[Any]:
        stream = self._stream
        work, spoilt = stream._captured, stream._spoilt
        stream._captured, self._threads.capturing = None, None
        if spoilt is not None:
            raise FaultError(spoilt)
        return work or []
