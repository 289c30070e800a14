"""How stored samples become model inputs: type, scale, mean and standard deviation."""

from collections.abc import Sequence

import numpy as np

from search_spaces.space import Conversion, Preprocessing, is_floating
from search_spaces.spelling import did_you_mean
from trials.data.npz import Array
from trials.errors import DataError


def shown(shape: Sequence[int | None]) -> str:
    """Write a shape for people; ``n`` is a free dimension."""
    return f"({', '.join('n' if size is None else str(size) for size in shape)})"


def check_types(preprocessing: Preprocessing, names: Sequence[str], *, source: str) -> None:
    """Refuse types by input that do not name each of the stored inputs and nothing else.

    Args:
        preprocessing: The task's.
        names: Of the stored inputs; "" is a sole unnamed one.
        source: The space file, for messages.

    Raises:
        DataError: They do not, or there is nothing that scale, mean or std could be for.
    """
    if isinstance(preprocessing.dtype, str):
        return
    types = dict(preprocessing.dtype)
    where = f"{source}: task.preprocess.dtype"
    if "" in names:
        raise DataError(
            f"{where} is by input, and the data hold one array without a name; write "
            f"dtype: {next(iter(types.values()))}, or store inputs.<name> for each input"
        )
    for name in types:
        if name not in names:
            raise DataError(
                f"{where}: there are no samples inputs.{name}; {did_you_mean(name, names)}"
            )
    for name in names:
        if name not in types:
            raise DataError(
                f"{where}: has no type for inputs.{name}; add one, such as {name}: float32"
            )
    how = preprocessing
    if not any(map(is_floating, types.values())) and (how.scale != 1 or how.mean or how.std):
        raise DataError(
            f"{where}: no input has a floating type, so scale, mean and std are for nothing; "
            "remove them"
        )


def preprocessed(stored: Array, how: Conversion, *, where: str) -> Array:
    """Return ``(stored * scale - mean) / std`` as ``how.dtype``; at least float32 in between."""
    dtype = np.dtype(how.dtype)
    plain = how.scale == 1 and not how.mean and not how.std
    if not plain and dtype.kind != "f":
        raise DataError(
            f"{where}: preprocess.dtype {dtype.name} takes no scale, mean or std; remove them or "
            "write dtype: float32"
        )
    try:
        with np.errstate(over="raise"):
            if plain:
                return stored.astype(dtype)
            values = stored.astype(np.promote_types(dtype, np.float32))
            values *= how.scale
            if how.mean:
                values -= _per_channel(how.mean, "mean", stored, where)
            if how.std:
                values /= _per_channel(how.std, "std", stored, where)
            return values.astype(dtype, copy=False)
    except FloatingPointError as error:
        raise DataError(
            f"{where}: samples become too large for preprocess.dtype {dtype.name}; lower "
            "preprocess.scale or take a wider dtype"
        ) from error


def _per_channel(values: tuple[float, ...], key: str, stored: Array, where: str) -> Array:
    """Shape the values of a key so that they meet axis 1 of the batch."""
    channels = stored.shape[1] if stored.ndim > 1 else 0
    if channels != len(values):
        raise DataError(
            f"{where}: preprocess.{key} has {len(values)} values, samples of shape "
            f"{shown((None, *stored.shape[1:]))} have {channels} channels (axis 1); give one "
            "value per channel"
        )
    return np.array(values).reshape(-1, *(1,) * (stored.ndim - 2))


def check_range(stored: Array, how: Conversion, *, where: str) -> None:
    """Refuse stored values that an integer type for the model would cut or wrap."""
    dtype = np.dtype(how.dtype)
    if dtype.kind == "f" or np.can_cast(stored.dtype, dtype):
        return
    if stored.dtype.kind == "f":
        raise DataError(
            f"{where} is {stored.dtype.name}, which preprocess.dtype {dtype.name} would cut; "
            f"store it as {dtype.name}"
        )
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if stored.min() < low or stored.max() > high:
        raise DataError(
            f"{where} holds {stored.min()} to {stored.max()}, preprocess.dtype {dtype.name} holds "
            f"{low} to {high}; take a wider dtype"
        )
