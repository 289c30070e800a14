"""Variants are known by their content, whatever they are called and wherever they lie."""

from dataclasses import replace
from pathlib import Path

import pytest
from real_spaces import STORE_BYTES, write_model, write_space

from search_spaces.errors import SpaceError
from search_spaces.space import FakeSource, OnnxSource
from trials.errors import ModelError
from trials.models.onnx_model import content_digest
from trials.models.variants import Model, model_from_source
from trials.store.store import Store


def resolved(folder: Path, source: OnnxSource | FakeSource) -> Model:
    space = write_space(folder)
    store = Store(folder / "store", limit_bytes=STORE_BYTES)
    return model_from_source(source, space=space, store=store)


def test_onnx_variant_is_the_users_own_file(tmp_path: Path) -> None:
    path = write_model(tmp_path / "mine.onnx")

    model = resolved(tmp_path, OnnxSource(name="mine", path=path))

    assert model.path == path
    assert model.digest == content_digest(path)
    assert model.convertible


def test_name_and_place_do_not_change_the_digest(tmp_path: Path) -> None:
    path = write_model(tmp_path / "mine.onnx")
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(path.read_bytes())

    one, other = (
        resolved(tmp_path, OnnxSource(name=each.stem, path=each)) for each in (path, copy)
    )

    assert one.digest == other.digest


def test_fake_variant_is_known_by_its_numbers_alone(tmp_path: Path) -> None:
    source = FakeSource(name="a", work_ms=1.0, accuracy=0.9, size_mb=5.0)

    first, renamed, better = (
        resolved(tmp_path, each)
        for each in (source, replace(source, name="b"), replace(source, accuracy=0.91))
    )

    assert renamed.digest == first.digest
    assert better.digest != first.digest
    assert not first.convertible


def test_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.onnx: there is no such file"):
        resolved(tmp_path, OnnxSource(name="gone", path=tmp_path / "gone.onnx"))


def test_fixed_batch_is_refused_with_both_mends(tmp_path: Path) -> None:
    path = write_model(tmp_path / "fixed.onnx", batch=3)

    with pytest.raises(SpaceError) as caught:
        resolved(tmp_path, OnnxSource(name="fixed", path=path))

    assert caught.value.key == "variants.fixed"
    for part in ("fixed batch of 3", "[1, 4]", "trifront init", "axes.batch_size to [3]"):
        assert part in caught.value.problem
