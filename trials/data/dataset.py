"""The data that engines are calibrated, driven and scored with: three disjoint splits.

Samples are kept as they were stored (bytes of pixels stay bytes) and become model inputs when a
batch is drawn, so that a data set costs a quarter of its floats. Everything is read and checked
once, before the first trial: a label that is off or a sample that two splits share would bend
every score, and nobody would see it. Folders of images are read by ``images``, answers are scored
by ``scoring``.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from search_spaces.space import Preprocessing, SplitFiles, SplitOfOne, Task, TaskKind
from trials.backend import Tensors
from trials.data.images import read_image_folder
from trials.data.npz import Array, Arrays, Stored, read_npz
from trials.data.preprocessing import check_range, check_types, preprocessed, shown
from trials.errors import DataError

SplitName: TypeAlias = Literal["calibration", "search", "report"]
LayerSplit: TypeAlias = Literal["calibration", "search"]
"""Splits that layers are ranked on; ``report`` is opened for the members of a front alone."""

SPLITS: tuple[str, ...] = get_args(SplitName)
SYNTHETIC_CLASSES = 10
SYNTHETIC_SAMPLES = 2_000  # per split: accuracy is known to about two points

_FINGERPRINT_BYTES = 16  # 128 bits: no accidental collision among 2^50 samples
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Samples that serve one purpose, as they were stored.

    Attributes:
        name: ``calibration``, ``search`` or ``report``.
        arrays: (input name, array of shape ``(samples, …)``); "" names a sole unnamed input.
        labels: Shape ``(samples,)``, int64, for classification; else ``(samples, …)`` of anything.
        cohorts: Shape ``(samples,)``, text; or None.
        digest: SHA-256 of samples, labels and cohorts; equal digest, equal content.
        classes: Names of the class folders, or None where the data name no classes.
    """

    name: str
    arrays: Arrays
    labels: Array
    cohorts: NDArray[np.str_] | None
    digest: str
    classes: tuple[str, ...] | None = None

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
            name: preprocessed(
                array[chosen], preprocessing.conversion(name), where=f"split {self.name}"
            )
            for name, array in self.arrays
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """The three splits of a task, disjoint; calibration is None where nothing calibrates."""

    calibration: Split | None
    search: Split
    report: Split
    preprocessing: Preprocessing


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


def split_from_path(path: Path, task: Task, *, source: str) -> Split:
    """Read one file or folder as a split of its own, called ``data``.

    Args:
        path: An npz file or a folder of class folders.
        task: Says how labels and samples are meant; its own ``data`` are not looked at.
        source: What asks for it, for messages.

    Raises:
        DataError: It cannot be used.
    """
    stored = _read(path, task, source=source)
    return _split("data", stored, np.arange(len(stored)))


def synthetic_dataset(seed: int) -> Dataset:
    """Make up the data of the fake backend: samples that are (sample id, label) and nothing else.

    Args:
        seed: Of the labels; the ids are the same for every seed.
    """
    generator = np.random.default_rng(seed)
    labels = generator.integers(SYNTHETIC_CLASSES, size=2 * SYNTHETIC_SAMPLES)
    ids = np.arange(labels.size)  # below 2^24, so exact as float32
    samples = np.stack([ids, labels], axis=1).astype(np.float32)
    stored = Stored(path=Path("synthetic"), arrays=(("samples", samples),), labels=labels)
    return Dataset(
        calibration=None,
        search=_split("search", stored, np.flatnonzero(ids < SYNTHETIC_SAMPLES)),
        report=_split("report", stored, np.flatnonzero(ids >= SYNTHETIC_SAMPLES)),
        preprocessing=Preprocessing(),
    )


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
    stored: Stored, shares: tuple[float, ...], *, seed: int, stratified: bool
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


def _split(name: str, stored: Stored, indices: NDArray[np.intp]) -> Split:
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
        name=name,
        arrays=arrays,
        labels=labels,
        cohorts=cohorts,
        digest=digest.hexdigest(),
        classes=stored.classes,
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


def _check_disjoint(stored: Mapping[str, Stored], *, source: str) -> None:
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


def _check_alike(one: Stored, other: Stored, *, source: str) -> None:
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


def _layout(stored: Stored) -> str:
    return ", ".join(
        f"{_array_name(name)} of {array.dtype.name} {shown((None, *array.shape[1:]))}"
        for name, array in sorted(stored.arrays)
    )


def _array_name(name: str) -> str:
    return f"inputs.{name}" if name else "inputs"


def _read(path: Path, task: Task, *, source: str) -> Stored:
    if path.is_dir():
        folder = read_image_folder(path, task.preprocessing, source=source)
        pixels = (("", folder.pixels),)
        stored = Stored(path=path, arrays=pixels, labels=folder.labels, classes=folder.classes)
    else:
        stored = read_npz(path, classification=task.kind is TaskKind.CLASSIFICATION)
    check_types(task.preprocessing, [name for name, _ in stored.arrays], source=source)
    for name, array in stored.arrays:
        where, how = f"{source}: {path}: {_array_name(name)}", task.preprocessing.conversion(name)
        check_range(array, how, where=where)
        preprocessed(array[:1], how, where=where)
    return stored
