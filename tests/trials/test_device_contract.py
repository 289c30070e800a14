"""The contract of ``trials/devices/device.py``, held against every implementation that ships."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Thread

import numpy as np
import pytest
from device_fakes import driver_over

from trials.devices.cuda import CudaDevice, cuda_device
from trials.devices.device import POISON, Device
from trials.devices.fake import FakeDevice
from trials.devices.fake_things import Costs
from trials.devices.torch_device import TorchDevice, torch_device
from trials.errors import FaultError, MemoryLimitError, UnsupportedError

SIZE = 1024


def made(kind: str, computed: FakeDevice) -> Device:
    match kind:
        case "fake":
            return computed
        case "cuda over a computed driver":
            return CudaDevice(*driver_over(computed))
        case "cuda":
            return cuda_device()
        case _:
            return torch_device()


@pytest.fixture(
    params=[
        "fake",
        "cuda over a computed driver",
        pytest.param("cuda", marks=pytest.mark.gpu),
        pytest.param("torch", marks=pytest.mark.gpu),
    ]
)
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    computed = FakeDevice(costs=Costs(copy_ns=200_000))
    try:
        found = made(request.param, computed)
    except UnsupportedError as error:
        pytest.skip(str(error))
    with closing(found), found.current():
        yield found
    computed.close()  # which tells of what a test, or an implementation, left open


def test_facts_name_one_device(device: Device) -> None:
    facts = device.facts

    assert facts == device.facts
    assert facts.name
    assert facts.uuid.startswith(("GPU-", "MIG-"))
    assert facts.target == "SM{}{}".format(*facts.compute_capability)
    assert facts.memory_bytes > 0


def test_what_is_copied_in_is_copied_out(device: Device) -> None:
    numbers = np.random.default_rng(0).standard_normal(SIZE).astype(np.float32)
    memory = device.memory(numbers.nbytes)
    source, target = device.pinned((SIZE,), np.float32), device.pinned((SIZE,), np.float32)
    stream = device.stream()
    source.array[:] = numbers

    stream.copy_in(memory, source)
    stream.copy_out(target, memory)
    stream.synchronize()

    np.testing.assert_array_equal(target.array, numbers)
    for each in (memory, source, target, stream):
        each.close()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_poison_is_no_number_in_any_floating_type(device: Device, dtype: str) -> None:
    target, stream = device.pinned((4, 8), dtype), device.stream()
    memory = device.memory(target.array.nbytes)

    stream.fill(memory, POISON)
    stream.copy_out(target, memory)
    stream.synchronize()

    assert np.isnan(target.array).all()
    for each in (memory, target, stream):
        each.close()


def test_arrays_have_the_shape_and_type_that_was_asked_for(device: Device) -> None:
    for shape, dtype in (((2, 3, 5), "int64"), ((1,), "bool"), ((4, 4), "uint8")):
        with closing(device.pinned(shape, dtype)) as pinned:
            assert pinned.array.shape == shape
            assert pinned.array.dtype.name == dtype
            assert pinned.array.flags.c_contiguous


def test_addresses_are_aligned_and_apart(device: Device) -> None:
    pieces = [device.memory(size) for size in (1, 100, 1000)]

    addresses = [piece.address for piece in pieces]
    assert all(address % 256 == 0 for address in addresses)
    for one, other in zip(sorted(addresses), sorted(addresses)[1:], strict=False):
        assert other - one >= min(piece.size_bytes for piece in pieces)
    for piece in pieces:
        piece.close()


def test_streams_have_handles_of_their_own_and_none_is_the_default(device: Device) -> None:
    streams = [device.stream() for _ in range(3)]

    handles = {stream.handle for stream in streams}
    assert len(handles) == 3
    assert not handles & {0, 1, 2}  # the default one, by all its names
    for stream in streams:
        stream.close()


def test_event_tells_the_time_of_the_work_between(device: Device) -> None:
    target, stream = device.pinned((1 << 20,), np.uint8), device.stream()
    memory, begin, end = device.memory(1 << 20), device.event(), device.event()

    stream.record(begin)
    stream.copy_in(memory, target)
    stream.record(end)
    end.wait()

    assert end.is_done()
    assert begin.is_done()
    assert 0 < end.elapsed_s(begin) < 10
    for each in (memory, target, begin, end, stream):
        each.close()


def test_time_of_an_event_that_was_not_recorded_is_a_fault(device: Device) -> None:
    stream, begin, end = device.stream(), device.event(), device.event()
    stream.record(end)
    stream.synchronize()

    with pytest.raises(FaultError):
        end.elapsed_s(begin)

    for each in (stream, begin, end):
        each.close()


def test_graph_does_its_work_at_each_launch_and_not_when_it_is_captured(device: Device) -> None:
    source, target = device.pinned((SIZE,), np.uint8), device.pinned((SIZE,), np.uint8)
    memory, stream = device.memory(SIZE), device.stream()
    target.array[:] = 0

    def work() -> None:
        stream.copy_in(memory, source)
        stream.copy_out(target, memory)

    graph = stream.capture(work)
    stream.synchronize()
    before = target.array.copy()
    after = []
    for number in (3, 4):
        source.array[:] = number
        stream.launch(graph)
        stream.synchronize()
        after.append(target.array.copy())

    assert (before == 0).all()
    assert [each.tolist() for each in after] == [[3] * SIZE, [4] * SIZE]
    for each in (graph, source, target, memory, stream):
        each.close()


def test_capturing_no_work_is_a_fault(device: Device) -> None:
    """A graph that was captured on another stream than its work is silently empty."""
    stream, other, memory = device.stream(), device.stream(), device.memory(SIZE)

    for enqueue in (lambda: None, lambda: other.fill(memory, 1)):
        with pytest.raises(FaultError, match="captured"):
            stream.capture(enqueue)

    stream.fill(memory, 2)
    stream.synchronize()
    other.synchronize()
    for each in (stream, other, memory):
        each.close()


def test_waiting_inside_a_capture_is_a_fault_and_the_stream_survives_it(device: Device) -> None:
    stream, memory = device.stream(), device.memory(SIZE)
    target = device.pinned((SIZE,), np.uint8)

    def waits() -> None:
        stream.fill(memory, 1)
        stream.synchronize()

    with pytest.raises(FaultError):
        stream.capture(waits)

    stream.fill(memory, 5)
    stream.copy_out(target, memory)
    stream.synchronize()
    assert (target.array == 5).all()
    for each in (stream, memory, target):
        each.close()


def test_error_inside_a_capture_is_raised_as_it_was(device: Device) -> None:
    stream, memory = device.stream(), device.memory(SIZE)

    def breaks() -> None:
        stream.fill(memory, 1)
        raise KeyError("a mistake of ours")

    with pytest.raises(KeyError, match="a mistake of ours"):
        stream.capture(breaks)

    stream.fill(memory, 1)
    stream.synchronize()
    for each in (stream, memory):
        each.close()


def test_more_memory_than_there_is_does_not_fit(device: Device) -> None:
    with pytest.raises(MemoryLimitError):
        device.memory(4 * device.facts.memory_bytes)

    device.memory(SIZE).close()


def test_memory_that_is_closed_is_free_again(device: Device) -> None:
    for _ in range(3):
        device.memory(device.facts.memory_bytes * 6 // 10).close()


def test_threads_work_beside_each_other(device: Device) -> None:
    def work(number: int) -> int:
        with device.current():
            source, target = device.pinned((SIZE,), np.uint8), device.pinned((SIZE,), np.uint8)
            memory, stream = device.memory(SIZE), device.stream()
            wrong = 0
            for turn in range(20):
                source.array[:] = (number + turn) % 251
                stream.copy_in(memory, source)
                stream.copy_out(target, memory)
                stream.synchronize()
                wrong += int((target.array != source.array).sum())
            for each in (source, target, memory, stream):
                each.close()
        return wrong

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(8))) == [0] * 8


def test_thread_may_enter_the_device_again_inside_itself(device: Device) -> None:
    with device.current():
        device.memory(SIZE).close()

    device.memory(SIZE).close()


def test_thread_in_which_the_device_is_not_current_cannot_use_it(device: Device) -> None:
    if isinstance(device, TorchDevice):
        pytest.skip("PyTorch makes the first device current in every thread")
    errors: list[BaseException] = []

    def work() -> None:
        try:
            device.memory(SIZE).close()
        except FaultError as error:
            errors.append(error)

    thread = Thread(target=work)
    thread.start()
    thread.join()

    assert len(errors) == 1
