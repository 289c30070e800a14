"""The task section of a space file: what is scored, on which data, in the form it is written."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from search_spaces.field_types import (
    Count,
    Dtype,
    FilePath,
    FunctionName,
    Positive,
    Section,
    Seed,
    Share,
)
from search_spaces.space import Preprocessing, TaskKind

# tags of the two forms of `data` and of `dtype`; no key of a file looks so
FILES, ONE = "<files>", "<one>"
ALIKE, EACH = "<alike>", "<each>"

_UNTOUCHED = Preprocessing()


class FilesDocument(Section):
    """Three files or image folders, one per split; no sample may stand in two of them."""

    calibration: FilePath | None = Field(
        default=None,
        description=(
            "Samples that set the scales of int8 and fp8, rank layers for keep_layers and check "
            "each conversion; no score is of them."
        ),
        examples=["data/calibration.npz"],
    )
    search: FilePath = Field(
        description="Samples behind the accuracy that the search optimizes, and the load.",
        examples=["data/search.npz"],
    )
    report: FilePath = Field(
        description="Samples for the final verdict on the front, never seen by the search.",
        examples=["data/report.npz"],
    )


class SharesDocument(Section):
    """Shares of one data file, cut by a seeded shuffle; a remainder is left unused."""

    calibration: Share = Field(default=0.1, description="Share of calibration.", examples=[0.1])
    search: Share = Field(default=0.45, description="Share of the search.", examples=[0.45])
    report: Share = Field(default=0.45, description="Share of the report.", examples=[0.45])
    seed: Seed = Field(default=0, description="Seed of the shuffle.", examples=[0])


class OneFileDocument(Section):
    """One file or image folder, cut into the three splits."""

    path: FilePath = Field(
        description="npz with `inputs`, `labels` and perhaps `cohorts`, or an image folder.",
        examples=["data.npz"],
    )
    split: SharesDocument = Field(
        default=SharesDocument(),
        description="How much of it each split gets.",
        examples=[{"calibration": 0.1, "search": 0.45, "report": 0.45, "seed": 0}],
    )


def _data_form(value: Any) -> str:
    return ONE if isinstance(value, dict) and {"path", "split"} & value.keys() else FILES


Data = Annotated[
    Annotated[FilesDocument, Tag(FILES)] | Annotated[OneFileDocument, Tag(ONE)],
    Discriminator(_data_form),
]


def _types_form(value: Any) -> str:
    return EACH if isinstance(value, dict) else ALIKE


InputName = Annotated[str, Field(min_length=1)]
Types = Annotated[
    Annotated[Dtype, Tag(ALIKE)]
    | Annotated[dict[InputName, Dtype], Field(min_length=1), Tag(EACH)],
    Discriminator(_types_form),
]


class PreprocessDocument(Section):
    """From stored samples to model inputs: ``(x * scale - mean) / std``, per channel."""

    dtype: Types = Field(
        default="float32",
        description="Type that the model's inputs want, or one for each by name; then scale, "
        "mean and std are for floating ones alone.",
        examples=["float32", {"input_ids": "int64", "pixels": "float32"}],
    )
    scale: float = Field(
        default=_UNTOUCHED.scale,
        description="Factor on the stored value; 1/255 makes bytes into [0, 1].",
        examples=[0.00392156862745098],
    )
    mean: list[float] = Field(
        default=[],
        description="Subtracted after scaling, one per channel (axis 1 of a batch).",
        examples=[[0.485, 0.456, 0.406]],
    )
    std: list[Positive] = Field(
        default=[],
        description="Divided by at last, one per channel.",
        examples=[[0.229, 0.224, 0.225]],
    )
    size: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = Field(
        default=None,
        description="[height, width] that the images of a folder are resized to.",
        examples=[[224, 224]],
    )
    color: Literal["rgb", "gray"] = Field(
        default="rgb", description="Channels of the images of a folder.", examples=["rgb"]
    )


class TaskDocument(Section):
    """What the model is for, and the data that tell how well it does it."""

    kind: Annotated[TaskKind, Field(strict=False)] = Field(
        default=TaskKind.CLASSIFICATION,
        description="How outputs are scored; `custom` needs `metric`.",
        examples=["classification"],
    )
    metric: FunctionName | None = Field(
        default=None,
        description="Function(outputs, labels) -> one score per sample, higher is better.",
        examples=["my_package.scores:overlap"],
    )
    data: Data | None = Field(
        default=None,
        description="Where the samples lie; left out for the fake backend only.",
        examples=[{"path": "data.npz"}, {"search": "search.npz", "report": "report.npz"}],
    )
    preprocess: PreprocessDocument = Field(
        default=PreprocessDocument(),
        description="From stored samples to model inputs.",
        examples=[{"dtype": "float32", "scale": 0.00392156862745098}],
    )
    margin: Share = Field(
        default=0.01,
        description="Difference of accuracy or score that does not matter when two deployments "
        "are compared.",
        examples=[0.01],
    )
