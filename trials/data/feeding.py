"""Name samples as an engine's inputs, or say in one line why they do not fit."""

import math
from collections.abc import Sequence
from dataclasses import replace

from search_spaces.spelling import did_you_mean
from trials.backend import Tensors, TensorSpec
from trials.data.npz import Array
from trials.data.preprocessing import shown
from trials.errors import DataError


def feeds(samples: Tensors, inputs: tuple[TensorSpec, ...], *, source: str) -> Tensors:
    """Name the samples as the engine's inputs are named, in their order.

    Args:
        samples: What :meth:`Split.samples` returned.
        inputs: The engine's.
        source: The space file, for messages.

    Raises:
        DataError: An input without samples, samples without an input, or another type or shape.
    """
    samples = _named(samples, inputs, source)
    for spec in inputs:
        _check_type(samples[spec.name], spec, inputs, source)
        _check_shape(samples[spec.name], spec, source)
    return {spec.name: samples[spec.name] for spec in inputs}


def check_shapes(samples: Tensors, inputs: tuple[TensorSpec, ...], *, source: str) -> None:
    """See that stored samples, cut into batches and converted, could feed a model.

    Args:
        samples: Arrays by input name; "" names a sole unnamed input.
        inputs: The model's; neither their types nor the size of their batch matter.
        source: The data, for messages.

    Raises:
        DataError: An input without samples, samples without an input, or another shape.
    """
    samples = _named(samples, inputs, source)
    for spec in inputs:
        free = replace(spec, shape=(None, *spec.shape[1:]))
        _check_shape(samples[spec.name], free, source)


def _named(samples: Tensors, inputs: tuple[TensorSpec, ...], source: str) -> Tensors:
    if len(inputs) == 1 and set(samples) == {""}:
        samples = {inputs[0].name: samples[""]}
    _check_names(samples, [spec.name for spec in inputs], source)
    return samples


def _check_names(samples: Tensors, wanted: Sequence[str], source: str) -> None:
    missing = [name for name in wanted if name not in samples]
    surplus = [name for name in samples if name not in wanted]
    if not missing and not surplus:
        return
    if "" in surplus:
        raise DataError(
            f"{source}: the model takes {len(wanted)} inputs and the data hold one array; store "
            f"{', '.join(f'inputs.{name}' for name in wanted)}"
        )
    if surplus:
        raise DataError(
            f"{source}: array inputs.{surplus[0]} feeds no input of the model; "
            f"{did_you_mean(surplus[0], wanted)}"
        )
    raise DataError(
        f"{source}: the model's input {missing[0]!r} has no samples; store inputs.{missing[0]}"
    )


def _check_type(
    array: Array, spec: TensorSpec, inputs: tuple[TensorSpec, ...], source: str
) -> None:
    if array.dtype.name == spec.dtype:
        return
    types = {one.dtype for one in inputs}
    each = ", ".join(f"{one.name}: {one.dtype}" for one in inputs)
    mend = spec.dtype if len(types) == 1 else f"{{{each}}}"
    raise DataError(f"{_difference(array, spec, source)}; set task.preprocess.dtype: {mend}")


def _check_shape(array: Array, spec: TensorSpec, source: str) -> None:
    if _matches(array.shape, spec.shape):
        return
    differ = _difference(array, spec, source)
    if _matches(array.shape[1:], spec.shape[1:]):
        raise DataError(f"{differ}; the model takes batches of {spec.shape[0]} only")
    raise DataError(f"{differ}; {_reshaping(array.shape[1:], spec.shape[1:])}")


def _difference(array: Array, spec: TensorSpec, source: str) -> str:
    return (
        f"{source}: the model's input {spec.name!r} takes {spec.dtype} {shown(spec.shape)}, the "
        f"samples are {array.dtype.name} {array.shape}"
    )


def _matches(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(shape) == len(wanted) and all(
        theirs is None or own == theirs for own, theirs in zip(shape, wanted, strict=True)
    )


def _reshaping(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> str:
    """Say what makes one sample's shape the wanted one."""
    mends: list[tuple[tuple[int, ...], str]] = [
        ((1, *shape), "the channel is missing, store inputs[:, None]"),
        ((*shape, 1), "the channel is missing, store inputs[..., None]"),
    ]
    if len(shape) == len(wanted) == len("chw"):
        first, second, third = shape
        mends += [
            ((third, first, second), "channels come first, store inputs.transpose(0, 3, 1, 2)"),
            ((second, third, first), "channels come last, store inputs.transpose(0, 2, 3, 1)"),
        ]
    sizes = [size for size in wanted if size is not None]
    if len(sizes) == len(wanted) and math.prod(sizes) == math.prod(shape):
        mends.append((tuple(sizes), f"store inputs.reshape(-1, {', '.join(map(str, sizes))})"))
    fitting = [mend for mended, mend in mends if _matches(mended, wanted)]
    return (
        fitting or ["store them so, or for a folder of images set preprocess.size and .color"]
    )[0]
