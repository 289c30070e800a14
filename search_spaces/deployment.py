"""A deployment: one point of the space, one way to run the model.

The word *trial* is Optuna's; what is tried here is a deployment.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

Scalar: TypeAlias = bool | int | float | str

REQUIRED_AXES = ("variant", "precision", "batch_size", "concurrency")
LOAD_AXES = ("load", "rate_rps", "max_queue_delay_us")
OPEN, CLOSED = "open", "closed"
KEEP_LAYERS = "keep_layers"  # an option of every backend that takes the precision from the model


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
class OpenLoad:
    """Requests of one sample that come on their own, and are batched as a server does it.

    Attributes:
        rate_rps: Mean rate of the requests, requests/s, > 0.
        max_queue_delay_us: How long a request may wait for others to share its batch,
            microseconds, >= 0.
    """

    rate_rps: float
    max_queue_delay_us: int = 0

    def axes(self) -> Iterator[tuple[str, Scalar]]:
        """Yield (axis, value)."""
        yield "load", OPEN
        yield "rate_rps", plain_rate(self.rate_rps)
        yield "max_queue_delay_us", self.max_queue_delay_us


def plain_rate(rate_rps: float) -> int | float:
    """Write a whole rate as an integer, so that it looks alike wherever it came from."""
    return int(rate_rps) if float(rate_rps).is_integer() else rate_rps


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One point of a deployment space.

    Attributes:
        variant: Name of the model variant in the space.
        precision: Arithmetic of the engine.
        batch_size: Samples per request, >= 1; under an open load the largest batch.
        concurrency: Requests in flight at once, >= 1; under an open load batches in flight.
        options: Backend options as (name, value), sorted by name.
        load: How requests come; None for a closed loop, which sends one when one is answered.
    """

    variant: str
    precision: Precision
    batch_size: int
    concurrency: int
    options: tuple[tuple[str, Scalar], ...] = ()
    load: OpenLoad | None = None

    def axes(self) -> Iterator[tuple[str, Scalar]]:
        """Yield (axis, value), the four required axes first, then those of an open load."""
        yield "variant", self.variant
        yield "precision", self.precision.value
        yield "batch_size", self.batch_size
        yield "concurrency", self.concurrency
        if self.load is not None:
            yield from self.load.axes()
        yield from self.options

    def __str__(self) -> str:
        return " ".join(f"{axis}={value}" for axis, value in self.axes())


def deployment_from_axes(values: dict[str, Scalar]) -> Deployment:
    """Build a deployment from a value for every axis.

    Raises:
        KeyError: A required axis is missing.
        ValueError: The precision is unknown.
    """
    named = (*REQUIRED_AXES, *LOAD_AXES)
    options = sorted(item for item in values.items() if item[0] not in named)
    return Deployment(
        variant=str(values["variant"]),
        precision=Precision(str(values["precision"])),
        batch_size=int(values["batch_size"]),
        concurrency=int(values["concurrency"]),
        options=tuple(options),
        load=_load(values),
    )


def kept_layers(deployment: Deployment) -> int:
    """Say how many of a deployment's most sensitive layers stay in fp32."""
    return int(dict(deployment.options).get(KEEP_LAYERS, 0))


def _load(values: dict[str, Scalar]) -> OpenLoad | None:
    if values.get("load", CLOSED) == CLOSED:
        return None
    return OpenLoad(
        rate_rps=float(values["rate_rps"]),
        max_queue_delay_us=int(values["max_queue_delay_us"]),
    )
