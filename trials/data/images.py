"""A folder of images as samples: ``class_name/*.png``, one folder per class.

Pixels are kept as bytes, ``(samples, channels, height, width)``; what is declared beyond size and
color is applied when a batch is drawn (see ``data``). Images are stretched to the declared size
with Pillow's bilinear filter, which averages over all source pixels when it shrinks, as
torchvision's does. Alpha is dropped, and a camera's note on orientation is not followed: neither
does torchvision's ImageFolder, which most such models were trained with.

Decoding is where a hostile file would strike: only the decoders for the listed suffixes are tried,
decompression bombs are refused, and no link may lead out of the folder.
"""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search_spaces.space import Preprocessing
from trials.errors import DataError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")

_FORMATS = ("BMP", "JPEG", "PNG", "WEBP")
_MODES = {"gray": "L", "rgb": "RGB"}
_DEEP_MODES = ("I", "F")  # first letter of Pillow's modes beyond 8 bits, which conversion clips


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageFolder:
    """The images of one folder.

    Attributes:
        pixels: Shape ``(samples, channels, height, width)``, in [0, 255].
        labels: Shape ``(samples,)``; index of the class in ``classes``.
        classes: Names of the class folders, sorted.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]


def read_image_folder(folder: Path, preprocessing: Preprocessing, *, source: str) -> ImageFolder:
    """Decode and resize every image, class by class and by name.

    Args:
        folder: Holds one folder per class; hidden entries are passed over.
        preprocessing: Its ``size`` and ``color`` are applied, the rest is not.
        source: The space file, for messages.

    Raises:
        DataError: No size is declared, the folder has no classes or an empty one, a link leads out
            of it, or a file is no sound 8-bit image.
    """
    if preprocessing.size is None:
        raise DataError(
            f"{source}: task.preprocess.size is missing, and {folder} is a folder of images; "
            "add size: [height, width]"
        )
    with _os_errors(folder):
        files = _files_by_class(folder)
    classes = tuple(files)
    paths = [path for name in classes for path in files[name]]
    mode = _MODES[preprocessing.color]
    pixels = np.empty((len(paths), len(mode), *preprocessing.size), dtype=np.uint8)
    with _only_bombs_warn():
        for index, path in enumerate(paths):
            pixels[index] = _decoded(path, mode, preprocessing.size)
    counts = [len(files[name]) for name in classes]
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), counts)
    return ImageFolder(pixels=pixels, labels=labels, classes=classes)


def _files_by_class(folder: Path) -> dict[str, list[Path]]:
    entries = _visible(folder)
    loose = next((path for path in entries if path.suffix.lower() in SUFFIXES), None)
    if loose is not None and not loose.is_dir():
        raise DataError(f"{loose}: is in no class; move it into a folder named after its class")
    root = folder.resolve()
    files = {path.name: _images(_inside(path, root), root) for path in entries if path.is_dir()}
    if not files:
        raise DataError(
            f"{folder}: is a folder without class folders; name an npz file, or a folder with "
            "class_name/*.png"
        )
    return files


def _images(folder: Path, root: Path) -> list[Path]:
    paths = _visible(folder)
    if not paths:
        raise DataError(f"{folder}: is an empty class; add images to it or remove it")
    for path in paths:
        if path.is_dir() or path.suffix.lower() not in SUFFIXES:
            raise DataError(
                f"{path}: is no image; a class folder holds {', '.join(SUFFIXES)} files only, so "
                "convert it or move it away"
            )
    return [_inside(path, root) for path in paths]


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _inside(path: Path, root: Path) -> Path:
    """Refuse a path that a symbolic link leads out of the data's folder."""
    if not path.resolve().is_relative_to(root):
        raise DataError(f"{path}: is a link that leads out of {root}; copy the images instead")
    return path


def _decoded(path: Path, mode: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the image's pixels, shape ``(channels, height, width)``."""
    from PIL import Image

    height, width = size
    with _broken_images(path), Image.open(path, formats=_FORMATS) as image:
        if image.mode.startswith(_DEEP_MODES):
            raise DataError(
                f"{path}: has more than 8 bits per channel (mode {image.mode}); convert it to 8 "
                "bits, or store the samples as npz"
            )
        resized = image.convert(mode).resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized, dtype=np.uint8).reshape(height, width, len(mode))
    return pixels.transpose(2, 0, 1)


@contextmanager
def _only_bombs_warn() -> Iterator[None]:
    """Make a suspiciously large image an error, and keep Pillow's other remarks to itself."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@contextmanager
def _broken_images(path: Path) -> Iterator[None]:
    """Map what Pillow raises on a bad file; its PNG reader raises SyntaxError."""
    from PIL import Image

    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{path}: is too large to be decoded safely ({error}); shrink it"
        ) from error
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise DataError(
            f"{path}: is a broken image ({error}); replace it or move it away"
        ) from error


@contextmanager
def _os_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # resolve() raises RuntimeError on a loop of links
        raise DataError(f"{folder}: cannot be read ({error})") from error
