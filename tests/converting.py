"""Convert a model to any precision in one call, as a bench does in several."""

from collections.abc import Sequence
from pathlib import Path

from search_spaces.deployment import Precision
from trials.backend import Tensors
from trials.models.precision import OpenedLowering, keeps_file, write_as_it_is


def convert(
    model: Path, precision: Precision, out: Path, *, calibration: Sequence[Tensors]
) -> None:
    """Write a model that computes in a precision, with no layer kept in fp32."""
    if keeps_file(precision):
        write_as_it_is(model, out)
    else:
        OpenedLowering(model, precision, calibration=calibration).write(out, ())
