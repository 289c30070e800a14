"""The task of a space: what is scored, and on which files, from its section."""

from search_spaces.deployment import KEEP_LAYERS
from search_spaces.errors import SpaceError
from search_spaces.inputs import Inputs
from search_spaces.space import Preprocessing, SplitFiles, SplitOfOne, Task, TaskKind
from search_spaces.task_document import (
    FilesDocument,
    OneFileDocument,
    PreprocessDocument,
    TaskDocument,
)

_WHOLE = 1 + 1e-9  # shares such as 0.7 + 0.2 + 0.1 do not add up to exactly 1 in binary


def task_from_document(
    task: TaskDocument, *, inputs: Inputs, fake: bool, calibrated_by: str | None
) -> Task:
    """Resolve the task and its data.

    Args:
        task: The section as it was written.
        inputs: Where relative paths start.
        fake: The fake backend makes its own data; every other one needs some.
        calibrated_by: What of the axes needs calibration samples; None where nothing does.

    Raises:
        SpaceError: A metric or data that are missing or too many, a file that is not there, or
            shares that do not add up.
    """
    custom = task.kind is TaskKind.CUSTOM
    if custom != (task.metric is not None):
        raise SpaceError(
            "kind: custom needs a function; write metric: package.module:function"
            if custom
            else "only kind: custom takes a function; remove metric or write kind: custom",
            key="task.metric",
        )
    if fake != (task.data is None):
        raise SpaceError(
            "backend: fake makes its own data; remove the key"
            if fake
            else "is missing; name the samples, for example data: {path: data.npz}",
            key="task.data",
        )
    data = None if task.data is None else _data(task.data, inputs)
    if calibrated_by and isinstance(data, SplitFiles) and data.calibration is None:
        mend = "take it out of axes" + (
            ".precision (int8-dynamic needs none)" if calibrated_by != KEEP_LAYERS else ""
        )
        raise SpaceError(
            f"is missing, and {calibrated_by} needs it; add a calibration file or {mend}",
            key="task.data.calibration",
        )
    return Task(
        kind=task.kind,
        metric=task.metric,
        data=data,
        preprocessing=_preprocessing(task.preprocess),
        margin=task.margin,
    )


def _data(document: FilesDocument | OneFileDocument, inputs: Inputs) -> SplitFiles | SplitOfOne:
    if isinstance(document, OneFileDocument):
        shares = document.split
        total = shares.calibration + shares.search + shares.report
        if total > _WHOLE:
            raise SpaceError(
                f"the shares add up to {total:g}; let them add up to 1 or less",
                key="task.data.split",
            )
        return SplitOfOne(
            path=inputs.data(document.path, key="task.data.path"), **shares.model_dump()
        )
    written = document.model_dump(exclude_none=True)
    paths = {name: inputs.data(text, key=f"task.data.{name}") for name, text in written.items()}
    for name, path in paths.items():
        twin = next(other for other in paths if paths[other].samefile(path))
        if twin != name:
            raise SpaceError(
                f"{written[name]!r} is the {twin} split too; splits are disjoint, cut one file "
                "with data: {path: ..., split: ...}",
                key=f"task.data.{name}",
            )
    return SplitFiles(
        calibration=paths.get("calibration"), search=paths["search"], report=paths["report"]
    )


def _preprocessing(document: PreprocessDocument) -> Preprocessing:
    if document.mean and document.std and len(document.mean) != len(document.std):
        raise SpaceError(
            f"has {len(document.std)} values and mean has {len(document.mean)}; "
            "give one per channel in both",
            key="task.preprocess.std",
        )
    if document.scale == 0:
        raise SpaceError("0 makes all samples alike; write 1", key="task.preprocess.scale")
    size, dtype = document.size, document.dtype
    return Preprocessing(
        dtype=dtype if isinstance(dtype, str) else tuple(sorted(dtype.items())),
        scale=document.scale,
        mean=tuple(document.mean),
        std=tuple(document.std),
        size=None if size is None else (size[0], size[1]),
        color=document.color,
    )
