from collections.abc import Callable
from pathlib import Path

import pytest

from search_spaces.space import (
    Conversion,
    Preprocessing,
    SearchSpace,
    SplitFiles,
    SplitOfOne,
    TaskKind,
)

THREE = "{calibration: c.npz, search: s.npz, report: r.npz}"


def test_three_files_are_three_splits(
    ort: str, folder: Path, read: Callable[[str], SearchSpace]
) -> None:
    space = read(ort)

    assert space.task.data == SplitFiles(
        calibration=folder / "c.npz", search=folder / "s.npz", report=folder / "r.npz"
    )


def test_one_file_is_cut_by_shares(
    ort: str, folder: Path, read: Callable[[str], SearchSpace]
) -> None:
    space = read(ort.replace(THREE, "{path: s.npz, split: {calibration: 0.2, report: 0.3}}"))

    assert space.task.data == SplitOfOne(
        path=folder / "s.npz", calibration=0.2, search=0.45, report=0.3, seed=0
    )


def test_custom_task_is_scored_by_its_function(
    ort: str, read: Callable[[str], SearchSpace]
) -> None:
    space = read(ort.replace("task: {", "task: {kind: custom, metric: 'mine:score', "))

    assert space.task.kind is TaskKind.CUSTOM
    assert space.task.metric == "mine:score"
    assert [each.metric.name for each in space.objectives][-1] == "score"


def test_preprocessing_is_read_per_channel(ort: str, read: Callable[[str], SearchSpace]) -> None:
    section = "preprocess: {scale: 2, mean: [1, 2], std: [3, 4], size: [8, 9], color: gray}"

    space = read(ort.replace("task: {", f"task: {{{section}, "))

    assert space.task.preprocessing == Preprocessing(
        scale=2.0, mean=(1.0, 2.0), std=(3.0, 4.0), size=(8, 9), color="gray"
    )


def test_type_is_one_for_all_inputs_or_one_for_each(
    ort: str, read: Callable[[str], SearchSpace]
) -> None:
    one = read(ort.replace("task: {", "task: {preprocess: {dtype: int64, scale: 1}, "))
    section = "preprocess: {dtype: {pixels: float32, ids: int64}, scale: 0.5, mean: [1]}"
    each = read(ort.replace("task: {", f"task: {{{section}, "))

    assert one.task.preprocessing.conversion("any") == Conversion(dtype="int64")
    assert each.task.preprocessing.conversion("ids") == Conversion(dtype="int64")
    assert each.task.preprocessing.conversion("pixels") == Conversion(
        dtype="float32", scale=0.5, mean=(1.0,)
    )


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (Preprocessing(), "type float32"),
        (
            Preprocessing(scale=0.5, mean=(1.0, 2.0)),
            "type float32, times 0.5, minus mean 1.0, 2.0 (by channel)",
        ),
        (
            Preprocessing(dtype="float16", std=(3.0,)),
            "type float16, divided by std 3.0 (by channel)",
        ),
        (
            Preprocessing(dtype=(("ids", "int64"), ("pixels", "float32")), scale=0.5),
            "ids as int64, pixels as float32, floats times 0.5",
        ),
    ],
)
def test_preprocessing_is_said_in_words(how: Preprocessing, words: str) -> None:
    assert how.in_words() == words


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (f"data: {THREE}", "", "task.data: is missing; name the samples"),
        ("data:", "kind: custom, data:", "task.metric: kind: custom needs a function"),
        ("data:", "metric: 'a:b', data:", "task.metric: only kind: custom takes a function"),
        ("report: r.npz", "report: s.npz", "task.data.report: 's.npz' is the search split too"),
        (THREE, "{path: s.npz, split: {search: 0.8}}", "the shares add up to 1.35"),
        ("data:", "preprocess: {scale: 0}, data:", "task.preprocess.scale: 0 makes all samples"),
        ("data:", "preprocess: {mean: [1], std: [1, 2]}, data:", "has 2 values and mean has 1"),
    ],
)
def test_task_that_cannot_be_scored_is_refused(
    ort: str, complaint: Callable[[str], str], *, old: str, new: str, said: str
) -> None:
    assert said in complaint(ort.replace(old, new, 1))


def test_fake_backend_takes_no_data(fake: str, complaint: Callable[[str], str]) -> None:
    said = complaint(f"{fake}task: {{data: {{path: s.npz}}}}\n")

    assert said == "task.data: backend: fake makes its own data; remove the key"


def test_static_int8_needs_calibration_samples(ort: str, complaint: Callable[[str], str]) -> None:
    text = ort.replace("calibration: c.npz, ", "")

    said = complaint(f"{text}axes: {{precision: [fp32, int8]}}\n")

    assert said.startswith("task.data.calibration: is missing, and static int8 needs it; add")


def test_dynamic_int8_needs_no_calibration_samples(
    ort: str, read: Callable[[str], SearchSpace]
) -> None:
    text = ort.replace("calibration: c.npz, ", "")

    space = read(f"{text}axes: {{precision: [int8-dynamic]}}\n")

    assert isinstance(space.task.data, SplitFiles)
    assert space.task.data.calibration is None
