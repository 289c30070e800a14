"""The GPU that the ``torch`` backend runs on, if this machine has one."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeAlias

from trials.backends.torch_cuda import Cuda, this_gpu
from trials.machine.gpu_source import GpuSource
from trials.machine.nvml import meter

Meters: TypeAlias = Callable[[], AbstractContextManager[GpuSource | None]]
"""Opens the meters of a GPU; None where nobody can read them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A GPU and what is known of it.

    Attributes:
        device: What torch calls it.
        capability: Compute capability, as 90 for 9.0.
        runtime: Version of CUDA that torch was built for.
        cuda: Its library.
        meters: Opens its meters; that of NVML, which nothing is asked of before.
    """

    device: str
    name: str
    capability: int
    runtime: str
    cuda: Cuda
    meters: Meters = meter


def find_card() -> Card | None:
    """Return the GPU that torch would take; None where there is none or torch was built without.

    ``CUDA_VISIBLE_DEVICES`` chooses among several, and an empty one hides them all.
    """
    import torch

    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    return Card(
        device="cuda",
        name=torch.cuda.get_device_name(),
        capability=10 * major + minor,
        runtime=str(torch.version.cuda),
        cuda=this_gpu(),
    )
