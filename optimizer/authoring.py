"""Write a first space file for a user's own model and data, after looking into both."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.errors import UsageError
from optimizer.workspace import write_atomically, writing
from search_spaces.draft import DraftFacts, DraftInput, draft_yaml
from search_spaces.files import space_from_yaml
from search_spaces.space import Preprocessing, SplitOfOne, Task, TaskKind
from trials.data.dataset import Dataset, dataset_from_task
from trials.data.feeding import check_shapes
from trials.errors import ModelError
from trials.models.free_batch import free_batch
from trials.models.onnx_model import ModelFacts, read_facts

_OF_TORCH = (".pt", ".pth", ".safetensors")
_SEARCHED = 0.45  # only to look into the data; the draft chooses its own shares
_IMAGE_DIMENSIONS = 4  # batch, channels, height, width
_USUAL_SIZE = 224  # pixels, where the model takes any


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A space file that was written, and what the user should know about it."""

    path: Path
    notes: tuple[str, ...]


def draft_space(model: Path, *, data: Path, to: Path | None) -> Draft:
    """Look into a model and its data and write a commented space file.

    A model with a fixed batch dimension is copied with a free one, beside the space file, where
    that is safe; where it is not, the draft searches the one batch size that the model takes.

    Raises:
        ModelError: The model cannot be used.
        DataError: The data cannot be used, or are of other shapes than the model takes.
        UsageError: The space file exists already, or the model is no ONNX file by its name.
        WorkspaceError: It cannot be written.
    """
    path = model.with_suffix(".yaml") if to is None else to
    if path.exists():
        raise UsageError(f"{path} exists", hint="name another file with --to, or remove it")
    if model.suffix in _OF_TORCH:
        raise UsageError(
            f"{model} is of PyTorch, and init looks into ONNX files",
            hint="write a space file with `torch: {factory: …, weights: …}` (docs/tutorial.md), "
            "or use torch.onnx.export",
        )
    facts = read_facts(model)
    images = _images(facts) if data.is_dir() else Preprocessing()
    dataset = _look_into(data, images)
    if images.size is None:  # images are read in the size and color that the model takes
        check_shapes(dict(dataset.search.arrays), facts.inputs, source=str(data))
    if facts.batch_size is None:
        _write(path, model, facts, data=data, dataset=dataset)
        return Draft(path=path, notes=_about_labels(_labels(dataset)))
    copy = path.parent / f"{model.stem}.free-batch.onnx"
    note = _free(model, copy, facts.batch_size)
    drafted = copy if copy.exists() else model
    try:
        _write(path, drafted, read_facts(drafted), data=data, dataset=dataset)
    except BaseException:
        copy.unlink(missing_ok=True)  # it was not there before
        raise
    return Draft(path=path, notes=(note, *_about_labels(_labels(dataset))))


def _write(path: Path, model: Path, facts: ModelFacts, *, data: Path, dataset: Dataset) -> None:
    text = draft_yaml(_facts(model, facts, data=data, dataset=dataset, folder=path.parent))
    write_atomically(path, text.encode())
    space_from_yaml(path)  # a draft that cannot be read would be our bug, and the user's riddle


def _images(facts: ModelFacts) -> Preprocessing:
    """Say how a folder of images becomes what the model takes, as far as the model tells."""
    shape = facts.inputs[0].shape
    if len(shape) != _IMAGE_DIMENSIONS:
        raise UsageError(
            f"a folder of images makes inputs of 4 dimensions, the model takes {len(shape)}",
            hint="give --data an npz file with `inputs` and `labels`",
        )
    _, channels, height, width = shape
    color = "gray" if channels == 1 else "rgb"
    return Preprocessing(size=(height or _USUAL_SIZE, width or _USUAL_SIZE), color=color)


def _look_into(data: Path, images: Preprocessing) -> Dataset:
    """Read the data as a search would, labels of any kind allowed."""
    rest = (1 - _SEARCHED) / 2
    whole = SplitOfOne(path=data, calibration=rest, search=_SEARCHED, report=rest)
    task = Task(kind=TaskKind.CUSTOM, metric=None, data=whole, preprocessing=images)
    return dataset_from_task(task, source=str(data))


def _free(model: Path, copy: Path, batch_size: int) -> str:
    """Write a copy with a free batch where that is safe; say what happened."""
    if copy.exists():
        raise UsageError(f"{copy} exists", hint="remove it, or run init on it")
    try:
        with writing(copy):
            copy.parent.mkdir(parents=True, exist_ok=True)
            free_batch(model, copy)
    except ModelError as error:
        return f"{error}; the draft searches batch_size {batch_size} alone"
    return (
        f"{model} has a fixed batch of {batch_size}; {copy} is a copy with a free one, "
        "checked to give the same answers"
    )


def _facts(
    model: Path, facts: ModelFacts, *, data: Path, dataset: Dataset, folder: Path
) -> DraftFacts:
    images = dataset.preprocessing
    labels = _labels(dataset)
    return DraftFacts(
        name=model.stem,
        model=_from(folder, model),
        inputs=_inputs(facts, dataset),
        opset=facts.opset,
        fixed_batch=facts.batch_size,
        data=_from(folder, data),
        samples=len(labels),
        classes=int(labels.max()) + 1 if _are_classes(labels) else None,
        cores=_cores(),
        images=None if images.size is None else (images.size, images.color),
    )


def _labels(dataset: Dataset) -> NDArray[Any]:
    """Return the labels of all splits, one per sample along the first axis."""
    splits = (dataset.calibration, dataset.search, dataset.report)
    return np.concatenate([one.labels for one in splits if one is not None])


def _are_classes(labels: NDArray[Any]) -> bool:
    return np.issubdtype(labels.dtype, np.integer) and labels.ndim == 1 and int(labels.min()) >= 0


def _about_labels(labels: NDArray[Any]) -> tuple[str, ...]:
    """Tell whoever meant classes that none were found."""
    if _are_classes(labels):
        return ()
    note = (
        f"the labels, {labels.dtype.name} {labels.shape}, are no class numbers: write the metric "
        "that the draft names, or store integers from 0 (for one-hot labels: labels.argmax(1))"
    )
    return (note,)


def _inputs(facts: ModelFacts, dataset: Dataset) -> tuple[DraftInput, ...]:
    stored = {name: array.dtype.name for name, array in dataset.search.arrays}
    if len(facts.inputs) == 1 and "" in stored:
        stored = {facts.inputs[0].name: stored[""]}
    return tuple(
        DraftInput(name=one.name, dtype=one.dtype, shape=one.shape, stored=stored.get(one.name))
        for one in facts.inputs
    )


def _cores() -> int:
    """Count the cores that this process may use, which a container or taskset can make fewer."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _from(folder: Path, path: Path) -> str:
    """Name a path as seen from the space file's folder."""
    return os.path.relpath(path, folder)
