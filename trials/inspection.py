"""What a backend tells of an engine: its layers, and what the builder said while it built.

Nothing is measured or decided by it; it lets people see what a builder made of their model. How it
is kept and found again is in ``inspection_file``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

MOST_LOG_CHARACTERS = 200_000  # ONNX Runtime says 20,000 of a small model, TensorRT ten times that


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerOutput:
    """A tensor that a layer makes.

    Attributes:
        dtype: NumPy type name; None where the backend does not tell.
        shape: In the layout of the model as it was given, whatever layout the engine works in;
            None in it is a free dimension, None for it that the backend does not tell.
    """

    name: str
    dtype: str | None
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One step of an engine.

    Attributes:
        operator: What it does, in the backend's own word.
        parameter_bytes: Of the constants that it reads; one that several layers read counts at
            each of them.
        fused_from: Names of the model's operators that it does the work of, in their order; empty
            where it is the model's own, or nobody can tell.
        facts: What else the backend knows, as (name, value).
    """

    name: str
    operator: str
    outputs: tuple[LayerOutput, ...]
    parameter_bytes: int
    fused_from: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildLog:
    """The builder's own words, bounded; made by :func:`build_log`.

    Attributes:
        text: Lines; where some are left out, one of them says so.
        left_out: Number of lines that were left out of the middle.
    """

    text: str
    left_out: int = 0


def build_log(lines: Sequence[str]) -> BuildLog:
    """Keep the first and the last lines, as many as ``MOST_LOG_CHARACTERS`` allow.

    Builders begin with what they were given and end with what came of it.
    """
    head = _fitting(lines, MOST_LOG_CHARACTERS // 2)
    rest = lines[head:]
    tail = _fitting(rest[::-1], MOST_LOG_CHARACTERS // 2)
    left_out = len(rest) - tail
    gap = [f"… {left_out} lines are left out here …"] if left_out else []
    kept = [*lines[:head], *gap, *rest[left_out:]]
    return BuildLog(text="".join(f"{line}\n" for line in kept), left_out=left_out)


def _fitting(lines: Sequence[str], most: int) -> int:
    """Count the first lines that have ``most`` characters together, their ends included."""
    for count, line in enumerate(lines):
        most -= len(line) + 1
        if most < 0:
            return count
    return len(lines)
