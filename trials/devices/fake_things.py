"""What a computed device hands out: memory, arrays, events, graphs, streams; see ``fake``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from trials.devices.device import DeviceMemory, Event, Graph, PinnedArray
from trials.devices.fake_gpu import FakeGpu, Unit, Work
from trials.errors import FaultError

_NS_PER_S = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What things take, nanoseconds.

    Attributes:
        call_ns: Of the host, to ask for a piece of work; likewise ``ask_ns``, whether it is done.
        copy_ns: Of the device, for each copy, and ``copy_ns_per_byte`` more for each byte.
    """

    call_ns: int = 0
    ask_ns: int = 0
    copy_ns: int = 0
    copy_ns_per_byte: float = 0.0


class Seat:
    """What all things of a device share, and the rules of who may do what."""

    def __init__(self, gpu: FakeGpu, costs: Costs) -> None:
        self.gpu = gpu
        self.costs = costs

    def enter(self, doing: str, *, captured: bool = True) -> None:
        """See that this thread may do it.

        Args:
            doing: What, for the message.
            captured: It may be done while this thread captures a stream.

        Raises:
            FaultError: It may not.
        """
        threads = self.gpu.threads
        if not getattr(threads, "depth", 0):
            raise FaultError(f"{doing}: the device is not current in this thread")
        stream = getattr(threads, "capturing", None)
        if stream is not None and not captured:
            stream.spoil(f"{doing}: not while a stream is captured")

    def wait_until(self, moment_ns: int) -> None:
        """Let time pass, and what is done by then happen."""
        self.gpu.clock.wait_until(moment_ns)
        self.gpu.settle()

    def copy_ns(self, size_bytes: int) -> int:
        """Say how long the device copies that many bytes."""
        return round(self.costs.copy_ns + self.costs.copy_ns_per_byte * size_bytes)


