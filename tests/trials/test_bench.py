"""Benches over real models: what is read once, made once, and identified by content."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from real_spaces import bench_in, point, write_data, write_model, write_space

from search_spaces.deployment import Precision
from search_spaces.errors import SpaceError
from search_spaces.space import TaskKind
from trials.errors import DataError, InputChangedError, ModelError, UnsupportedError


def test_facts_name_every_variant_and_split_by_digest(tmp_path: Path) -> None:
    facts = bench_in(tmp_path, write_space(tmp_path)).facts

    assert [name for name, _ in facts.digests] == [
        "data:calibration",
        "data:report",
        "data:search",
        "variant:net",
    ]
    assert {len(digest) for _, digest in facts.digests} == {64}
    assert dict(facts.samples) == {"calibration": 40, "search": 80, "report": 80}
    assert "onnxruntime" in dict(facts.environment)


def test_preparing_again_converts_and_builds_nothing(tmp_path: Path) -> None:
    bench = bench_in(tmp_path, write_space(tmp_path))

    first = bench.prepare(point())
    again = bench_in(tmp_path, bench.space).prepare(point())

    assert first.convert_s > 0
    assert first.build_s > 0
    assert (again.convert_s, again.build_s) == (0.0, 0.0)
    assert again.engine.sha256 == first.engine.sha256


def test_what_only_serving_changes_shares_one_engine(tmp_path: Path) -> None:
    bench = bench_in(tmp_path, write_space(tmp_path))

    one = bench.prepare(point())
    other = bench.prepare(point(batch_size=4, concurrency=2, threads=2))

    assert other.engine.key == one.engine.key


def test_precision_is_another_engine_of_the_same_variant(tmp_path: Path) -> None:
    bench = bench_in(tmp_path, write_space(tmp_path))

    plain = bench.prepare(point())
    quantized = bench.prepare(point(precision=Precision.INT8))

    assert quantized.variant_digest == plain.variant_digest
    assert quantized.engine.key != plain.engine.key


def test_int8_is_another_model_once_the_calibration_samples_change(tmp_path: Path) -> None:
    space = write_space(tmp_path)
    before = bench_in(tmp_path, space).prepare(point(precision=Precision.INT8))
    write_data(tmp_path / "data.npz", count=300)

    bench = bench_in(tmp_path, space)
    after = bench.prepare(point(precision=Precision.INT8))

    assert after.convert_s > 0
    assert after.model.key != before.model.key
    assert bench.prepare(point()).convert_s > 0  # fp32 was not asked for before
    assert bench_in(tmp_path, space).prepare(point()).convert_s == 0.0


def test_changed_model_file_is_another_variant_and_another_engine(tmp_path: Path) -> None:
    space = write_space(tmp_path)
    before = bench_in(tmp_path, space).prepare(point())
    write_model(tmp_path / "net.onnx", seed=7)

    after = bench_in(tmp_path, space).prepare(point())

    assert after.variant_digest != before.variant_digest
    assert after.engine.key != before.engine.key


def test_model_that_is_replaced_under_an_open_bench_is_not_stored_as_the_old_one(
    tmp_path: Path,
) -> None:
    space = write_space(tmp_path)
    bench = bench_in(tmp_path, space)
    write_model(tmp_path / "net.onnx", seed=7)

    with pytest.raises(InputChangedError, match="variant 'net' has changed since the search"):
        bench.prepare(point())

    assert not bench.store.list()


def test_code_of_a_metric_is_part_of_what_identifies_a_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "def score(outputs, labels):\n    return labels\n"
    (tmp_path / "bench_metric.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    space = write_space(tmp_path)
    task = replace(space.task, kind=TaskKind.CUSTOM, metric="bench_metric:score")

    bench = bench_in(tmp_path, replace(space, task=task))

    assert dict(bench.facts.digests)["code:metric"] == bench.metric_code


def test_renamed_model_is_the_same_variant(tmp_path: Path) -> None:
    original = write_model(tmp_path / "net.onnx")
    renamed = tmp_path / "other.onnx"
    renamed.write_bytes(original.read_bytes())
    space = write_space(tmp_path, {"net": original, "other": renamed})

    bench = bench_in(tmp_path, space)

    digests = dict(bench.facts.digests)
    assert digests["variant:net"] == digests["variant:other"]
    assert bench.prepare(point("other")).engine.key == bench.prepare(point()).engine.key


def test_fixed_batch_is_refused_where_the_space_asks_for_others(tmp_path: Path) -> None:
    model = write_model(tmp_path / "net.onnx", batch=1)

    with pytest.raises(
        SpaceError, match=r"real\.yaml: variants\.net: net\.onnx has a fixed batch"
    ):
        bench_in(tmp_path, write_space(tmp_path, {"net": model}))


def test_fixed_batch_serves_a_space_of_that_batch(tmp_path: Path) -> None:
    model = write_model(tmp_path / "net.onnx", batch=2)
    space = write_space(tmp_path, {"net": model}, batch_sizes="[2]")

    prepared = bench_in(tmp_path, space).prepare(point(batch_size=2))

    assert prepared.engine.size_bytes > 0


def test_variant_that_is_no_model_is_refused_before_the_first_trial(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"no model")
    space = write_space(tmp_path, {"net": tmp_path / "net.onnx"})

    with pytest.raises(ModelError, match=r"net\.onnx"):
        bench_in(tmp_path, space)


def test_data_that_cannot_be_used_are_refused_before_the_first_trial(tmp_path: Path) -> None:
    space = write_space(tmp_path)
    np.savez(tmp_path / "data.npz", inputs=np.full((9, 6), np.nan), labels=np.zeros(9, int))

    with pytest.raises(DataError, match=r"data\.npz: array 'inputs' holds NaN"):
        bench_in(tmp_path, space)


def test_axis_that_the_backend_would_ignore_is_refused(tmp_path: Path) -> None:
    space = write_space(tmp_path)
    axes = tuple(
        replace(axis, name="thraeds") if axis.name == "threads" else axis for axis in space.axes
    )

    with pytest.raises(SpaceError, match="did you mean 'threads'"):
        bench_in(tmp_path, replace(space, axes=axes))


def test_what_cannot_be_converted_is_refused_each_time_for_the_same_reason(
    tmp_path: Path,
) -> None:
    space = write_space(tmp_path)
    bench = bench_in(tmp_path, space)
    quantized = bench.prepare(point(precision=Precision.INT8)).model.path
    (tmp_path / "net.onnx").write_bytes(quantized.read_bytes())  # int8 of int8: nobody makes that
    bench = bench_in(tmp_path, space)

    reasons = []
    for _ in range(2):
        with pytest.raises(UnsupportedError) as caught:
            bench.prepare(point(precision=Precision.INT8))
        reasons.append(str(caught.value))

    assert reasons[0] == reasons[1]
    assert "already in a reduced precision" in reasons[0]
