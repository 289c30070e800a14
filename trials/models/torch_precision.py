"""Convert a torch program to a precision: weights and arithmetic, not what goes in and out.

Inputs and outputs stay what they are in fp32, so that every precision is fed and scored alike, as
with ONNX. What the module itself computes in a named type (``x.float()``) stays as its author
wrote it. BatchNorm was folded before, in fp32.
"""

import shutil
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.deployment import Precision
from trials.errors import MemoryLimitError, UnsupportedError
from trials.models.onnx_model import one_line
from trials.models.torch_program import body_of, read_program, reexported, write_program

if TYPE_CHECKING:
    from torch import Tensor, nn

_RECIPE = "1"  # raise it when a conversion below changes: kept conversions are made anew
_AS_IT_IS = (Precision.FP32, Precision.TF32)  # tf32 is how a GPU multiplies, not how weights lie
_TYPES = {Precision.FP16: "float16", Precision.BF16: "bfloat16"}


def converter_versions(precision: Precision) -> tuple[tuple[str, str], ...]:
    """Return everything besides the program that changes what ``convert`` writes."""
    if precision in _AS_IT_IS:
        return ()
    return (("recipe", _RECIPE), ("torch", version("torch")))


def convert(model: Path, precision: Precision, out: Path) -> None:
    """Write a copy of a program that computes in ``precision``.

    Raises:
        UnsupportedError: There is no converter for the precision, or it cannot convert this
            program.
        MemoryLimitError: Converting needs more memory than there is.
        ModelError: The file is no program.
        OSError: The file cannot be written.
    """
    if precision in _AS_IT_IS:
        shutil.copyfile(model, out)
        return
    if precision not in _TYPES:
        makeable = ", ".join(known.value for known in (*_AS_IT_IS, *_TYPES))
        raise UnsupportedError(f"no converter makes {precision.value}; use one of: {makeable}")
    program = read_program(model)
    try:
        lowered = _lowered(body_of(program), _TYPES[precision])
        converted = reexported(program, lowered)
    except MemoryError as error:
        raise MemoryLimitError(
            f"{model.name}: converting to {precision.value} needs more memory than there is"
        ) from error
    except Exception as error:  # torch raises whatever it stumbles over
        raise UnsupportedError(
            f"{model.name}: cannot be converted to {precision.value} "
            f"({type(error).__name__}: {one_line(str(error))}); leave this precision out"
        ) from error
    write_program(converted, out)


def _lowered(body: "nn.Module", dtype_name: str) -> "nn.Module":
    """Let a module compute in a narrower type, between inputs and outputs of their own."""
    import torch
    from torch import nn

    dtype = getattr(torch, dtype_name)

    def to_narrow(tensor: "Tensor") -> "Tensor":
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    def to_wide(tensor: "Tensor") -> "Tensor":
        return tensor.to(torch.float32) if tensor.dtype == dtype else tensor

    class Lowered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body.to(dtype)

        def forward(self, inputs: "Tensor") -> tuple["Tensor", ...]:
            return tuple(to_wide(answer) for answer in self.body(to_narrow(inputs)))

    return Lowered()
