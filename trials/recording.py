"""Record references: load a deployment's engine, let it answer samples of the report split."""

from collections.abc import Callable

import numpy as np

from search_spaces.deployment import Deployment
from trials.backend import Engine, Tensors
from trials.bench import Bench
from trials.data.feeding import feeds
from trials.data.npz import Array
from trials.references import Recorded, References, Wanted, answers


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
