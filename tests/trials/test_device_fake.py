"""The computed device is strict enough to catch what would go wrong on a GPU only sometimes."""

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from virtual_clock import VirtualClock

from trials.devices.fake import FakeDevice
from trials.devices.fake_things import Costs
from trials.errors import FaultError

SIZE = 64
COPY_NS = 1_000


@pytest.fixture
def device() -> Iterator[FakeDevice]:
    found = FakeDevice(clock=VirtualClock(), costs=Costs(call_ns=10, copy_ns=COPY_NS))
    with found.current():
        yield found


def test_answer_that_is_read_without_waiting_is_not_there_yet(device: FakeDevice) -> None:
    memory, stream = device.memory(SIZE), device.stream()
    target = device.pinned((SIZE,), np.uint8)
    target.array[:] = 0

    stream.fill(memory, 9)
    stream.copy_out(target, memory)
    early = target.array.copy()
    stream.synchronize()

    assert (early == 0).all()
    assert (target.array == 9).all()


def test_input_that_is_overwritten_too_early_is_spoilt(device: FakeDevice) -> None:
    memory, stream = device.memory(SIZE), device.stream()
    source, target = device.pinned((SIZE,), np.uint8), device.pinned((SIZE,), np.uint8)

    source.array[:] = 1
    stream.copy_in(memory, source)
    source.array[:] = 2
    stream.copy_out(target, memory)
    stream.synchronize()

    assert (target.array == 2).all()


def test_memory_that_was_never_written_holds_no_zeros(device: FakeDevice) -> None:
    memory, stream = device.memory(SIZE), device.stream()
    target = device.pinned((SIZE,), np.uint8)
    fresh = target.array.copy()

    stream.copy_out(target, memory)
    stream.synchronize()

    assert (fresh != 0).all()
    assert (target.array != 0).all()


def test_memory_that_is_closed_while_it_is_used_breaks_the_device(device: FakeDevice) -> None:
    memory, stream = device.memory(SIZE), device.stream()
    stream.fill(memory, 1)

    memory.close()

    for _ in range(2):  # a device does not recover
        with pytest.raises(FaultError, match="which is not allocated"):
            stream.synchronize()


def test_thing_that_is_closed_twice_or_used_afterwards_is_a_fault(device: FakeDevice) -> None:
    stream = device.stream()
    stream.close()

    for use in (stream.close, stream.synchronize):
        with pytest.raises(FaultError, match="used after it was closed"):
            use()


def test_what_is_left_open_is_told_when_the_device_is_closed(device: FakeDevice) -> None:
    with closing(device.stream()), pytest.raises(FaultError, match="1 things"):
        device.close()

    device.close()


def test_library_that_loads_something_under_capture_spoils_it(device: FakeDevice) -> None:
    """Which is why the same work is run once before it is captured."""
    memory, stream = device.memory(SIZE), device.stream()

    def first_use() -> None:
        stream.fill(memory, 1)
        device.load_lazily("a kernel")

    with pytest.raises(FaultError, match="loading a kernel: not while a stream is captured"):
        stream.capture(first_use)


def test_capture_is_spoilt_even_where_the_library_hides_it(device: FakeDevice) -> None:
    memory, stream = device.memory(SIZE), device.stream()

    def hides() -> None:
        stream.fill(memory, 1)
        try:
            stream.synchronize()
        except FaultError:
            return

    with pytest.raises(FaultError, match="nothing was captured: waiting for a stream"):
        stream.capture(hides)


def test_kernel_of_an_unknown_stream_is_a_fault(device: FakeDevice) -> None:
    with pytest.raises(FaultError, match="no stream has the handle 0x7"):
        device.launch_kernel(7, 0.0, lambda _: None)


@pytest.mark.parametrize(("at_once", "expected_ns"), [(1, 2_010), (2, 1_020)])
def test_kernels_of_two_streams_share_what_there_is(at_once: int, expected_ns: int) -> None:
    clock = VirtualClock()
    device = FakeDevice(clock=clock, costs=Costs(call_ns=10), kernels_at_once=at_once)
    with device.current():
        streams = [device.stream() for _ in range(2)]

        for stream in streams:
            device.launch_kernel(stream.handle, 1e-6, lambda _: None)
        for stream in streams:
            stream.synchronize()

    assert clock.now_ns() == expected_ns


def test_copies_overlap_kernels_and_a_stream_keeps_its_order(device: FakeDevice) -> None:
    memory, first, second = device.memory(SIZE), device.stream(), device.stream()
    source = device.pinned((SIZE,), np.uint8)
    begin, end = device.event(), device.event()

    first.record(begin)
    first.copy_in(memory, source)
    device.launch_kernel(first.handle, 5e-6, lambda _: None)
    device.launch_kernel(second.handle, 3e-6, lambda _: None)
    first.record(end)
    end.wait()

    # the kernel of the second stream has begun while the first one copied, and is in its way
    assert end.elapsed_s(begin) == pytest.approx(6e-6 + 10e-9, abs=1e-10)
