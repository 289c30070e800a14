"""How PyTorch is called, over a made-up one: what needs a GPU to run and none to be wrong."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import sleep
from types import SimpleNamespace
from typing import Any

import pytest

from trials.devices.torch_device import TorchDevice

UUID = "01010101-0101-0101-0101-010101010101"


@contextmanager
def entered(_: object) -> Iterator[None]:
    yield


class MadeUpGraph:
    """A graph whose capture takes a while."""

    under_way = 0
    most = 0

    def capture_begin(self, *, capture_error_mode: str) -> None:
        assert capture_error_mode == "thread_local"
        MadeUpGraph.under_way += 1
        MadeUpGraph.most = max(MadeUpGraph.most, MadeUpGraph.under_way)
        sleep(0.01)

    def capture_end(self) -> None:
        MadeUpGraph.under_way -= 1


def made_up_torch(name: str = "NVIDIA H100 80GB HBM3") -> Any:
    properties = SimpleNamespace(name=name, uuid=UUID, major=9, minor=0, total_memory=10**10)
    cuda = SimpleNamespace(
        get_device_properties=lambda _: properties,
        CUDAGraph=MadeUpGraph,
        Stream=lambda _: SimpleNamespace(cuda_stream=5),
        stream=entered,
    )
    return SimpleNamespace(cuda=cuda, OutOfMemoryError=MemoryError)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("NVIDIA H100 80GB HBM3", "GPU"), ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "MIG")],
)
def test_device_is_named_as_nvml_names_it(name: str, kind: str) -> None:
    assert TorchDevice(made_up_torch(name)).facts.uuid == f"{kind}-{UUID}"


def test_facts_are_asked_for_once() -> None:
    torch, asked = made_up_torch(), []
    found = torch.cuda.get_device_properties("cuda:0")

    def properties(place: str) -> Any:
        asked.append(place)
        return found

    torch.cuda.get_device_properties = properties
    device = TorchDevice(torch)

    assert device.facts is device.facts
    assert asked == ["cuda:0"]


def test_threads_capture_one_after_the_other() -> None:
    """What a warning does is set for the whole process, and put back by whoever set it."""
    device = TorchDevice(made_up_torch())

    def capture(_: int) -> None:
        device.stream().capture(lambda: None)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(capture, range(8)))

    assert MadeUpGraph.most == 1
