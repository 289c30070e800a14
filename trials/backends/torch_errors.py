"""Errors of torch, mapped once to ours."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from trials.errors import FaultError, MemoryLimitError, TrialError, UnsupportedError

RUNTIME_ERRORS = (RuntimeError, MemoryError)
"""What torch raises while it runs, out of memory and its compilers' own errors included."""

_NO_MEMORY = re.compile(
    r"out of memory|can't allocate memory|not enough memory|bad_alloc|bad allocation",
    re.IGNORECASE,
)
_NO_KERNEL = re.compile(
    r"not implemented for|not supported|unsupported|"
    # the model names a type that a lowered one does not have
    r"same dtype|expected scalar type|should be the same",
    re.IGNORECASE,
)
_NO_CAPTURE = re.compile(
    # the model waits, allocates or copies where a graph cannot: a fact about it
    r"stream is capturing|during CUDA graph capture|error during capture|"
    r"capturing blocking stream",
    re.IGNORECASE,
)
_MOST_CHARACTERS = 300


@contextmanager
def mapped(doing: str) -> Iterator[None]:
    """Raise what torch raises as an error of ours.

    Args:
        doing: What was being done, for the message: ``loading an engine``.

    Raises:
        UnsupportedError: An operator or type that torch does not have here, or that a CUDA
            graph cannot hold.
        MemoryLimitError: It does not fit.
        FaultError: Anything else.
    """
    try:
        yield
    except RUNTIME_ERRORS as error:
        raise trial_error(error, doing) from error


def trial_error(error: Exception, doing: str) -> TrialError:
    """Translate one error of torch."""
    text = _essence(str(error))
    if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
        return MemoryLimitError(
            f"{doing} needs more memory than there is ({text}); lower batch_size or concurrency"
        )
    if _NO_CAPTURE.search(str(error)):
        return UnsupportedError(
            f"{doing}: a CUDA graph cannot hold what this model does ({text}); use "
            "cuda_graph: false"
        )
    if isinstance(error, NotImplementedError) or _NO_KERNEL.search(str(error)):
        return UnsupportedError(
            f"{doing}: torch cannot run this model here ({text}); leave this precision or mode out"
        )
    return FaultError(f"{doing}: torch failed ({text})")


def _essence(text: str) -> str:
    line = " ".join(text.split())
    if len(line) > _MOST_CHARACTERS:
        line = f"{line[: _MOST_CHARACTERS - 1]}…"
    return line or "no reason given"
