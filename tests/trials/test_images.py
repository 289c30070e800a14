"""Folders of images: what is read, what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search_spaces.space import Preprocessing, SplitFiles, Task, TaskKind
from trials.data.dataset import dataset_from_task
from trials.data.images import ImageFolder, read_image_folder
from trials.errors import DataError

SMALL = Preprocessing(size=(4, 6))
GRAY = Preprocessing(size=(4, 6), color="gray")


def paint(path: Path, color: int | tuple[int, ...] = (10, 20, 30), *, mode: str = "RGB") -> Path:
    """Write an image of one color, 12 pixels wide and 8 high, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (12, 8), color).save(path)
    return path


def read(folder: Path, preprocessing: Preprocessing = SMALL) -> ImageFolder:
    return read_image_folder(folder, preprocessing, source="space.yaml")


def test_class_folders_in_order_are_the_labels(tmp_path: Path) -> None:
    for name in ("dog/1.png", "cat/2.png", "cat/1.png"):
        paint(tmp_path / name)

    folder = read(tmp_path)

    assert folder.classes == ("cat", "dog")
    assert folder.labels.tolist() == [0, 0, 1]


def test_pixels_are_channels_first_bytes_of_the_declared_size(tmp_path: Path) -> None:
    paint(tmp_path / "cat/1.png")

    pixels = read(tmp_path).pixels

    assert (pixels.dtype.name, pixels.shape) == ("uint8", (1, 3, 4, 6))
    assert [channel.max() for channel in pixels[0]] == [10, 20, 30]


def test_shrinking_averages_over_all_source_pixels(tmp_path: Path) -> None:
    """Alternating columns of 0 and 200: picking pixels would keep the stripes."""
    stripes = np.tile(np.array([0, 200], dtype=np.uint8), (64, 32))
    (tmp_path / "cat").mkdir()
    Image.fromarray(stripes).save(tmp_path / "cat/1.png")

    pixels = read(tmp_path, Preprocessing(size=(4, 4), color="gray")).pixels

    np.testing.assert_allclose(pixels, 100, atol=5)


@pytest.mark.parametrize("suffix", [".bmp", ".jpeg", ".jpg", ".PNG", ".webp"])
def test_every_listed_kind_is_read(tmp_path: Path, suffix: str) -> None:
    paint(tmp_path / f"cat/1{suffix}", (50, 50, 50))

    np.testing.assert_allclose(read(tmp_path).pixels, 50, atol=3)  # some are lossy


@pytest.mark.parametrize(("mode", "color"), [("L", 7), ("RGBA", (7, 7, 7, 0)), ("1", 1)])
def test_other_modes_are_converted(
    tmp_path: Path, mode: str, color: int | tuple[int, ...]
) -> None:
    paint(tmp_path / "cat/1.png", color, mode=mode)

    assert read(tmp_path).pixels.shape == (1, 3, 4, 6)
    assert read(tmp_path, GRAY).pixels.max() == (255 if mode == "1" else 7)


def test_hidden_files_are_passed_over(tmp_path: Path) -> None:
    paint(tmp_path / "cat/1.png")
    (tmp_path / "cat/.DS_Store").touch()
    (tmp_path / ".cache").mkdir()

    assert len(read(tmp_path).labels) == 1


def test_missing_size_is_asked_for(tmp_path: Path) -> None:
    paint(tmp_path / "cat/1.png")

    with pytest.raises(DataError, match=r"space\.yaml: task\.preprocess\.size is missing"):
        read(tmp_path, Preprocessing())


def test_empty_class_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()

    with pytest.raises(DataError, match=r"cat: is an empty class"):
        read(tmp_path)


def test_loose_image_is_refused(tmp_path: Path) -> None:
    paint(tmp_path / "1.png")

    with pytest.raises(DataError, match=r"1\.png: is in no class"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["cat/notes.txt", "cat/deeper/1.png"])
