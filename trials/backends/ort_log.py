"""What ONNX Runtime says of its own while it works."""

from collections.abc import Iterator
from contextlib import contextmanager

INFO = 1  # log severity: each transformation of the graph, and whether it changed something

_WARNING = 2  # of what belongs to no session; the library's own default
_LETTERS = "VIWEF"  # by severity


@contextmanager
def overheard() -> Iterator[list[str]]:
    """Collect ONNX Runtime's messages, which otherwise go to this process's standard error.

    One listener at a time: the library has one for all sessions of a process.
    """
    import onnxruntime

    lines: list[str] = []

    def hear(severity: int, *words: str) -> None:
        _, _, location, message = words  # category and id are the same for all our sessions
        lines.append(f"{_LETTERS[severity]} {location}: {message}")

    onnxruntime.set_default_logger_callback(hear, _WARNING)
    try:
        yield lines
    finally:
        onnxruntime.set_default_logger_callback(None)