class _Thing:
    """Something that is made, and closed once."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._is_closed = False
        with seat.gpu.lock:
            seat.gpu.alive += 1

    def close(self) -> None:
        """Give it back.

        Raises:
            FaultError: It was closed before.
        """
        self._seat.enter(f"closing a {type(self).__name__}", captured=False)
        self.see_open()
        self._is_closed = True
        with self._seat.gpu.lock:
            self._seat.gpu.alive -= 1

    def see_open(self) -> None:
        if self._is_closed:
            raise FaultError(f"a {type(self).__name__} is used after it was closed")


class FakeMemory(_Thing):
    """Memory of a computed device."""

    def __init__(self, seat: Seat, size_bytes: int) -> None:
        self.address = seat.gpu.allocate(size_bytes)
        self.size_bytes = size_bytes
        super().__init__(seat)

    def close(self) -> None:
        """Give it back; work that uses it will break."""
        super().close()
        self._seat.gpu.free(self.address)


class FakePinned(_Thing):
    """An array of the host."""

    def __init__(self, seat: Seat, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        super().__init__(seat)
        self.array: NDArray[Any] = np.empty(shape, dtype=dtype)
        self.array.reshape(-1).view(np.uint8).fill(0xCD)
        self.busy_until_ns = 0

    def close(self) -> None:
        """Give it back.

        Raises:
            FaultError: It was closed before, or the device has not done with it.
        """
        if self.busy_until_ns > self._seat.gpu.clock.now_ns():
            raise FaultError("an array is closed while the device still copies it")
        super().close()


class FakeEvent(_Thing):
    """An event of a computed device."""

    def __init__(self, seat: Seat) -> None:
        super().__init__(seat)
        self.at_ns: int | None = None

    def is_done(self) -> bool:
        """Tell whether it has happened."""
        self._seat.enter("asking for an event", captured=False)
        self.see_open()
        gpu = self._seat.gpu
        gpu.clock.spend(self._seat.costs.ask_ns)
        if self.recorded_ns() > gpu.clock.now_ns():
            return False
        gpu.settle()
        return True

    def wait(self) -> None:
        """Wait for it."""
        self._seat.enter("waiting for an event", captured=False)
        self.see_open()
        self._seat.wait_until(self.recorded_ns())

    def elapsed_s(self, since: Event) -> float:
        """Return the time between two that have happened."""
        self._seat.enter("asking for a time", captured=False)
        assert isinstance(since, FakeEvent), "events of one device"
        begin_ns, end_ns = since.recorded_ns(), self.recorded_ns()
        if max(begin_ns, end_ns) > self._seat.gpu.clock.now_ns():
            raise FaultError("the time between events is asked for before they happened")
        return (end_ns - begin_ns) / _NS_PER_S

    def recorded_ns(self) -> int:
        """Return when it happens.

        Raises:
            FaultError: It was not recorded.
        """
        if self.at_ns is None:
            raise FaultError("an event is used that was never recorded")
        return self.at_ns


class FakeGraph(_Thing):
    """Captured work."""

    def __init__(self, seat: Seat, work: tuple[Work, ...]) -> None:
        super().__init__(seat)
        self.work = work


class FakeStream(_Thing):
    """A queue of a computed device."""

    def __init__(self, seat: Seat, handle: int) -> None:
        super().__init__(seat)
        self.handle = handle
        self._done_ns = 0
        self._captured: list[Work] | None = None
        self._spoilt: str | None = None

    def copy_in(self, target: DeviceMemory, source: PinnedArray) -> None:
        """Copy an array to memory."""
        view, array = self._seat.gpu.view, source.array
        address, size = target.address, array.nbytes
        self._see_room(array.nbytes, target.size_bytes)

        def effect() -> None:
            view(address, size)[:] = array.reshape(-1).view(np.uint8)

        self.ask("copy_in", self._seat.copy_ns(size), effect)
        self._keep_busy(source)

    def copy_out(self, target: PinnedArray, source: DeviceMemory) -> None:
        """Copy memory to an array."""
        view, array = self._seat.gpu.view, target.array
        address, size = source.address, array.nbytes
        self._see_room(array.nbytes, source.size_bytes)

        def effect() -> None:
            array.reshape(-1).view(np.uint8)[:] = view(address, size)

        self.ask("copy_out", self._seat.copy_ns(size), effect)
        self._keep_busy(target)

    def fill(self, target: DeviceMemory, byte: int) -> None:
        """Set every byte."""
        view, address, size = self._seat.gpu.view, target.address, target.size_bytes
        self.ask("kernels", 0, lambda: view(address, size).fill(byte))

    def record(self, event: Event) -> None:
        """Let an event happen when the work so far is done."""
        self._seat.enter("recording an event", captured=False)
        self.see_open()
        assert isinstance(event, FakeEvent), "events of one device"
        event.see_open()
        clock = self._seat.gpu.clock
        clock.spend(self._seat.costs.call_ns)
        event.at_ns = max(self._done_ns, clock.now_ns())

    def capture(self, enqueue: Callable[[], object]) -> FakeGraph:
        """Keep what is asked of this stream."""
        self._seat.enter("capturing", captured=False)
        self.see_open()
        threads = self._seat.gpu.threads
        self._captured, self._spoilt, threads.capturing = [], None, self
        try:
            enqueue()
            work, spoilt = tuple(self._captured), self._spoilt
        finally:
            self._captured, threads.capturing = None, None
        if spoilt is not None:
            raise FaultError(f"nothing was captured: {spoilt}")
        if not work:
            raise FaultError("nothing was captured: no work was asked of this stream meanwhile")
        return FakeGraph(self._seat, work)

    def launch(self, graph: Graph) -> None:
        """Do captured work."""
        self._seat.enter("launching a graph", captured=False)
        assert isinstance(graph, FakeGraph), "graphs of one device"
        graph.see_open()
        self._seat.gpu.clock.spend(self._seat.costs.call_ns)
        for work in graph.work:
            self._done_ns = self._seat.gpu.schedule(work, after_ns=self._done_ns)

    def synchronize(self) -> None:
        """Wait until all work is done."""
        self._seat.enter("waiting for a stream", captured=False)
        self.see_open()
        self._seat.wait_until(self._done_ns)

    def ask(self, unit: Unit, duration_ns: int, effect: Callable[[], None]) -> None:
        """Take a piece of work, or keep it where the stream is captured."""
        self._seat.enter("asking for work")
        self.see_open()
        work = Work(unit=unit, duration_ns=duration_ns, effect=effect)
        if self._captured is not None:
            self._captured.append(work)
            return
        self._seat.gpu.clock.spend(self._seat.costs.call_ns)
        self._done_ns = self._seat.gpu.schedule(work, after_ns=self._done_ns)

    def spoil(self, why: str) -> None:
        """Give a capture up, as it will be told of at its end too.

        Raises:
            FaultError: Always.
        """
        self._spoilt = why
        raise FaultError(why)

    def _keep_busy(self, array: PinnedArray) -> None:
        assert isinstance(array, FakePinned), "arrays of one device"
        if self._captured is None:
            array.busy_until_ns = max(array.busy_until_ns, self._done_ns)

    @staticmethod
    def _see_room(needed_bytes: int, there_bytes: int) -> None:
        if needed_bytes > there_bytes:
            raise FaultError(f"{needed_bytes} bytes are copied where {there_bytes} are")
