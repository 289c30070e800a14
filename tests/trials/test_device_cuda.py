"""How pycuda and ``cuda.bindings`` are called, over a computed driver: errors and graphs."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import sleep
from types import SimpleNamespace
from typing import Any

import pytest
from device_fakes import CudaError, CUresult, driver_over

from trials.devices.cuda import CudaDevice
from trials.devices.device import Stream
from trials.devices.fake import FakeDevice
from trials.errors import FaultError, MemoryLimitError


@pytest.fixture
def libraries() -> tuple[Any, Any]:
    return driver_over(FakeDevice())


@pytest.fixture
def device(libraries: tuple[Any, Any]) -> Iterator[CudaDevice]:
    found = CudaDevice(*libraries)
    with found.current():
        yield found


def filling(device: CudaDevice) -> tuple[Stream, Any]:
    stream, memory = device.stream(), device.memory(64)
    return stream, lambda: stream.fill(memory, 1)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (CUresult.CUDA_ERROR_OUT_OF_MEMORY, MemoryLimitError),
        (CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, FaultError),
    ],
)
def test_codes_of_the_bindings_are_errors_of_ours(
    device: CudaDevice, libraries: tuple[Any, Any], code: CUresult, kind: type[Exception]
) -> None:
    stream, fill = filling(device)
    libraries[1].cuGraphInstantiate = lambda _, flags: (code, flags)

    with pytest.raises(kind, match="instantiating what was captured: "):
        stream.capture(fill)


def test_graph_is_destroyed_once_it_can_be_launched_and_also_where_it_cannot(
    device: CudaDevice, libraries: tuple[Any, Any]
) -> None:
    destroyed: list[object] = []
    libraries[1].cuGraphDestroy = destroyed.append
    stream, fill = filling(device)

    graph = stream.capture(fill)
    with pytest.raises(FaultError, match="nothing was captured"):
        stream.capture(lambda: None)

    assert len(destroyed) == 2
    graph.close()


def test_error_of_pycuda_tells_what_was_being_done(device: CudaDevice) -> None:
    with pytest.raises(FaultError, match=r"^waiting for an event: CUDA failed \(a call failed"):
        device.event().wait()


@pytest.mark.parametrize(("sleeps", "flags"), [(False, 0), (True, 1)])
def test_waiting_for_an_event_spins_or_sleeps(
    device: CudaDevice, *, sleeps: bool, flags: int
) -> None:
    assert device.event(sleeps=sleeps).event.flags == flags


def test_facts_are_told_before_any_context_is_made(libraries: tuple[Any, Any]) -> None:
    device = CudaDevice(*libraries)

    facts = device.facts

    assert facts is device.facts
    assert facts.target == "SM89"
    assert facts.uuid == "GPU-01010101-0101-0101-0101-010101010101"


def test_uuid_is_that_of_the_part_where_the_bindings_have_two_calls(
    libraries: tuple[Any, Any],
) -> None:
    """The first of CUDA 12 tells the whole card's."""
    part = SimpleNamespace(bytes=b"\x02" * 16)
    libraries[1].cuDeviceGetUuid_v2 = lambda _: (CUresult.CUDA_SUCCESS, part)

    assert "02020202" in CudaDevice(*libraries).facts.uuid


def test_context_that_cannot_be_left_is_a_fault(libraries: tuple[Any, Any]) -> None:
    device, context = CudaDevice(*libraries), libraries[0].Context

    def lost() -> None:
        raise CudaError("cuCtxPopCurrent failed: an illegal memory access was encountered")

    context.pop = lost

    with pytest.raises(FaultError, match="leaving the GPU's context: "), device.current():
        pass


def test_threads_that_enter_at_once_retain_the_context_once(libraries: tuple[Any, Any]) -> None:
    device, retained = CudaDevice(*libraries), []
    driver = libraries[0]

    def retain() -> Any:
        retained.append(driver.Context)
        sleep(0.02)  # in which the other threads ask as well
        return driver.Context

    driver.Device = lambda _: SimpleNamespace(retain_primary_context=retain)

    def enter(_: int) -> None:
        with device.current():
            pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(enter, range(4)))

    assert len(retained) == 1


def test_instance_of_a_shared_gpu_is_named_as_nvml_names_it(libraries: tuple[Any, Any]) -> None:
    libraries[0].Device = lambda _: SimpleNamespace(
        name=lambda: "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        compute_capability=lambda: (9, 0),
        total_memory=lambda: 10**10,
    )

    facts = CudaDevice(*libraries).facts

    assert facts.uuid.startswith("MIG-")
    assert facts.target == "SM90"
