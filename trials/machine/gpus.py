"""Which NVIDIA GPUs this machine has, where nvidia-ml-py is installed and a driver answers."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any


def gpu_facts() -> Iterator[tuple[str, str]]:
    """Yield ``gpu`` (models by index) and ``gpu_driver``, or ``none`` for both."""
    try:
        nvml = import_module("pynvml")
    except ImportError:
        yield from _none()
        return
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        yield from _none()
        return
    try:
        yield from tuple(_found(nvml))
    except nvml.NVMLError as error:
        yield from (("gpu", f"unknown: {error}"), ("gpu_driver", "unknown"))
    finally:
        nvml.nvmlShutdown()


def driver_version() -> str:
    """Return the version of NVIDIA's driver; ``unknown`` where nobody tells."""
    found = dict(gpu_facts())["gpu_driver"]
    return "unknown" if found == "none" else found


def _found(nvml: Any) -> Iterator[tuple[str, str]]:
    handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    yield "gpu", ", ".join(nvml.nvmlDeviceGetName(handle) for handle in handles) or "none"
    yield "gpu_driver", nvml.nvmlSystemGetDriverVersion()


def _none() -> tuple[tuple[str, str], tuple[str, str]]:
    return ("gpu", "none"), ("gpu_driver", "none")
