"""The data that engines are calibrated, driven and scored with: three disjoint splits.

Samples are kept as they were stored (bytes of pixels stay bytes) and become model inputs when a
batch is drawn, so that a data set costs a quarter of its floats. Everything is read and checked
once, before the first trial: a label that is off or a sample that two splits share would bend
every score, and nobody would see it. Folders of images are read by ``images``, answers are scored
by ``scoring``.

A data file is untrusted: pickles in it are refused and never loaded.
"""

import hashlib
import json
import lzma
import math
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

from search_spaces.space import Preprocessing, SplitFiles, SplitOfOne, Task, TaskKind
from search_spaces.spelling import did_you_mean, nearest
from trials.backend import Tensors, TensorSpec
from trials.errors import DataError
from trials.images import read_image_folder

Array: TypeAlias = NDArray[Any]
Arrays: TypeAlias = tuple[tuple[str, Array], ...]

SPLITS = ("calibration", "search", "report")
SYNTHETIC_CLASSES = 10
SYNTHETIC_SAMPLES = 2_000  # per split: accuracy is known to about two points

_FINGERPRINT_BYTES = 16  # 128 bits: no accidental collision among 2^50 samples
_SLIP = 0.8  # likeness from which an array's name is taken for a slip of an optional one
_GOLDEN = (math.sqrt(5) - 1) / 2
_NUMBERS = "biuf"  # NumPy's kinds: bool, integers, floats
# what zipfile and NumPy raise on damaged bytes, found by flipping them
_DAMAGE = (
    *(OSError, EOFError, ValueError, TypeError, MemoryError, RuntimeError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, tokenize.TokenError),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Samples that serve one purpose, as they were stored.

    Attributes:
        name: ``calibration``, ``search`` or ``report``.
        arrays: (input name, array of shape ``(samples, …)``); "" names a sole unnamed input.
        labels: Shape ``(samples,)``, int64, for classification; else ``(samples, …)`` of anything.
        cohorts: Shape ``(samples,)``, text; or None.
        digest: SHA-256 of samples, labels and cohorts; equal digest, equal content.
    """

    name: str
    arrays: Arrays
    labels: Array
    cohorts: NDArray[np.str_] | None
    digest: str

    def __len__(self) -> int:
        return len(self.labels)

    def samples(
        self, indices: Sequence[int] | NDArray[np.intp], preprocessing: Preprocessing
    ) -> Tensors:
        """Make model inputs of the samples at ``indices``; repetitions are fine.

        Returns:
            Fresh arrays of shape ``(len(indices), …)`` and of the declared type, by input name.

        Raises:
            DataError: The preprocessing does not suit the samples.
        """
        chosen = np.asarray(indices, dtype=np.intp)
        return {
            name: _preprocessed(array[chosen], preprocessing, where=f"split {self.name}")
            for name, array in self.arrays
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """The three splits of a task, disjoint; calibration is None where nothing calibrates."""

    calibration: Split | None
    search: Split
    report: Split
    preprocessing: Preprocessing


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Stored:
    """The checked content of one file or folder; ``classes`` are the names of class folders."""

    path: Path
    arrays: Arrays
    labels: Array
    cohorts: NDArray[np.str_] | None = None
    classes: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)


def dataset_from_task(task: Task, *, source: str) -> Dataset:
    """Read, check and, where there is one file only, cut the data of a task.

    Args:
        task: One whose ``data`` are not None.
        source: The space file, for messages.

    Raises:
        DataError: Data that cannot be used, or splits that share samples.
    """
    data = task.data
    if data is None:
        raise DataError(f"{source}: task.data is missing; name the samples")
    if isinstance(data, SplitFiles):
        splits = _splits_of_files(data, task, source=source)
    else:
        splits = _splits_of_one(data, task, source=source)
    return Dataset(
        calibration=splits.get("calibration"),
        search=splits["search"],
        report=splits["report"],
        preprocessing=task.preprocessing,
    )


def synthetic_dataset(seed: int) -> Dataset:
    """Make up the data of the fake backend: samples that are (sample id, label) and nothing else.

    Args:
        seed: Of the labels; the ids are the same for every seed.
    """
    generator = np.random.default_rng(seed)
    labels = generator.integers(SYNTHETIC_CLASSES, size=2 * SYNTHETIC_SAMPLES)
    ids = np.arange(labels.size)  # below 2^24, so exact as float32
    samples = np.stack([ids, labels], axis=1).astype(np.float32)
    stored = _Stored(path=Path("synthetic"), arrays=(("samples", samples),), labels=labels)
    return Dataset(
        calibration=None,
        search=_split("search", stored, np.flatnonzero(ids < SYNTHETIC_SAMPLES)),
        report=_split("report", stored, np.flatnonzero(ids >= SYNTHETIC_SAMPLES)),
        preprocessing=Preprocessing(),
    )


def feeds(samples: Tensors, inputs: tuple[TensorSpec, ...], *, source: str) -> Tensors:
    """Name the samples as the engine's inputs are named, in their order.

    Args:
        samples: What :meth:`Split.samples` returned.
        inputs: The engine's.
        source: The space file, for messages.

    Raises:
        DataError: An input without samples, samples without an input, or another type or shape.
    """
    if len(inputs) == 1 and set(samples) == {""}:
        samples = {inputs[0].name: samples[""]}
    _check_names(samples, [spec.name for spec in inputs], source)
    for spec in inputs:
        _check_tensor(samples[spec.name], spec, source)
    return {spec.name: samples[spec.name] for spec in inputs}


def request_batches(
    split: Split, *, batch_size: int, count: int, preprocessing: Preprocessing, seed: int
) -> list[Tensors]:
    """Draw the batches that requests cycle over: real samples, none twice before all were drawn.

    Args:
        split: Where they are drawn from, shuffled anew each time that it is used up.
        batch_size: Samples per batch, >= 1.
        count: Number of batches, >= 1.
        preprocessing: What makes them model inputs.
        seed: Of the shuffles.

    Raises:
        DataError: The preprocessing does not suit the samples.
    """
    generator = np.random.default_rng(seed)
    rounds = -(-batch_size * count // len(split))
    drawn = np.concatenate([generator.permutation(len(split)) for _ in range(rounds)])
    batches = drawn[: batch_size * count].reshape(count, batch_size)
    return [split.samples(batch, preprocessing) for batch in batches]


def _splits_of_files(files: SplitFiles, task: Task, *, source: str) -> dict[str, Split]:
    named = zip(SPLITS, (files.calibration, files.search, files.report), strict=True)
    stored = {name: _read(path, task, source=source) for name, path in named if path is not None}
    for name, one in stored.items():
        _check_alike(one, stored["search"], source=f"{source}: task.data.{name}")
    _check_disjoint(stored, source=source)
    return {name: _split(name, one, np.arange(len(one))) for name, one in stored.items()}


def _splits_of_one(cut: SplitOfOne, task: Task, *, source: str) -> dict[str, Split]:
    stored = _read(cut.path, task, source=source)
    shares = (cut.calibration, cut.search, cut.report)
    stratified = task.kind is TaskKind.CLASSIFICATION
    share_of = _shares(stored, shares, seed=cut.seed, stratified=stratified)
    for index, (name, share) in enumerate(zip(SPLITS, shares, strict=True)):
        if not np.any(share_of == index):
            raise DataError(
                f"{source}: task.data.split.{name}: {share:g} of the {len(stored)} samples in "
                f"{cut.path} is none; enlarge the share or add samples"
            )
    return {
        name: _split(name, stored, np.flatnonzero(share_of == index))
        for index, name in enumerate(SPLITS)
    }


def _shares(
    stored: _Stored, shares: tuple[float, ...], *, seed: int, stratified: bool
) -> NDArray[np.intp]:
    """Return the index of the share that each sample falls into, ``len(shares)`` for none.

    Identical samples stay together. Groups of them are shuffled within their label and then dealt
    out by a golden-ratio sequence, whose every stretch is spread evenly (Weyl 1916): so each label
    is shared out like the whole, and the whole is exact up to the size of a group.
    """
    numbers: dict[bytes, int] = {}
    group_of = np.array([numbers.setdefault(mark, len(numbers)) for mark in _marks(stored.arrays)])
    sizes = np.bincount(group_of)
    order = np.random.default_rng(seed).permutation(sizes.size)
    if stratified:
        labels = stored.labels[np.unique(group_of, return_index=True)[1]]
        order = order[np.argsort(labels[order], kind="stable")]
    order = order[np.argsort(np.arange(sizes.size) * _GOLDEN % 1, kind="stable")]
    middles = np.cumsum(sizes[order]) - sizes[order] / 2
    share_of_group = np.empty(sizes.size, dtype=np.intp)
    bounds = np.cumsum(shares) * len(stored)
    share_of_group[order] = np.searchsorted(bounds, middles, side="right")
    shared_out: NDArray[np.intp] = share_of_group[group_of]
    return shared_out


def _split(name: str, stored: _Stored, indices: NDArray[np.intp]) -> Split:
    whole = indices.size == len(stored)  # then no copy is made
    arrays = tuple((each, a if whole else a[indices]) for each, a in stored.arrays)
    labels = stored.labels if whole else stored.labels[indices]
    cohorts = stored.cohorts
    if cohorts is not None and not whole:
        cohorts = cohorts[indices]
    digest = hashlib.sha256()
    for part, array in (*((f"inputs.{each}", a) for each, a in arrays), ("labels", labels)):
        digest.update(json.dumps([part, array.dtype.str, array.shape]).encode())
        digest.update(_bytes(array).data)
    digest.update(json.dumps(None if cohorts is None else cohorts.tolist()).encode())
    return Split(
        name=name, arrays=arrays, labels=labels, cohorts=cohorts, digest=digest.hexdigest()
    )


def _marks(arrays: Arrays) -> Iterator[bytes]:
    """Yield a digest of each sample, over all of its inputs."""
    rows = [_bytes(array).reshape(len(array), -1) for _, array in arrays]
    for parts in zip(*rows, strict=True):
        mark = hashlib.blake2b(parts[0], digest_size=_FINGERPRINT_BYTES)
        for part in parts[1:]:
            mark.update(part)
        yield mark.digest()


def _bytes(array: Array) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _check_disjoint(stored: Mapping[str, _Stored], *, source: str) -> None:
    places: dict[bytes, tuple[str, int]] = {}
    for name, one in stored.items():
        marks = list(_marks(one.arrays))
        shared = [(places[mark], index) for index, mark in enumerate(marks) if mark in places]
        if shared:
            (other, first), index = shared[0]
            count = sum(place[0] == other for place, _ in shared)
            raise DataError(
                f"{source}: task.data.{name}: {one.path} shares {count} samples with the {other} "
                f"split, the first is {other}[{first}] = {name}[{index}]; splits are disjoint, "
                "remove them from one"
            )
        for index, mark in enumerate(marks):
            places.setdefault(mark, (name, index))


def _check_alike(one: _Stored, other: _Stored, *, source: str) -> None:
    """Refuse splits that one model cannot serve alike, or whose overlap could not be seen."""
    ours, theirs = _layout(one), _layout(other)
    if ours != theirs:
        raise DataError(
            f"{source}: {one.path} holds {ours}, {other.path} holds {theirs}; store all splits "
            "alike"
        )
    if one.classes is not None and other.classes is not None and one.classes != other.classes:
        odd = sorted(set(one.classes) ^ set(other.classes))
        raise DataError(
            f"{source}: the classes of {one.path} and {other.path} differ in {', '.join(odd)}; "
            "give both the same class folders, or labels would not mean the same"
        )


def _layout(stored: _Stored) -> str:
    return ", ".join(
        f"{_array_name(name)} of {array.dtype.name} {_shown((None, *array.shape[1:]))}"
        for name, array in sorted(stored.arrays)
    )


def _array_name(name: str) -> str:
    return f"inputs.{name}" if name else "inputs"


def _shown(shape: Sequence[int | None]) -> str:
    return f"({', '.join('n' if size is None else str(size) for size in shape)})"


def _read(path: Path, task: Task, *, source: str) -> _Stored:
    if path.is_dir():
        folder = read_image_folder(path, task.preprocessing, source=source)
        pixels = (("", folder.pixels),)
        stored = _Stored(path=path, arrays=pixels, labels=folder.labels, classes=folder.classes)
    else:
        stored = _read_npz(path, classification=task.kind is TaskKind.CLASSIFICATION)
    for name, array in stored.arrays:
        where = f"{source}: {path}: {_array_name(name)}"
        _check_range(array, task.preprocessing, where=where)
        _preprocessed(array[:1], task.preprocessing, where=where)
    return stored


def _read_npz(path: Path, *, classification: bool) -> _Stored:
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
    return _Stored(path=path, arrays=arrays, labels=labels, cohorts=cohorts)


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


def _preprocessed(stored: Array, how: Preprocessing, *, where: str) -> Array:
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
            f"{_shown((None, *stored.shape[1:]))} have {channels} channels (axis 1); give one "
            "value per channel"
        )
    return np.array(values).reshape(-1, *(1,) * (stored.ndim - 2))


def _check_range(stored: Array, how: Preprocessing, *, where: str) -> None:
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


def _check_tensor(array: Array, spec: TensorSpec, source: str) -> None:
    if array.dtype.name == spec.dtype and _matches(array.shape, spec.shape):
        return
    differ = (
        f"{source}: the model's input {spec.name!r} takes {spec.dtype} {_shown(spec.shape)}, the "
        f"samples are {array.dtype.name} {array.shape}"
    )
    if array.dtype.name != spec.dtype:
        raise DataError(f"{differ}; set task.preprocess.dtype: {spec.dtype}")
    if _matches(array.shape[1:], spec.shape[1:]):
        raise DataError(f"{differ}; the model takes batches of {spec.shape[0]} only")
    raise DataError(f"{differ}; {_reshaping(array.shape[1:], spec.shape[1:])}")


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
