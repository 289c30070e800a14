"""The inside of the computed device: memory with addresses, and work that is done when it is due.

When something is asked of a stream, it is known at once when it will be done: after what the
stream has before it, when a unit of its kind is free. *What* it does happens no earlier than the
host learns that it is done, so that whoever reads an answer without waiting reads what was there
before, and whoever overwrites an input too early spoils the work.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from threading import RLock, local
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trials.devices.clocks import Clock
from trials.errors import FaultError, MemoryLimitError

Unit = Literal["copy_in", "copy_out", "kernels"]
Bytes = NDArray[np.uint8]

_FIRST_ADDRESS = 0x7F00_0000_0000
_ALIGNMENT = 256
_GAP = 4096  # between allocations, so that what runs over an end hits nothing
_FRESH, _FREED = 0xCD, 0xDD  # what memory holds that was never written, or is no more


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One piece of work.

    Attributes:
        effect: What it does to memory, by :meth:`FakeGpu.view`.
    """

    unit: Unit
    duration_ns: int
    effect: Callable[[], None]


class FakeGpu:
    """Memory, units and time; what threads share, under one lock."""

    def __init__(self, clock: Clock, *, memory_bytes: int, kernels_at_once: int) -> None:
        self.clock = clock
        self.lock = RLock()
        self.threads = local()  # whether the device is current, and what is captured there
        self.alive = 0  # memory, arrays, streams, events and graphs that are not closed
        self._memory_bytes = memory_bytes
        self._held: dict[int, Bytes] = {}
        self._next_address = _FIRST_ADDRESS
        self._units: dict[Unit, list[int]] = {
            "copy_in": [0],
            "copy_out": [0],
            "kernels": [0] * kernels_at_once,
        }
        self._pending: list[tuple[int, int, Work]] = []  # by when it is done, then as asked
        self._numbers = count()
        self._broken: FaultError | None = None

    def free_bytes(self) -> int:
        """Return how much is not allocated."""
        with self.lock:
            return self._memory_bytes - sum(each.size for each in self._held.values())

    def allocate(self, size_bytes: int) -> int:
        """Return an address.

        Raises:
            MemoryLimitError: It does not fit.
        """
        with self.lock:
            if size_bytes > self.free_bytes():
                raise MemoryLimitError(
                    f"{size_bytes} bytes do not fit in {self.free_bytes()} that are free on the "
                    "device; lower batch_size or concurrency"
                )
            address = self._next_address
            pieces = -(-(size_bytes + _GAP) // _ALIGNMENT)
            self._next_address += pieces * _ALIGNMENT
            self._held[address] = np.full(size_bytes, _FRESH, dtype=np.uint8)
            return address

    def free(self, address: int) -> None:
        """Give memory back; work that still uses it will break."""
        with self.lock:
            self._held.pop(address).fill(_FREED)

    def view(self, address: int, size_bytes: int) -> Bytes:
        """Return the begin of an allocation, to be read or written by work.

        Raises:
            FaultError: There is none at this address, or it is shorter.
        """
        held = self._held.get(address)
        if held is None or held.size < size_bytes:
            what = "is not allocated" if held is None else f"has {held.size} bytes"
            raise FaultError(f"work uses {size_bytes} bytes at {address:#x}, which {what}")
        return held[:size_bytes]

    def schedule(self, work: Work, *, after_ns: int) -> int:
        """Take work on and return when it will be done.

        Args:
            work: What is to be done.
            after_ns: When the work before it will be.
        """
        with self.lock:
            ready_ns = max(after_ns, self.clock.now_ns())
            free = self._units[work.unit]
            idle = [at for at in free if at <= ready_ns]
            # the unit that idles for the shortest time, so that earlier work finds another one
            unit = free.index(max(idle) if idle else min(free))
            end_ns = max(ready_ns, free[unit]) + work.duration_ns
            free[unit] = end_ns
            heapq.heappush(self._pending, (end_ns, next(self._numbers), work))
            return end_ns

    def settle(self) -> None:
        """Do what is due by now.

        Raises:
            FaultError: Some work broke, now or before: a device does not recover from that.
        """
        with self.lock:
            now_ns = self.clock.now_ns()
            while self._broken is None and self._pending and self._pending[0][0] <= now_ns:
                work = heapq.heappop(self._pending)[2]
                try:
                    work.effect()
                except FaultError as error:
                    self._broken = error
            if self._broken is not None:
                raise FaultError(str(self._broken)) from self._broken
