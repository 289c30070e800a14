"""Names of libraries that no GPU is needed for: one that is gone fails here, not at a user's."""

from inspect import signature

import pytest

from trials.devices.catalog import this_device
from trials.devices.torch_device import torch_device
from trials.errors import UnsupportedError

TORCH = (
    ("cuda", ("current_stream", "device", "empty_cache", "get_device_properties", "stream")),
    ("cuda", ("is_available", "CUDAGraph", "Event", "Stream")),
    ("cuda.CUDAGraph", ("capture_begin", "capture_end", "replay", "reset")),
    ("cuda.Event", ("elapsed_time", "query", "record", "synchronize")),
    ("cuda.Stream", ("synchronize",)),
)


@pytest.mark.parametrize(("place", "names"), TORCH)
def test_pytorch_has_what_the_device_is_made_of(place: str, names: tuple[str, ...]) -> None:
    found = pytest.importorskip("torch", reason="PyTorch is not installed")
    for part in place.split("."):
        found = getattr(found, part)

    assert [name for name in names if not hasattr(found, name)] == []


def test_pytorch_captures_for_one_thread_alone() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")

    assert "capture_error_mode" in signature(torch.cuda.CUDAGraph.capture_begin).parameters


def test_pytorch_has_events_that_are_waited_for_asleep() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")

    assert "blocking" in signature(torch.cuda.Event.__new__).parameters


BINDINGS = (
    *("cuDeviceGet", "cuDeviceGetUuid", "cuGraphDestroy", "cuGraphExecDestroy", "cuGraphGetNodes"),
    *("cuGraphInstantiate", "cuGraphLaunch", "cuStreamBeginCapture", "cuStreamEndCapture"),
)


def test_cuda_bindings_have_what_graphs_are_made_of() -> None:
    driver = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")

    assert [name for name in BINDINGS if not hasattr(driver, name)] == []
    assert int(driver.CUstream(5)) == 5
    assert driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    assert driver.CUresult.CUDA_SUCCESS != driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY


def test_machine_without_a_gpu_says_what_was_tried() -> None:
    try:
        torch_device()
    except UnsupportedError:
        with pytest.raises(UnsupportedError, match=r"pycuda: .*; PyTorch"):
            this_device()
    else:
        pytest.skip("there is a GPU")
