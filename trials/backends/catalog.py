"""The backends by the names that space files use; each is imported only when it is asked for."""

from importlib import import_module

from search_spaces.spelling import did_you_mean
from trials.backend import Backend
from trials.errors import TrialError, UnsupportedError

_CLASSES = {"fake": "FakeBackend", "ort": "OrtBackend"}
_PLANNED = ("tensorrt", "torch")

BACKENDS = (*_CLASSES, *_PLANNED)
"""Every name that a space file may use."""


def backend_named(name: str) -> Backend:
    """Make the backend called ``name``.

    Raises:
        UnsupportedError: This version does not have it yet.
        TrialError: There is none of that name.
    """
    if name in _PLANNED:
        raise UnsupportedError(
            f"this version of trifront has no backend {name!r} yet; use ort (ONNX Runtime on the "
            "CPU), or fake for a dry run"
        )
    if name not in _CLASSES:
        raise TrialError(f"there is no backend {name!r}; {did_you_mean(name, _CLASSES)}")
    backend: Backend = getattr(import_module(f"trials.backends.{name}"), _CLASSES[name])()
    return backend
