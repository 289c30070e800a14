from collections.abc import Callable
from pathlib import Path

import pytest

from search_spaces.errors import SpaceError
from search_spaces.files import space_from_yaml
from search_spaces.space import SearchSpace

FAKE = """\
version: 1
name: tiny
backend: fake
variants:
  - {name: small, fake: {work_ms: 0.3, accuracy: 0.91, size_mb: 40}}
  - {name: wide, fake: {work_ms: 1, accuracy: 0.95, size_mb: 90}}
"""
ORT = """\
version: 1
name: tiny
backend: ort
variants: [{name: small, onnx: small.onnx}]
task: {data: {calibration: c.npz, search: s.npz, report: r.npz}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that ``ORT`` names; their content is not looked at."""
    for name in ("small.onnx", "c.npz", "s.npz", "r.npz", "w.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


@pytest.fixture
def read(folder: Path) -> Callable[[str], SearchSpace]:
    """Write a space file and read it."""

    def read(text: str) -> SearchSpace:
        path = folder / "space.yaml"
        path.write_text(text, encoding="utf-8")
        return space_from_yaml(path)

    return read


@pytest.fixture
def complaint(read: Callable[[str], SearchSpace], folder: Path) -> Callable[[str], str]:
    """Read a wrong space file and return what is said about it, without the file's folder."""

    def complaint(text: str) -> str:
        with pytest.raises(SpaceError) as caught:
            read(text)
        said = str(caught.value).replace(f"{folder}/", "")
        _, *others = said.split("\n")  # an error each
        assert len(others) <= 10
        assert all(one.startswith("  ") for one in others)
        assert said.startswith("space.yaml: ")
        return said.removeprefix("space.yaml: ")

    return complaint


@pytest.fixture
def fake() -> str:
    """A smallest space file for the fake backend, without axes."""
    return FAKE


@pytest.fixture
def ort() -> str:
    """A smallest space file for ONNX Runtime, without axes."""
    return ORT
