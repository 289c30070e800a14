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

from search_spaces.deployment import Deployment
from trials.backend import Engine, Tensors, TensorSpec
from trials.bench import Bench
from trials.data.feeding import feeds
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


def record_references(deployment: Deployment, bench: Bench, wanted: Wanted) -> Recorded:
    """Load a deployment's engine, describe it, and let it answer samples of the report split.

    Which samples is drawn with the seed of the measuring plan.

    Raises:
        TrialError: The engine cannot be built, loaded or run.
    """
    prepared = bench.prepare(deployment)
    split = bench.dataset.report
    engine = bench.backend.load(prepared.engine.path, deployment)
    try:
        return Recorded(
            inputs=engine.inputs,
            outputs=engine.outputs,
            classes=split.classes,
            references=_references(engine, deployment, bench, wanted),
            available=len(split),
        )
    finally:
        engine.close()


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


def _references(
    engine: Engine, deployment: Deployment, bench: Bench, wanted: Wanted
) -> References | None:
    if wanted.samples == 0:
        return None
    split, size = bench.dataset.report, deployment.batch_size
    order = np.random.default_rng(bench.space.plan.seed).permutation(len(split))

    def fed(chosen: Array) -> Tensors:
        samples = split.samples(chosen, bench.dataset.preprocessing)
        return feeds(samples, engine.inputs, source=bench.space.source)

    probe = fed(order[np.arange(size) % len(split)])
    batch_bytes = _bytes_of(probe) + _bytes_of(engine.infer(probe))
    affordable = max(1, wanted.limit_bytes * size // max(1, batch_bytes))
    chosen = np.sort(order[: min(wanted.samples, affordable)])
    inputs = _in_batches(fed, chosen, size)
    return References(
        inputs=inputs,
        outputs=answers(engine.infer, inputs, batch_size=size),
        labels=split.labels[chosen],
        batch_size=size,
    )


def _in_batches(fed: Callable[[Array], Tensors], chosen: Array, size: int) -> Tensors:
    """Make inputs batch by batch, because a model may take batches of one size only."""
    pieces: dict[str, list[Array]] = {}
    for start in range(0, len(chosen), size):
        batch = chosen[np.arange(start, start + size) % len(chosen)]
        for name, array in fed(batch).items():
            pieces.setdefault(name, []).append(array[: len(chosen) - start])
    return {name: np.concatenate(parts) for name, parts in pieces.items()}


def _bytes_of(tensors: Tensors) -> int:
    return sum(array.nbytes for array in tensors.values())
