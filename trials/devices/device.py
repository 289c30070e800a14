"""The seam: what trifront asks of a GPU, to feed an engine and to time it.

Three implementations ship: ``cuda`` (pycuda, and graphs through ``cuda.bindings``), ``torch``
(where torch with CUDA is there and pycuda is not) and ``fake`` (computed, on NumPy arrays). They
do not inherit from the protocols; ``tests/trials/test_device_contract.py`` holds every one of them
to this text.

* **Whose thread.** Every call but ``facts`` needs ``with device.current():`` in the thread that
  calls, which may be entered again inside itself. What was made in one thread may be used in
  another, by one at a time.
* **When.** ``copy_in``, ``copy_out``, ``fill``, ``record`` and ``launch`` return at once. A
  stream does its work in the order in which it was asked, streams do theirs beside each other; the
  host knows of nothing before ``synchronize``, ``Event.wait`` or ``Event.is_done`` says so.
  Neither side of a copy may be touched until then.
* **What it holds.** New memory and new arrays hold anything. Whoever made something closes it,
  once, when no work uses it any more.
* **What breaks** raises :class:`trials.errors.MemoryLimitError` where it does not fit and
  :class:`trials.errors.FaultError` for anything else, maybe at a later call: a device tells of
  broken work when it is next asked.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import DTypeLike, NDArray

POISON = 0xFF
"""Byte that outputs are filled with before a graph is tried: NaN in every floating type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """Which device it is.

    Attributes:
        uuid: As NVML writes it (``GPU-…``, ``MIG-…``); indices differ from library to library.
        compute_capability: (major, minor).
        driver: Version of its driver; ``unknown`` where nobody tells.
        memory_bytes: All of it.
    """

    name: str
    uuid: str
    compute_capability: tuple[int, int]
    driver: str
    memory_bytes: int

    @property
    def target(self) -> str:
        """The compute capability as a target is named: ``SM89``."""
        major, minor = self.compute_capability
        return f"SM{major}{minor}"


def nvml_uuid(uuid: str, *, name: str) -> str:
    """Write a UUID as NVML does.

    Args:
        uuid: Of the device, with dashes.
        name: As CUDA tells it; that of a part of a card names its profile: ``… MIG 1g.10gb``.
    """
    return f"{'MIG' if ' MIG ' in name else 'GPU'}-{uuid}"


class DeviceMemory(Protocol):
    """A piece of the device's memory."""

    @property
    def address(self) -> int:
        """Where it begins, a multiple of 256."""
        ...

    @property
    def size_bytes(self) -> int:
        """How much was asked for, > 0."""
        ...

    def close(self) -> None:
        """Give it back."""
        ...


class PinnedArray(Protocol):
    """An array of the host that the device reads and writes by itself, contiguous."""

    @property
    def array(self) -> NDArray[Any]:
        """The array; not to be used after ``close``."""
        ...

    def close(self) -> None:
        """Give it back."""
        ...


class Event(Protocol):
    """A moment in a stream's work, once it was recorded there; recording again moves it."""

    def is_done(self) -> bool:
        """Tell whether the work before it is done; does not wait.

        Raises:
            FaultError: The work broke.
        """
        ...

    def wait(self) -> None:
        """Wait until the work before it is done; other threads go on meanwhile.

        Raises:
            FaultError: The work broke.
        """
        ...

    def elapsed_s(self, since: "Event") -> float:
        """Return the device's own time from another event to this one, seconds >= 0.

        Steps of CUDA are about half a microsecond.

        Raises:
            FaultError: One of them was not recorded, or is not done.
        """
        ...

    def close(self) -> None:
        """Give it back."""
        ...


class Graph(Protocol):
    """Work that was captured, to be launched as one; it uses the same memory each time."""

    def close(self) -> None:
        """Give it back."""
        ...


class Stream(Protocol):
    """A queue of work; never the device's default one, which waits for all others."""

    @property
    def handle(self) -> int:
        """The ``CUstream``, for libraries that are given one."""
        ...

    def copy_in(self, target: DeviceMemory, source: PinnedArray) -> None:
        """Copy an array to the begin of a piece of memory, which is large enough."""
        ...

    def copy_out(self, target: PinnedArray, source: DeviceMemory) -> None:
        """Fill an array from the begin of a piece of memory, which is large enough."""
        ...

    def fill(self, target: DeviceMemory, byte: int) -> None:
        """Set every byte of a piece of memory, 0 <= byte <= 255."""
        ...

    def record(self, event: Event) -> None:
        """Let an event happen when the work so far is done."""
        ...

    def capture(self, enqueue: Callable[[], object]) -> Graph:
        """Keep the work that ``enqueue`` asks of this stream, instead of doing it.

        Whatever is made lazily must have been made by running the same work once before. Meanwhile
        this thread may not wait, ask, record or allocate; other threads may, and what is asked of
        other streams is done as ever.

        Raises:
            FaultError: Nothing came of it: no work was asked of this stream, or something that
                cannot be captured. The stream may be used all the same.
            Exception: What ``enqueue`` raises, as it was.
        """
        ...

    def launch(self, graph: Graph) -> None:
        """Do the captured work, as one piece of this stream's."""
        ...

    def synchronize(self) -> None:
        """Wait until all work is done; other threads go on meanwhile.

        Raises:
            FaultError: The work broke.
        """
        ...

    def close(self) -> None:
        """Give it back; its work is done."""
        ...


class Device(Protocol):
    """One GPU. Cheap to make: the context, which costs seconds and memory, comes with its use."""

    @property
    def facts(self) -> DeviceFacts:
        """Which it is; needs no context."""
        ...

    def current(self) -> AbstractContextManager[None]:
        """Make the device that of the calling thread, and what was before afterwards."""
        ...

    def memory(self, size_bytes: int) -> DeviceMemory:
        """Allocate, > 0 bytes.

        Raises:
            MemoryLimitError: It does not fit.
        """
        ...

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> PinnedArray:
        """Allocate an array of the host.

        Raises:
            MemoryLimitError: It does not fit.
        """
        ...

    def stream(self) -> Stream:
        """Make a stream."""
        ...

    def event(self, *, sleeps: bool = False) -> Event:
        """Make an event that can tell times.

        Args:
            sleeps: Whoever waits for it gives its CPU away and is woken, some microseconds late;
                else it may keep a CPU busy meanwhile.
        """
        ...

    def close(self) -> None:
        """Let go of the device; everything that was made of it is closed, no thread is in it."""
        ...
