"""Which GPU TensorRT builds for; the driver is a fake whose calls are checked by name."""

from importlib import import_module
from importlib.util import find_spec

import pytest

from trials.backends.trt_gpu import Gpu, first_gpu
from trials.errors import UnsupportedError


class Driver:
    """As ``pynvml``, over GPUs of (name, compute capability), with UUIDs GPU-0, GPU-1, …."""

    class NVMLError(Exception):
        """What the driver throws."""

    def __init__(self, *gpus: tuple[str, tuple[int, int]], broken: str = "") -> None:
        self._gpus = gpus
        self._broken = broken
        self.is_open = False

    def _checked(self, call: str) -> None:
        if call == self._broken:
            raise self.NVMLError("Unknown Error")
        assert self.is_open

    def nvmlInit(self) -> None:  # noqa: N802 -- the driver's names
        if self._broken == "nvmlInit":
            raise self.NVMLError("Driver Not Loaded")
        self.is_open = True

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.is_open = False

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        self._checked("nvmlDeviceGetCount")
        return len(self._gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        self._checked("nvmlDeviceGetHandleByIndex")
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:  # noqa: N802
        self._checked("nvmlDeviceGetHandleByUUID")
        at = int(uuid.removeprefix("GPU-"))
        if at >= len(self._gpus):
            raise self.NVMLError("Not Found")
        return at

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        self._checked("nvmlDeviceGetName")
        return self._gpus[handle][0]

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:  # noqa: N802
        self._checked("nvmlDeviceGetCudaComputeCapability")
        return self._gpus[handle][1]

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        self._checked("nvmlSystemGetDriverVersion")
        return "590.44"


L4, H100 = ("NVIDIA L4", (8, 9)), ("NVIDIA H100", (9, 0))


@pytest.mark.skipif(find_spec("pynvml") is None, reason="nvidia-ml-py is not installed")
def test_calls_of_the_fake_are_those_of_the_driver() -> None:
    pynvml = import_module("pynvml")

    calls = [name for name in vars(Driver) if name.startswith("nvml")]

    assert len(calls) == 8
    assert [name for name in [*calls, "NVMLError"] if not hasattr(pynvml, name)] == []


def test_first_gpu_is_told_with_its_driver() -> None:
    driver = Driver(H100)

    found = first_gpu(driver, {})

    assert found == Gpu(name="NVIDIA H100", compute_capability=90, driver="590.44")
    assert not driver.is_open


@pytest.mark.parametrize(
    ("visible", "name"),
    [("1", "NVIDIA L4"), ("1,0", "NVIDIA L4"), ("GPU-1,GPU-0", "NVIDIA L4"), ("0", "NVIDIA H100")],
)
def test_gpu_is_the_first_that_cuda_shows(visible: str, name: str) -> None:
    environ = {"CUDA_VISIBLE_DEVICES": visible, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}

    found = first_gpu(Driver(H100, L4), environ)

    assert found is not None
    assert found.name == name


@pytest.mark.parametrize("visible", ["", "-1", "7", "none"])
def test_gpu_that_cuda_hides_is_not_there(visible: str) -> None:
    assert first_gpu(Driver(H100), {"CUDA_VISIBLE_DEVICES": visible}) is None


def test_machine_without_driver_or_gpu_has_none() -> None:
    assert first_gpu(Driver(broken="nvmlInit"), {}) is None
    assert first_gpu(Driver(), {}) is None


def test_gpus_of_several_kinds_must_be_counted_as_the_driver_does() -> None:
    """Else CUDA would build on the faster and the record would name the other."""
    with pytest.raises(UnsupportedError, match="set CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        first_gpu(Driver(L4, H100), {})

    assert first_gpu(Driver(L4, L4), {}) is not None
    assert first_gpu(Driver(L4, H100), {"CUDA_VISIBLE_DEVICES": "GPU-0"}) is not None


@pytest.mark.parametrize("call", ["nvmlDeviceGetName", "nvmlDeviceGetCudaComputeCapability"])
def test_driver_that_breaks_is_one_clear_error(call: str) -> None:
    driver = Driver(H100, broken=call)

    with pytest.raises(UnsupportedError, match="does not tell about its GPU: Unknown Error"):
        first_gpu(driver, {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"})

    assert not driver.is_open
