"""Which GPU of this machine TensorRT builds for when nothing else is named.

It is the first that CUDA shows to this process, asked of the driver through nvidia-ml-py, which
counts GPUs by their place on the bus where CUDA puts the fastest first.

References:
    NVIDIA, CUDA programming guide, environment variables: CUDA_VISIBLE_DEVICES, CUDA_DEVICE_ORDER.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from trials.errors import UnsupportedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU as far as it changes what is built for it.

    Attributes:
        compute_capability: As in SM89.
        driver: Version of its driver.
    """

    name: str
    compute_capability: int
    driver: str


def gpu_here() -> Gpu | None:
    """Return the GPU that this process uses first; None where there is none to be asked.

    Raises:
        UnsupportedError: Which one it is cannot be told.
    """
    try:
        nvml = import_module("pynvml")
    except ImportError:
        return None
    return first_gpu(nvml, os.environ)


def first_gpu(nvml: Any, environ: Mapping[str, str]) -> Gpu | None:
    """Ask the driver for the first GPU that CUDA would show; see :func:`gpu_here`.

    Args:
        nvml: The ``pynvml`` module.
        environ: Environment variables.
    """
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    try:
        handle = _first_handle(nvml, environ)
        if handle is None:
            return None
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
        return Gpu(
            name=nvml.nvmlDeviceGetName(handle),
            compute_capability=10 * major + minor,
            driver=nvml.nvmlSystemGetDriverVersion(),
        )
    except nvml.NVMLError as error:
        raise UnsupportedError(
            f"the NVIDIA driver does not tell about its GPU: {error}"
        ) from error
    finally:
        nvml.nvmlShutdown()


def _first_handle(nvml: Any, environ: Mapping[str, str]) -> Any:
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    first = "0" if visible is None else visible.split(",")[0].strip()
    count = nvml.nvmlDeviceGetCount()
    if first.startswith(("GPU-", "MIG-")):
        return nvml.nvmlDeviceGetHandleByUUID(first)
    if not first.isdigit() or int(first) >= count:  # as CUDA reads it: nothing from there on
        return None
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
    if environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        names = sorted({nvml.nvmlDeviceGetName(handle) for handle in handles})
        if len(names) > 1:
            raise UnsupportedError(
                f"this machine has GPUs of several kinds ({', '.join(names)}), which CUDA and the "
                "driver count differently; set CUDA_DEVICE_ORDER=PCI_BUS_ID"
            )
    return handles[int(first)]
