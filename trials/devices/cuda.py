"""A GPU through CUDA's driver: pycuda, and for graphs ``cuda.bindings`` on the same context.

pycuda has memory, pinned arrays, streams and events, and no stream capture; ``cuda.bindings``
takes the handles of its streams. The context is the device's primary one, which other libraries
(TensorRT, PyTorch) use too; ``pycuda.autoinit`` would make one of its own, in which their memory
is not known.

Read, not run by us: pycuda 2026.1, its source, and cuda.bindings 13.5. The calls and their
order are tested over a computed driver (``tests/device_fakes.py``).

References:
    CUDA driver API, Stream Management: ``cuStreamBeginCapture``; Graph Management.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, wraps
from importlib import import_module
from threading import Lock
from typing import Any, Concatenate, ParamSpec, TypeVar
from uuid import UUID

from numpy.typing import DTypeLike, NDArray

from trials.devices.device import (
    DeviceFacts,
    DeviceMemory,
    Event,
    Graph,
    PinnedArray,
    nvml_uuid,
)
from trials.errors import FaultError, MemoryLimitError, TrialError, UnsupportedError
from trials.machine.gpus import driver_version

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: it does not wait for the default stream
_MS_PER_S = 1e3
_FIRST = 0  # of the GPUs that CUDA shows

_P = ParamSpec("_P")
_R = TypeVar("_R")


def cuda_device() -> "CudaDevice":
    """Find the first GPU that CUDA shows (``CUDA_VISIBLE_DEVICES``).

    Raises:
        UnsupportedError: pycuda is not installed, or there is no driver or GPU.
    """
    try:
        driver = import_module("pycuda.driver")
        graphs = import_module("cuda.bindings.driver")
    except ImportError as error:
        raise UnsupportedError(f"pycuda: {error}") from error
    try:
        driver.init()
        count = driver.Device.count()
    except driver.Error as error:
        raise UnsupportedError(f"pycuda: {error}") from error
    if not count:
        raise UnsupportedError("pycuda: CUDA shows no GPU")
    return CudaDevice(driver, graphs)


class _Api:
    """The two libraries, and how their errors are ours."""

    def __init__(self, driver: Any, graphs: Any) -> None:
        self.driver = driver
        self.graphs = graphs
        self.error: type[Exception] = driver.Error

    def trial_error(self, error: Exception, doing: str) -> TrialError:
        if isinstance(error, self.driver.MemoryError):
            return MemoryLimitError(
                f"{doing}: the GPU has no memory for it ({error}); lower batch_size or concurrency"
            )
        return FaultError(f"{doing}: CUDA failed ({error})")

    def checked(self, result: tuple[Any, ...], doing: str) -> Any:
        """Return what a call of ``cuda.bindings`` gives beside its error code, if that is none.

        Raises:
            MemoryLimitError: It does not fit.
            FaultError: Any other code.
        """
        code, *values = result
        codes = self.graphs.CUresult
        if code == codes.CUDA_ERROR_OUT_OF_MEMORY:
            raise MemoryLimitError(
                f"{doing}: the GPU has no memory for it; lower batch_size or concurrency"
            )
        if code != codes.CUDA_SUCCESS:
            raise FaultError(f"{doing}: CUDA failed ({code.name})")
        return values[0] if values else None


class _Owner:
    """Whatever calls the two libraries."""

    def __init__(self, api: _Api) -> None:
        self._api = api


_S = TypeVar("_S", bound=_Owner)


def _mapped(
    doing: str,
) -> Callable[[Callable[Concatenate[_S, _P], _R]], Callable[Concatenate[_S, _P], _R]]:
    """Raise what pycuda raises as an error of ours; costs a request some 0.1 us a call.

    Args:
        doing: What was being done, for the message.
    """

    def around(call: Callable[Concatenate[_S, _P], _R]) -> Callable[Concatenate[_S, _P], _R]:
        @wraps(call)
        def mapped(owner: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
            try:
                return call(owner, *args, **kwargs)
            except owner._api.error as error:  # noqa: SLF001 -- of this module
                raise owner._api.trial_error(error, doing) from error  # noqa: SLF001

        return mapped

    return around


class CudaDevice(_Owner):
    """A GPU; see :class:`trials.devices.device.Device`."""

    def __init__(self, driver: Any, graphs: Any) -> None:
        """Take a GPU, without a context yet.

        Args:
            driver: The module ``pycuda.driver``, initialized.
            graphs: The module ``cuda.bindings.driver``.
        """
        super().__init__(_Api(driver, graphs))
        self._context: Any = None
        self._lock = Lock()

    @cached_property
    @_mapped("asking which GPU it is")
    def facts(self) -> DeviceFacts:
        """Which it is; asked once, for the version of the driver is NVML's to tell.

        Raises:
            FaultError: It does not tell.
        """
        graphs, device = self._api.graphs, self._api.driver.Device(_FIRST)
        handle = self._api.checked(graphs.cuDeviceGet(_FIRST), "finding the GPU")
        # of CUDA 12 the first version tells the whole card's where the device is a part (MIG)
        ask = getattr(graphs, "cuDeviceGetUuid_v2", graphs.cuDeviceGetUuid)
        uuid = self._api.checked(ask(handle), "asking for the GPU's UUID")
        name = str(device.name())
        return DeviceFacts(
            name=name,
            uuid=nvml_uuid(str(UUID(bytes=bytes(uuid.bytes))), name=name),
            compute_capability=tuple(device.compute_capability()),
            driver=driver_version(),
            memory_bytes=int(device.total_memory()),
        )

    @contextmanager
    def current(self) -> Iterator[None]:
        """Push the primary context for the calling thread, and pop it afterwards."""
        self._push()
        try:
            yield
        finally:
            self._pop()

    @_mapped("leaving the GPU's context")
    def _pop(self) -> None:
        self._api.driver.Context.pop()

    @_mapped("opening the GPU's context")
    def _push(self) -> None:
        with self._lock:  # or two threads would retain it twice
            if self._context is None:
                self._context = self._api.driver.Device(_FIRST).retain_primary_context()
            context = self._context
        context.push()

    @_mapped("allocating memory")
    def memory(self, size_bytes: int) -> "CudaMemory":
        """Allocate."""
        return CudaMemory(self._api, self._api.driver.mem_alloc(size_bytes), size_bytes)

    @_mapped("allocating pinned memory")
    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> "CudaPinned":
        """Allocate page-locked memory of the host."""
        return CudaPinned(self._api, self._api.driver.pagelocked_empty(shape, dtype))

    @_mapped("making a stream")
    def stream(self) -> "CudaStream":
        """Make a stream that does not wait for the default one."""
        return CudaStream(self._api, self._api.driver.Stream(_NON_BLOCKING))

    @_mapped("making an event")
    def event(self, *, sleeps: bool = False) -> "CudaEvent":
        """Make an event that can tell times; without ``sleeps``, waiting for it spins."""
        kinds = self._api.driver.event_flags
        kind = kinds.BLOCKING_SYNC if sleeps else kinds.DEFAULT
        return CudaEvent(self._api, self._api.driver.Event(kind))

    def close(self) -> None:
        """Let pycuda release the primary context, which it does with its object, or at exit.

        It does so in the thread that entered the device first; called in another, the context
        stays until the process ends (pycuda 2026.1, ``context::detach`` in its ``cuda.hpp``).
        """
        with self._lock:
            self._context = None


class CudaMemory(_Owner):
    """Memory of a GPU."""

    def __init__(self, api: _Api, allocation: Any, size_bytes: int) -> None:
        super().__init__(api)
        self._allocation = allocation
        self.address = int(allocation)
        self.size_bytes = size_bytes

    @_mapped("giving memory back")
    def close(self) -> None:
        """Give it back."""
        self._allocation.free()


class CudaPinned(_Owner):
    """Page-locked memory of the host."""

    def __init__(self, api: _Api, array: NDArray[Any]) -> None:
        super().__init__(api)
        self.array = array

    @_mapped("giving pinned memory back")
    def close(self) -> None:
        """Give it back; the array then points nowhere."""
        allocation: Any = self.array.base
        allocation.free()


class CudaEvent(_Owner):
    """An event that tells times."""

    def __init__(self, api: _Api, event: Any) -> None:
        super().__init__(api)
        self.event = event

    @_mapped("asking for an event")
    def is_done(self) -> bool:
        """Tell whether it has happened."""
        return bool(self.event.query())

    @_mapped("waiting for an event")
    def wait(self) -> None:
        """Wait for it, without the interpreter's lock."""
        self.event.synchronize()

    @_mapped("asking for the time between events")
    def elapsed_s(self, since: Event) -> float:
        """Return the time between two that have happened."""
        assert isinstance(since, CudaEvent), "events of one device"
        return float(self.event.time_since(since.event)) / _MS_PER_S

    def close(self) -> None:
        """Let it be destroyed, which pycuda does with its object."""
        del self.event


