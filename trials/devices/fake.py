"""A computed device: pure NumPy, as strict as CUDA is where CUDA only sometimes notices.

For tests of what drives a device, on machines without one. It refuses what CUDA refuses, and some
of what CUDA would let pass and punish later: a thread in which it is not current, waiting while
work is captured, a first use of lazy things under capture, memory that is closed while it is used.
Memory that was never written holds no zeros.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import DTypeLike, NDArray

from trials.devices.clocks import Clock, RealClock
from trials.devices.device import DeviceFacts
from trials.devices.fake_gpu import FakeGpu
from trials.devices.fake_things import (
    Costs,
    FakeEvent,
    FakeMemory,
    FakePinned,
    FakeStream,
    Seat,
)
from trials.errors import FaultError

_NS_PER_S = 1e9
_FIRST_HANDLE = 0x1000


class FakeDevice:
    """A device that is computed; see the module."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        costs: Costs | None = None,
        memory_bytes: int = 1 << 30,
        kernels_at_once: int = 1,
    ) -> None:
        """Make one.

        Args:
            clock: Real time unless told.
            costs: Nothing takes time unless told, but what is launched.
            memory_bytes: All of its memory.
            kernels_at_once: How many streams run kernels beside each other, >= 1.
        """
        self.clock = clock or RealClock()
        self._memory_bytes = memory_bytes
        self._gpu = FakeGpu(self.clock, memory_bytes=memory_bytes, kernels_at_once=kernels_at_once)
        self._seat = Seat(self._gpu, costs or Costs())
        self._streams: dict[int, FakeStream] = {}

    @property
    def facts(self) -> DeviceFacts:
        """Which it is: none that is sold."""
        return DeviceFacts(
            name="computed device",
            uuid="GPU-00000000-0000-0000-0000-000000000000",
            compute_capability=(8, 9),
            driver="0.0",
            memory_bytes=self._memory_bytes,
        )

    @property
    def alive(self) -> int:
        """Number of things that were made and not closed."""
        return self._gpu.alive

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the device that of the calling thread."""
        threads = self._gpu.threads
        depth = getattr(threads, "depth", 0)
        threads.depth = depth + 1
        try:
            yield
        finally:
            threads.depth = depth

    def memory(self, size_bytes: int) -> "FakeMemory":
        """Allocate; what it holds is not zeros."""
        self._seat.enter("allocating memory", captured=False)
        return FakeMemory(self._seat, size_bytes)

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> "FakePinned":
        """Allocate an array of the host; what it holds is not zeros."""
        self._seat.enter("allocating an array", captured=False)
        return FakePinned(self._seat, shape, dtype)

    def stream(self) -> "FakeStream":
        """Make a stream."""
        self._seat.enter("making a stream", captured=False)
        handle = _FIRST_HANDLE + len(self._streams)
        stream = FakeStream(self._seat, handle)
        self._streams[handle] = stream
        return stream

    def event(self, *, sleeps: bool = False) -> "FakeEvent":
        """Make an event; waiting for it costs no CPU here either way."""
        del sleeps
        self._seat.enter("making an event")
        return FakeEvent(self._seat)

    def close(self) -> None:
        """Let go of it.

        Raises:
            FaultError: Something that was made of it is not closed.
        """
        if self.alive:
            raise FaultError(f"{self.alive} things of the device are not closed")

    def launch_kernel(
        self, handle: int, duration_s: float, effect: Callable[["FakeDevice"], None]
    ) -> None:
        """Ask a stream for a kernel, as libraries do that are given its handle.

        Args:
            handle: Of a stream of this device.
            duration_s: How long it takes, seconds >= 0.
            effect: What it does, with the memory that :meth:`view` gives.

        Raises:
            FaultError: There is no such stream.
        """
        stream = self._streams.get(handle)
        if stream is None:
            raise FaultError(f"no stream has the handle {handle:#x}")
        stream.ask("kernels", round(duration_s * _NS_PER_S), lambda: effect(self))

    def load_lazily(self, what: str) -> None:
        """Do what a library does at the first use of a thing, and cannot under capture.

        Raises:
            FaultError: This thread captures.
        """
        self._seat.enter(f"loading {what}", captured=False)

    def view(self, address: int, size_bytes: int) -> NDArray[np.uint8]:
        """Return memory, for the effect of a kernel.

        Raises:
            FaultError: It is not allocated.
        """
        return self._gpu.view(address, size_bytes)
