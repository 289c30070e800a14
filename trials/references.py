"""References: what a measured engine answered to labelled samples, so that others can check it.

The samples come from the report split, which no search has seen. They are recorded as the engine
takes them, so that whoever has the file and the engine needs nothing else. They are answered in
the deployment's own batches and in the order in which they are kept: where answers depend on the
batch (dynamic int8), whoever asks again in the same batches must get the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from trials.backend import Tensors, TensorSpec
from trials.data.npz import Array
from trials.errors import OutputError

Infer: TypeAlias = Callable[[Tensors], Tensors]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How many references are wanted.

    Attributes:
        samples: At most so many, >= 0.
        limit_bytes: Of inputs and outputs together; one sample is recorded even so.
    """

    samples: int
    limit_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class References:
    """Labelled samples and what the engine answered.

    Attributes:
        inputs: Arrays of shape ``(samples, …)``, as the engine takes them.
        outputs: Likewise, as it answered.
        labels: Shape ``(samples,)`` or ``(samples, …)``.
        batch_size: Samples per call; the last batch is filled up from the first samples.
    """

    inputs: Tensors
    outputs: Tensors
    labels: Array
    batch_size: int

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recorded:
    """A loaded engine's description, and its references.

    Attributes:
        classes: Names of the classes, where the data name them.
        references: None where none were wanted.
        available: Samples in the split that references are drawn from.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    classes: tuple[str, ...] | None
    references: References | None
    available: int


def answers(infer: Infer, inputs: Tensors, *, batch_size: int) -> Tensors:
    """Run samples through an engine in full batches, the last one filled up from the first.

    Args:
        infer: The engine's.
        inputs: Arrays of shape ``(samples, …)``, at least one sample.
        batch_size: Samples per call, >= 1.

    Returns:
        Arrays of shape ``(samples, …)``.

    Raises:
        OutputError: An output whose first dimension is not the batch.
        TrialError: Whatever the engine raises.
    """
    count = len(next(iter(inputs.values())))
    pieces: dict[str, list[Array]] = {}
    for start in range(0, count, batch_size):
        chosen = np.arange(start, start + batch_size) % count
        outputs = infer({name: array[chosen] for name, array in inputs.items()})
        for name, output in outputs.items():
            if output.ndim == 0 or len(output) != batch_size:
                raise OutputError(
                    f"output {name!r} has shape {output.shape} for a batch of {batch_size}; its "
                    "first dimension must be the batch"
                )
            pieces.setdefault(name, []).append(output[: count - start])
    return {name: np.concatenate(parts) for name, parts in pieces.items()}
