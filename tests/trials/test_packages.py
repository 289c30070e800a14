"""Versions of packages, where another one brings the same module."""

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from optimizer.health import findings_at
from optimizer.wiring import place_at
from search_spaces.deployment import Precision
from trials.backends.ort import OrtBackend
from trials.machine.packages import installed_version, onnxruntime_version
from trials.models.precision import converter_versions


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hide what is installed, and put what a user may have in its place."""
    for name, version in (("onnxruntime_gpu", "1.99.0"), ("onnx", "1.98.0")):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (folder / "METADATA").write_text(text)
    import_module("onnxruntime")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


@pytest.mark.usefixtures("site")
def test_onnxruntime_for_gpus_stands_in_for_the_plain_one() -> None:
    assert installed_version("onnxruntime") == onnxruntime_version() == "1.99.0"
    assert dict(converter_versions(Precision.INT8))["onnxruntime"] == "1.99.0"
    assert dict(OrtBackend().environment())["onnxruntime"] == "1.99.0"


def test_doctor_takes_it_for_the_plain_one(site: Path) -> None:
    findings = findings_at(place_at(site, None), mlflow="none")

    assert next(one for one in findings if one.name == "onnxruntime").detail == "1.99.0"


def test_package_that_is_not_there_has_no_version(site: Path) -> None:
    next(site.glob("onnxruntime_gpu*")).joinpath("METADATA").unlink()
    next(site.glob("onnxruntime_gpu*")).rmdir()

    assert installed_version("onnxruntime") is None
    with pytest.raises(PackageNotFoundError):
        onnxruntime_version()
