"""A deployment: one point of the space, one way to run the model.

The word *trial* is Optuna's; what is tried here is a deployment.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

Scalar: TypeAlias = bool | int | float | str

REQUIRED_AXES = ("variant", "precision", "batch_size", "concurrency")


class Precision(StrEnum):
    """Arithmetic that an engine is built for; it lives in the converted ONNX file."""

    FP32 = "fp32"
    TF32 = "tf32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"  # static, symmetric, quantize/dequantize pairs
    INT8_DYNAMIC = "int8-dynamic"  # activation scales computed per call
    FP8 = "fp8"
    INT4 = "int4"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One point of a deployment space.

    Attributes:
        variant: Name of the model variant in the space.
        precision: Arithmetic of the engine.
        batch_size: Samples per request, >= 1.
        concurrency: Requests in flight at once, >= 1.
        options: Backend options as (name, value), sorted by name.
    """

    variant: str
    precision: Precision
    batch_size: int
    concurrency: int
    options: tuple[tuple[str, Scalar], ...] = ()

    def axes(self) -> Iterator[tuple[str, Scalar]]:
        """Yield (axis, value), the four required axes first."""
        yield "variant", self.variant
        yield "precision", self.precision.value
        yield "batch_size", self.batch_size
        yield "concurrency", self.concurrency
        yield from self.options

    def __str__(self) -> str:
        return " ".join(f"{axis}={value}" for axis, value in self.axes())


def deployment_from_axes(values: dict[str, Scalar]) -> Deployment:
    """Build a deployment from a value for every axis.

    Raises:
        KeyError: A required axis is missing.
        ValueError: The precision is unknown.
    """
    options = sorted(item for item in values.items() if item[0] not in REQUIRED_AXES)
    return Deployment(
        variant=str(values["variant"]),
        precision=Precision(str(values["precision"])),
        batch_size=int(values["batch_size"]),
        concurrency=int(values["concurrency"]),
        options=tuple(options),
    )
