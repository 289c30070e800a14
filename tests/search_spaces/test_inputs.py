from collections.abc import Callable
from pathlib import Path

import pytest

from search_spaces.space import SearchSpace


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "small.onnx",
            "smal.onnx",
            "variants[0].onnx: there is no file 'smal.onnx'; did you mean 'small.onnx' in the",
        ),
        ("small.onnx", "models/q.onnx", "paths start at the space file's folder"),
        ("small.onnx", "folder.onnx", "variants[0].onnx: 'folder.onnx' is a folder; name a file"),
        ("s.npz", "zzz", "task.data.search: there is no file 'zzz'; paths start at the space"),
        ("small.onnx", '"a\\0b"', "is no path; remove the null character"),
        ("small.onnx", "x" * 5_000, "cannot be read (File name too long)"),
    ],
    ids=["slip", "folder absent", "folder", "data", "null", "long"],
)
def test_file_that_is_not_there_is_told_with_its_key(
    ort: str, folder: Path, complaint: Callable[[str], str], *, old: str, new: str, said: str
) -> None:
    (folder / "folder.onnx").mkdir()

    assert said in complaint(ort.replace(old, new))


def test_absolute_path_is_taken_as_it_is(
    ort: str, folder: Path, read: Callable[[str], SearchSpace]
) -> None:
    space = read(ort.replace("small.onnx", f"{folder}/w.safetensors"))

    assert getattr(space.variants[0], "path", None) == folder / "w.safetensors"


def test_data_may_be_a_folder_of_images(
    ort: str, folder: Path, read: Callable[[str], SearchSpace]
) -> None:
    (folder / "images").mkdir()

    space = read(ort.replace("s.npz", "images"))

    assert getattr(space.task.data, "search", None) == folder / "images"