class CudaGraph(_Owner):
    """An executable graph."""

    def __init__(self, api: _Api, executable: Any) -> None:
        super().__init__(api)
        self.executable = executable

    def close(self) -> None:
        """Destroy it."""
        destroyed = self._api.graphs.cuGraphExecDestroy(self.executable)
        self._api.checked(destroyed, "giving a graph back")


class CudaStream(_Owner):
    """A stream of a GPU."""

    def __init__(self, api: _Api, stream: Any) -> None:
        super().__init__(api)
        self._stream = stream
        self.handle = int(stream.handle)
        self._raw = api.graphs.CUstream(self.handle)

    @_mapped("copying to the GPU")
    def copy_in(self, target: DeviceMemory, source: PinnedArray) -> None:
        """Copy an array to memory."""
        self._api.driver.memcpy_htod_async(target.address, source.array, self._stream)

    @_mapped("copying from the GPU")
    def copy_out(self, target: PinnedArray, source: DeviceMemory) -> None:
        """Copy memory to an array."""
        self._api.driver.memcpy_dtoh_async(target.array, source.address, self._stream)

    @_mapped("filling memory")
    def fill(self, target: DeviceMemory, byte: int) -> None:
        """Set every byte."""
        self._api.driver.memset_d8_async(target.address, byte, target.size_bytes, self._stream)

    @_mapped("recording an event")
    def record(self, event: Event) -> None:
        """Let an event happen when the work so far is done."""
        assert isinstance(event, CudaEvent), "events of one device"
        event.event.record(self._stream)

    def capture(self, enqueue: Callable[[], object]) -> CudaGraph:
        """Capture what is asked of this stream; what other threads do is none of its business."""
        api, graphs = self._api, self._api.graphs
        mode = graphs.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        api.checked(graphs.cuStreamBeginCapture(self._raw, mode), "beginning a capture")
        try:
            enqueue()
        except BaseException:
            self._abandon_capture()
            raise
        graph = api.checked(graphs.cuStreamEndCapture(self._raw), "ending what was captured")
        try:
            return CudaGraph(api, self._instantiated(graph))
        finally:
            graphs.cuGraphDestroy(graph)  # the executable one does not need it

    def launch(self, graph: Graph) -> None:
        """Do captured work."""
        assert isinstance(graph, CudaGraph), "graphs of one device"
        code = self._api.graphs.cuGraphLaunch(graph.executable, self._raw)
        self._api.checked(code, "launching a graph")

    @_mapped("waiting for a stream")
    def synchronize(self) -> None:
        """Wait until all work is done, without the interpreter's lock."""
        self._stream.synchronize()

    def close(self) -> None:
        """Let it be destroyed, which pycuda does with its object."""
        del self._stream

    def _instantiated(self, graph: Any) -> Any:
        api, graphs = self._api, self._api.graphs
        code, _, count = graphs.cuGraphGetNodes(graph)
        api.checked((code,), "looking at what was captured")
        if count == 0:
            raise FaultError(
                "nothing was captured: no work was asked of this stream of this GPU meanwhile"
            )
        return api.checked(graphs.cuGraphInstantiate(graph, 0), "instantiating what was captured")

    def _abandon_capture(self) -> None:
        """End a capture that broke; its own error is the one to raise."""
        code, graph = self._api.graphs.cuStreamEndCapture(self._raw)
        if code == self._api.graphs.CUresult.CUDA_SUCCESS:
            self._api.graphs.cuGraphDestroy(graph)
