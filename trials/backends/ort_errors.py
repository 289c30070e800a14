"""Errors of ONNX Runtime, mapped once to ours."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from trials.errors import FaultError, MemoryLimitError, TrialError, UnsupportedError

_UNSUPPORTED = ("NotImplemented", "InvalidGraph")
_NO_MEMORY = re.compile(
    r"Failed to allocate memory|out of memory|bad_alloc|bad allocation", re.IGNORECASE
)
_NO_OPERATOR = re.compile(
    r"is not a registered function/op|No Op registered for|Could not find an implementation|"
    r"opset|IR version"
)
_WRONG_SHAPE = re.compile(r"Got invalid (dimensions|rank)")
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
_SOURCE_LINE = re.compile(r"/\S+\.(?:cc|h):\d+ (?:\S+ )*?(?=[A-Z][a-z]+ )")
_MOST_CHARACTERS = 300


@contextmanager
def mapped(doing: str) -> Iterator[None]:
    """Raise what ONNX Runtime raises as an error of ours.

    Args:
        doing: What was being done, for the message: ``building plan``.

    Raises:
        UnsupportedError: An operator, opset or shape that ONNX Runtime cannot run.
        MemoryLimitError: It does not fit.
        FaultError: Anything else.
    """
    try:
        yield
    except runtime_errors() as error:
        raise trial_error(error, doing) from error


@cache
def runtime_errors() -> tuple[type[Exception], ...]:
    """Return the classes that ONNX Runtime raises; they have no common base."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = (each for each in vars(state).values() if isinstance(each, type))
    return (*(each for each in own if issubclass(each, Exception)), MemoryError, RuntimeError)


def trial_error(error: Exception, doing: str) -> TrialError:
    """Translate one error of ONNX Runtime."""
    text = _essence(str(error))
    if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
        return MemoryLimitError(
            f"{doing} needs more memory than there is ({text}); lower batch_size or concurrency"
        )
    if _WRONG_SHAPE.search(str(error)):
        return UnsupportedError(
            f"{doing}: the model does not take inputs of this shape ({text}); use the shapes that "
            "it was exported for, or export it with free dimensions"
        )
    if type(error).__name__ in _UNSUPPORTED or _NO_OPERATOR.search(str(error)):
        return UnsupportedError(
            f"{doing}: ONNX Runtime cannot run this model ({text}); export it with other "
            "operators or another opset, or leave this precision out"
        )
    return FaultError(f"{doing}: ONNX Runtime failed ({text})")


def _essence(text: str) -> str:
    """Leave out codes and source positions, on one line."""
    line = " ".join(_SOURCE_LINE.sub("", _PREFIX.sub("", text)).split())
    if len(line) > _MOST_CHARACTERS:
        line = f"{line[: _MOST_CHARACTERS - 1]}…"
    return line or "no reason given"
