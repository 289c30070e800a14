"""Untrusted npz files: arrays of samples, labels and cohorts, checked as they are read.

Layout: ``inputs`` for a sole model input, or ``inputs.<name>`` for each; ``labels``; and, where
there are any, ``cohorts``. Pickles are refused and never loaded.
"""

import lzma
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from search_spaces.spelling import nearest
from trials.errors import DataError

Array: TypeAlias = NDArray[Any]
Arrays: TypeAlias = tuple[tuple[str, Array], ...]

_NUMBERS = "biuf"  # NumPy's kinds: bool, integers, floats
_SLIP = 0.8  # likeness from which an array's name is taken for a slip of an optional one
# what zipfile and NumPy raise on damaged bytes, found by flipping them
_DAMAGE = (
    *(OSError, EOFError, ValueError, TypeError, MemoryError, RuntimeError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, tokenize.TokenError),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stored:
    """The checked content of one file or folder; ``classes`` are the names of class folders."""

    path: Path
    arrays: Arrays
    labels: Array
    cohorts: NDArray[np.str_] | None = None
    classes: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)


def read_npz(path: Path, *, classification: bool) -> Stored:
    """Read and check one file; labels are held to be class numbers for a ``classification``.

    Raises:
        DataError: The file is missing, damaged or holds pickles; an array is missing, of another
            length than the samples, not numeric or not finite; labels are no class numbers.
    """
    members = _members(path)
    named = sorted(name for name in members if name.partition(".")[0] == "inputs")
    if "inputs" in named and len(named) > 1:
        raise DataError(
            f"{path}: has both 'inputs' and {named[1]!r}; name every input, or store a sole one"
        )
    arrays = tuple((name.partition(".")[2], _native(members[name])) for name in named)
    for name in (*named, "labels", *({"cohorts"} & members.keys())):
        _check_samples(path, name, members[name], count=len(np.atleast_1d(members[named[0]])))
    for name in named:
        _check_numbers(path, name, members[name])
    labels = members["labels"]
    if classification:
        labels = _class_labels(path, labels)
    cohorts = members.get("cohorts")
    if cohorts is not None:
        if cohorts.ndim != 1 or cohorts.dtype.kind not in "Uiu":
            raise DataError(
                f"{path}: array 'cohorts' is {cohorts.dtype.name} {cohorts.shape}; store one text "
                "or integer per sample"
            )
        cohorts = cohorts.astype(np.str_)
    return Stored(path=path, arrays=arrays, labels=labels, cohorts=cohorts)


def arrays_in(path: Path) -> dict[str, Array]:
    """Read every array of a file, whatever it is called, and check nothing of it.

    Raises:
        DataError: The file is missing, damaged or holds pickles.
    """
    with _archive(path) as archive:
        return {name: _member(archive, name, path) for name in archive}


def _members(path: Path) -> dict[str, Array]:
    """Load the arrays that mean something here, and miss the ones that must be there."""
    with _archive(path) as archive:
        held = list(archive)
        wanted = [name for name in held if _is_wanted(name)]
        for required in ("inputs", "labels"):
            if required not in {name.partition(".")[0] for name in wanted}:
                raise DataError(f"{path}: has no array {required!r}; {_instead(required, held)}")
        slip = None if "cohorts" in held else nearest("cohorts", held, cutoff=_SLIP)
        if slip is not None:
            raise DataError(f"{path}: array {slip!r} is unknown; did you mean 'cohorts'?")
        return {name: _member(archive, name, path) for name in wanted}


@contextmanager
def _archive(path: Path) -> Iterator[Mapping[str, Array]]:
    if not path.is_file():
        problem = "is no regular file" if path.exists() else "does not exist"
        raise DataError(f"{path}: {problem}; name an npz file or a folder of class folders")
    with ExitStack() as stack:
        with _damage(path, "the file"):
            # NumPy leaves a file that it opens itself open where the zip is damaged
            file = stack.enter_context(path.open("rb"))
            if not zipfile.is_zipfile(file):
                raise DataError(
                    f"{path}: is no npz file, or its end is cut off; write it with "
                    "numpy.savez(path, inputs=..., labels=...)"
                )
            file.seek(0)
            archive = stack.enter_context(np.load(file, allow_pickle=False))
        yield archive


def _is_wanted(name: str) -> bool:
    return name in {"inputs", "labels", "cohorts"} or name.startswith("inputs.")


def _instead(required: str, held: Sequence[str]) -> str:
    slip = nearest(required, held)
    if slip is not None:
        return f"rename {slip!r}, if that is it"
    return f"it holds {', '.join(held) or 'nothing'}; rename the one that is meant"


def _member(archive: Mapping[str, Array], name: str, path: Path) -> Array:
    with _damage(path, f"array {name!r}"):
        array = archive[name]
    if not isinstance(array, np.ndarray):  # a file in the zip that is no array comes as bytes
        raise DataError(f"{path}: {name!r} is no array; write the file with numpy.savez")
    return array


@contextmanager
def _damage(path: Path, what: str) -> Iterator[None]:
    """Map what NumPy and zipfile raise on pickles and on damaged files."""
    try:
        yield
    except _DAMAGE as error:
        if "allow_pickle" in str(error):
            raise DataError(
                f"{path}: {what} holds Python objects, which are pickled and never loaded; store "
                "numbers, or text as array.astype(str)"
            ) from error
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path}: {what} cannot be read ({reason}); write it anew") from error


def _check_samples(path: Path, name: str, array: Array, *, count: int) -> None:
    """Refuse an array that does not hold ``count`` >= 1 samples along its first axis."""
    if array.ndim == 0:
        raise DataError(f"{path}: array {name!r} is a single value; store one per sample")
    if len(array) != count:
        raise DataError(
            f"{path}: array {name!r} has length {len(array)}, the inputs have {count}; "
            "store one per sample"
        )
    if count == 0:
        raise DataError(f"{path}: array {name!r} holds no samples; store at least one")


def _check_numbers(path: Path, name: str, array: Array) -> None:
    if array.dtype.kind not in _NUMBERS:
        raise DataError(f"{path}: array {name!r} is {array.dtype.name}; store numbers")
    if array.size == 0:
        raise DataError(f"{path}: array {name!r} has empty samples, shape {array.shape}")
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    bad = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
    raise DataError(
        f"{path}: array {name!r} holds NaN or infinity in {bad.size} samples, the first is "
        f"{name}[{bad[0]}]; mend or remove them"
    )


def _class_labels(path: Path, labels: Array) -> NDArray[np.int64]:
    if labels.ndim != 1:
        raise DataError(
            f"{path}: array 'labels' has shape {labels.shape}; store one class number per sample "
            "(for one-hot labels: labels.argmax(1))"
        )
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"{path}: array 'labels' is {labels.dtype.name}; store class numbers as integers from "
            "0, or write task.kind: custom"
        )
    numbers = labels.astype(np.int64)  # an unsigned one beyond int64 turns negative
    if numbers.min() < 0:
        first = int(np.argmax(numbers < 0))
        raise DataError(
            f"{path}: labels[{first}] is {labels[first]}; number the classes from 0, and remove "
            "samples without one"
        )
    return numbers


def _native(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder("="), copy=False)
