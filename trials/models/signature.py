"""What a model says of its inputs and outputs, in whatever form its file is."""

from dataclasses import dataclass
from typing import Protocol

from trials.backend import TensorSpec


class Signature(Protocol):
    """Inputs and outputs of a model."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """In the model's order."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """In the model's order."""
        ...

    @property
    def batch_size(self) -> int | None:
        """The only batch size that the model takes; None where any will do."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainSignature:
    """A signature that nothing else is known with."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch_size: int | None = None