def test_anything_else_in_a_class_is_refused(tmp_path: Path, name: str) -> None:
    paint(tmp_path / "cat/1.png")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()

    with pytest.raises(DataError, match="is no image; a class folder holds"):
        read(tmp_path)


@pytest.mark.parametrize("keep", [0, 20, 200])
def test_broken_image_is_named(tmp_path: Path, keep: int) -> None:
    paint(tmp_path / "cat/1.png")
    broken = tmp_path / "cat/2.png"
    noise = np.random.default_rng(0).integers(256, size=(8, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).save(broken)
    broken.write_bytes(broken.read_bytes()[:keep])

    with pytest.raises(DataError, match=r"2\.png: is a broken image"):
        read(tmp_path)


def test_file_of_another_kind_under_an_image_name_is_not_decoded(tmp_path: Path) -> None:
    Image.new("RGB", (12, 8)).save(paint(tmp_path / "cat/1.png"), format="TIFF")

    with pytest.raises(DataError, match="is a broken image"):
        read(tmp_path)


def test_deep_image_is_refused_rather_than_clipped(tmp_path: Path) -> None:
    paint(tmp_path / "cat/1.png", 40_000, mode="I;16")

    with pytest.raises(DataError, match="more than 8 bits"):
        read(tmp_path)


@pytest.mark.parametrize("beyond", [1, 2])
def test_decompression_bomb_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beyond: int
) -> None:
    """Pillow warns above its limit and raises above twice of it; here the limit is lowered."""
    paint(tmp_path / "cat/1.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12 * 8 // beyond - 1)

    with pytest.raises(DataError, match="too large to be decoded safely"):
        read(tmp_path)


def test_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    secret = paint(tmp_path / "elsewhere/1.png")
    paint(tmp_path / "data/cat/1.png")
    (tmp_path / "data/cat/2.png").symlink_to(secret)

    with pytest.raises(DataError, match=r"2\.png: is a link that leads out"):
        read(tmp_path / "data")


def test_class_folder_linked_from_outside_is_refused(tmp_path: Path) -> None:
    paint(tmp_path / "elsewhere/1.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/cat").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(DataError, match="cat: is a link that leads out"):
        read(tmp_path / "data")


def test_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    original = paint(tmp_path / "cat/1.png")
    (tmp_path / "cat/2.png").symlink_to(original)

    assert len(read(tmp_path).labels) == 2


def test_link_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/1.png").symlink_to(tmp_path / "cat/2.png")

    with pytest.raises(DataError, match="is a broken image"):
        read(tmp_path)


def folders(search: Path, report: Path) -> Task:
    return Task(
        kind=TaskKind.CLASSIFICATION,
        metric=None,
        data=SplitFiles(calibration=None, search=search, report=report),
        preprocessing=SMALL,
    )


def test_image_folders_are_splits_like_files(tmp_path: Path) -> None:
    paint(tmp_path / "search/cat/1.png", (1, 1, 1))
    paint(tmp_path / "report/cat/1.png", (2, 2, 2))

    task = folders(tmp_path / "search", tmp_path / "report")
    dataset = dataset_from_task(task, source="space.yaml")

    assert dataset.search.samples([0], SMALL)[""].shape == (1, 3, 4, 6)
    assert dataset.report.labels.tolist() == [0]


def test_splits_with_other_classes_are_refused(tmp_path: Path) -> None:
    """A class that one split lacks would shift the labels of all that follow it."""
    paint(tmp_path / "search/cat/1.png", (1, 1, 1))
    paint(tmp_path / "report/bird/1.png", (2, 2, 2))
    paint(tmp_path / "report/cat/1.png", (3, 3, 3))

    task = folders(tmp_path / "search", tmp_path / "report")

    with pytest.raises(DataError, match="differ in bird"):
        dataset_from_task(task, source="space.yaml")


def test_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/1.png").symlink_to(tmp_path / "cat/2.png")
    (tmp_path / "cat/2.png").symlink_to(tmp_path / "cat/1.png")

    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path)
