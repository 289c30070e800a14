"""What ONNX Runtime says of its own while it works."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

INFO = 1  # log severity: each transformation of the graph, and whether it changed something
WARNING = 2  # the library's own default

_LETTERS = "VIWEF"  # by severity


@contextmanager
def listening(hear: Callable[[int, str, str], None]) -> Iterator[None]:
    """Let ``hear`` take ONNX Runtime's messages, which otherwise go to standard error.

    It is called as ``hear(severity, place, message)``, in the thread that the message is about.
    One listener at a time: the library has one for all sessions of a process.
    """
    import onnxruntime

    def called(severity: int, *words: str) -> None:
        _, _, place, message = words  # category and id are the same for all our sessions
        hear(severity, place, message)

    onnxruntime.set_default_logger_callback(called, WARNING)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_callback(None)


@contextmanager
def overheard() -> Iterator[list[str]]:
    """Collect ONNX Runtime's messages, one a line."""
    lines: list[str] = []

    def hear(severity: int, place: str, message: str) -> None:
        lines.append(f"{_LETTERS[severity]} {place}: {message}")

    with listening(hear):
        yield lines
