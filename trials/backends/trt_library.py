"""TensorRT as it is installed: the data-centre flavour, or TensorRT for RTX; one API, two ranges.

Only names that both flavours have are used without a question: TensorRT 10 and 11, RTX 1.7.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from trials.errors import FaultError, MemoryLimitError, TrialError, UnsupportedError

_FLAVOURS = ("tensorrt", "tensorrt_rtx")  # the first that is there
NO_MEMORY = ("out of memory", "outofmemory", "bad_alloc", "cudaerrormemoryallocation")
"""What TensorRT says, in small letters, where something does not fit."""

_NOT_MADE = "nullptr"  # of pybind11, where a constructor of TensorRT gave nothing
_MOST_CHARACTERS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """The loaded flavour.

    Attributes:
        name: Of its Python module.
        module: The module itself; it has no types.
        is_rtx: It is TensorRT for RTX, which builds without a GPU and for others than its own.
    """

    name: str
    version: str
    module: Any
    is_rtx: bool

    def targets(self) -> tuple[str, ...]:
        """Name the compute capabilities that it builds for without having one, oldest first."""
        if not self.is_rtx:
            return ()
        names = self.module.ComputeCapability.__members__
        found = [name for name in names if name.startswith("SM")]
        return tuple(sorted(found, key=lambda name: int(name.removeprefix("SM"))))


@cache
def library() -> Library:
    """Load the flavour that is installed.

    Raises:
        UnsupportedError: There is none, or it does not load.
    """
    reasons = []
    for name in _FLAVOURS:
        try:
            module = import_module(name)
            version = str(module.__version__)
        except (ImportError, OSError, AttributeError) as error:
            reasons.append(f"{name}: {error}")
            continue
        return library_from(module, name=name, version=version)
    raise UnsupportedError(
        f"TensorRT is not installed ({'; '.join(reasons)}); pip install 'trifront[tensorrt]' for "
        "data-centre GPUs, 'trifront[tensorrt-rtx]' for GeForce, RTX and machines without a GPU"
    )


def library_from(module: Any, *, name: str, version: str) -> Library:
    """Tell which flavour a module is: only TensorRT for RTX builds for compute capabilities."""
    is_rtx = hasattr(module, "ComputeCapability")
    return Library(name=name, version=version, module=module, is_rtx=is_rtx)


class Said:
    """What a builder says, in order; gives the loggers that listen.

    Attributes:
        lines: Each with its severity in front.
        errors: The errors among them.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.errors: list[str] = []

    def logger(self, module: Any) -> Any:
        """Make a logger of the library's own class, which exists only once it is loaded."""
        said = self
        worst = (module.ILogger.Severity.INTERNAL_ERROR, module.ILogger.Severity.ERROR)

        class Listener(module.ILogger):  # type: ignore[misc] # its base has no types
            def __init__(self) -> None:
                module.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                name = str(severity).rpartition(".")[2]
                said.lines.append(f"{name}: {message}")
                if severity in worst:
                    said.errors.append(message)

        return Listener()


@contextmanager
def foreign_errors(doing: str, said: Said) -> Iterator[None]:
    """Map what the bindings throw, which is little: most of it is said to the logger.

    A builder or runtime that cannot be made, because CUDA does not start or the GPU is lost, is a
    TypeError of theirs too (NVIDIA/TensorRT #308, #2913), and no argument's fault.

    Args:
        doing: What is being done, for the message.
        said: What the library says meanwhile.

    Raises:
        UnsupportedError: An argument that this version does not take.
        MemoryLimitError: It does not fit.
        FaultError: The library does not start.
    """
    try:
        yield
    except (TypeError, ValueError, AttributeError) as error:
        if _NOT_MADE in str(error):
            raise trouble(doing, said, 0) from error
        raise UnsupportedError(f"{doing}: TensorRT does not take this: {error}") from error


def trouble(doing: str, said: Said, heard: int) -> TrialError:
    """Tell from what the library has said since what kind of trouble it is in.

    Args:
        doing: What was being done, for the message.
        said: All that it said.
        heard: How many errors it had said before.
    """
    errors = said.errors[heard:]
    reason = short(errors[-1]) if errors else "it does not say why"
    if any(word in " ".join(errors).lower() for word in NO_MEMORY):
        return MemoryLimitError(
            f"{doing}: the GPU has no memory for it ({reason}); lower batch_size or concurrency"
        )
    return FaultError(f"{doing}: TensorRT failed ({reason})")


def short(text: str) -> str:
    """Bring what the library said onto one line of readable length."""
    line = " ".join(text.split())
    return line if len(line) <= _MOST_CHARACTERS else f"{line[:_MOST_CHARACTERS]}…"
