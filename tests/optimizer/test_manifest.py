"""The manifest: written and read in one place, and described field by field."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from real_exports import Case, measured_case

from optimizer.errors import BundleError
from optimizer.export.manifest import (
    FORMAT,
    FileSection,
    Manifest,
    Role,
    json_from_manifest,
    manifest_from_json,
)

PAGE = Path(__file__).parents[2] / "docs" / "formats" / "manifest.md"
SOURCE = Path("d/manifest.json")

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return measured_case(tmp_path_factory.mktemp("manifest"))


@pytest.fixture(scope="module")
def text(case: Case, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("exported") / "d"
    case.export(folder)
    return (folder / "manifest.json").read_text(encoding="utf-8")


def sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Walk a model and all that its fields hold."""
    yield model
    for field in model.model_fields.values():
        pending: list[Any] = [field.annotation]
        while pending:
            one = pending.pop()
            pending += get_args(one)
            if isinstance(one, type) and issubclass(one, BaseModel):
                yield from sections(one)


def test_manifest_survives_being_written_and_read(text: str) -> None:
    manifest = manifest_from_json(text, source=SOURCE)

    assert json_from_manifest(manifest) == text
    assert manifest_from_json(json_from_manifest(manifest), source=SOURCE) == manifest


def test_page_of_the_format_describes_every_field() -> None:
    page = PAGE.read_text(encoding="utf-8")
    described = set(re.findall(r"`([a-z0-9_]+)`", page))

    fields = {name for model in sections(Manifest) for name in model.model_fields}

    assert fields - described == set()
    assert {role.value for role in Role} - described == set()
    assert f"format {FORMAT}" in page


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda one: one.update(surprise=1), "surprise: Extra inputs are not permitted"),
        (lambda one: one["engine"].update(sha="1"), "engine.sha: Extra inputs"),
        (lambda one: one.pop("task"), "task: Field required"),
        (lambda one: one["deployment"].update(batch_size="4"), "deployment.batch_size: Input"),
        (lambda one: one["engine"].update(sha256="XY"), "engine.sha256: String should match"),
        (lambda one: one["metrics"].update(accuracy=0.9), "metrics.accuracy: Input should be"),
    ],
)
def test_manifest_that_is_not_ours_is_refused_by_its_key(
    text: str, change: Change, words: str
) -> None:
    document = json.loads(text)
    change(document)

    with pytest.raises(BundleError) as caught:
        manifest_from_json(json.dumps(document), source=SOURCE)

    assert str(caught.value).startswith(f"d/manifest.json: {words}")
    assert "again" in caught.value.hint


@pytest.mark.parametrize(
    ("version", "mend"),
    [(1, "export the trial again"), (FORMAT + 1, "newer trifront"), (None, "export the trial")],
)
def test_manifest_of_another_version_is_refused_with_the_mend(
    text: str, version: int | None, mend: str
) -> None:
    document = json.loads(text) | {"format": version}

    with pytest.raises(
        BundleError, match=f"of format {version}, this trifront reads {FORMAT}"
    ) as e:
        manifest_from_json(json.dumps(document), source=SOURCE)

    assert mend in e.value.hint


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_text_that_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(BundleError, match=r"^d/manifest.json: "):
        manifest_from_json(text, source=SOURCE)


@pytest.mark.parametrize("path", ["../engine.onnx", "/etc/passwd", "a/../b", ".hidden", "a//b"])
def test_path_that_leads_elsewhere_is_refused(text: str, path: str) -> None:
    document = json.loads(text)
    document["files"][path] = document["files"]["engine.onnx"]

    with pytest.raises(BundleError, match="files"):
        manifest_from_json(json.dumps(document), source=SOURCE)


def test_role_that_no_file_has_has_no_path(text: str) -> None:
    manifest = manifest_from_json(text, source=SOURCE)

    assert manifest.path_of(Role.ENGINE) == "engine.onnx"
    assert manifest.path_of(Role.LABELS) is None
    assert all(isinstance(file, FileSection) for file in manifest.files.values())
