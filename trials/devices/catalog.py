"""The GPU of this machine, through whatever is installed to use it."""

from functools import cache

from trials.devices.device import Device
from trials.errors import UnsupportedError


@cache
def this_device() -> Device:
    """Find the first GPU that CUDA shows, through pycuda or else PyTorch; no context is made yet.

    The same for all who ask in a process, and closed by none of them: it holds a context that
    takes a second to make.

    Raises:
        UnsupportedError: There is none, or nothing to use it with; the message has the reasons.
    """
    from trials.devices.cuda import cuda_device
    from trials.devices.torch_device import torch_device

    reasons = []
    for find in (cuda_device, torch_device):
        try:
            found: Device = find()
        except UnsupportedError as error:
            reasons.append(str(error))
        else:
            return found
    raise UnsupportedError("; ".join(reasons))
