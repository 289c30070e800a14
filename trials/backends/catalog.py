"""The backends by the names that space files use; each is imported only when it is asked for."""

from importlib import import_module

from search_spaces.spelling import did_you_mean
from trials.backend import Backend
from trials.errors import TrialError, UnsupportedError

_CLASSES = {
    "fake": ("fake", "FakeBackend"),
    "ort": ("ort", "OrtBackend"),
    "tensorrt": ("trt", "TensorRtBackend"),
    "torch": ("torch_backend", "TorchBackend"),
}
_CROSS_BUILDERS = ("tensorrt",)  # that build for devices that this machine does not have

BACKENDS = tuple(_CLASSES)
"""Every name that a space file may use."""

_SUFFIXES = {"ort": "onnx", "fake": "json", "torch": "pt2"}  # others keep a plan


def engine_suffix(backend: str) -> str:
    """Return what the names of a backend's engine files end with, without the dot."""
    return _SUFFIXES.get(backend, "plan")


def backend_named(name: str, *, target: str | None = None) -> Backend:
    """Make the backend called ``name``.

    Args:
        name: As space files have it.
        target: The device that engines are built for, such as ``SM89``; None for this machine's.

    Raises:
        UnsupportedError: It builds for this machine alone.
        TrialError: There is none of that name.
    """
    if name not in _CLASSES:
        raise TrialError(f"there is no backend {name!r}; {did_you_mean(name, _CLASSES)}")
    module, kind = _CLASSES[name]
    makes = getattr(import_module(f"trials.backends.{module}"), kind)
    if name not in _CROSS_BUILDERS and target is not None:
        raise UnsupportedError(
            f"backend {name!r} builds engines for the machine that it runs on, not for {target}"
        )
    backend: Backend = makes() if target is None else makes(target)
    return backend
