"""Inspections: kept with an engine, found by its key, read back as they were."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_spaces import STORE_BYTES, bench_in, point, write_space

from search_spaces.deployment import Precision
from trials.backend import EngineSpec
from trials.inspection import MOST_LOG_CHARACTERS, BuildLog, Layer, LayerOutput, build_log
from trials.inspection_file import (
    Inspection,
    csv_of_layers,
    inspection_from_json,
    json_from_inspection,
    keep_inspection,
)
from trials.store.entries import Entry, key_from_parts
from trials.store.store import Store

text = st.text(st.characters(codec="utf-8"))
pairs = st.lists(st.tuples(text, text), max_size=2).map(tuple)
outputs = st.builds(
    LayerOutput,
    name=text,
    dtype=st.none() | text,
    shape=st.none() | st.lists(st.none() | st.integers(0), max_size=3).map(tuple),
)
layers = st.builds(
    Layer,
    name=text,
    operator=text,
    outputs=st.lists(outputs, max_size=2).map(tuple),
    parameter_bytes=st.integers(0),
    fused_from=st.lists(text, max_size=2).map(tuple),
    facts=pairs,
)
scalars = st.booleans() | st.integers() | st.floats(allow_nan=False) | text
specs = st.builds(
    EngineSpec,
    backend=text,
    model_digest=text,
    precision=st.sampled_from(Precision),
    batch_size=st.none() | st.integers(1),
    options=st.lists(st.tuples(text, scalars), max_size=2).map(tuple),
    environment=pairs,
)
inspections = st.builds(
    Inspection,
    engine_digest=text,
    spec=specs,
    build_s=st.floats(0, allow_infinity=False),
    layers=st.lists(layers, max_size=2).map(tuple),
    log=st.builds(BuildLog, text=text, left_out=st.integers(0)),
)


def inspection(engine_digest: str = "e", *, log: str = "") -> Inspection:
    spec = EngineSpec(
        backend="ort",
        model_digest="m",
        precision=Precision.FP32,
        batch_size=None,
        options=(),
        environment=(),
    )
    layer = Layer(
        name="conv",
        operator="FusedConv",
        outputs=(LayerOutput(name="y", dtype="float32", shape=(None, 8)),),
        parameter_bytes=40,
        fused_from=("conv", "relu"),
        facts=(("activation", "Relu"),),
    )
    return Inspection(
        engine_digest=engine_digest,
        spec=spec,
        build_s=0.1,
        layers=(layer,),
        log=BuildLog(text=log),
    )


def built(store: Store, content: bytes = b"engine") -> Entry:
    return store.obtain("engine", {"spec": 1}, lambda out: _write(out, content)).entry


def _write(out: Path, content: bytes) -> None:
    out.write_bytes(content)


@given(inspections)
def test_inspection_comes_back_as_it_was(one: Inspection) -> None:
    assert inspection_from_json(json_from_inspection(one)) == one


@pytest.mark.parametrize(
    "damaged", ['{"format": 2}', "{}", "[]", "", '{"format": 1, "layers": []}', "{"]
)
def test_file_of_another_version_is_not_half_read(damaged: str) -> None:
    with pytest.raises(ValueError, match=r"format|JSON|Field required|Expecting"):
        inspection_from_json(damaged)


def test_table_has_a_line_for_each_layer() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_of_layers(inspection()))))

    assert rows == [
        {
            "name": "conv",
            "operator": "FusedConv",
            "outputs": "y: float32[?, 8]",
            "parameter_bytes": "40",
            "fused_from": "conv; relu",
            "facts": "activation=Relu",
        }
    ]


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        (LayerOutput(name="y", dtype=None, shape=None), "y"),
        (LayerOutput(name="y", dtype="int8", shape=None), "y: int8"),
        (LayerOutput(name="y", dtype=None, shape=(2,)), "y: [2]"),
    ],
)
def test_table_leaves_out_what_nobody_knows(output: LayerOutput, shown: str) -> None:
    [layer] = inspection().layers
    one = replace(inspection(), layers=(replace(layer, outputs=(output,)),))

    [row] = csv.DictReader(io.StringIO(csv_of_layers(one)))

    assert row["outputs"] == shown


def found_in(store: Store, engine: Entry) -> Inspection | None:
    """Read what the store has of this very engine, as whoever has its record does."""
    entry = store.find("inspection", key_from_parts("inspection", {"engine": engine.key}))
    if entry is None:
        return None
    found = inspection_from_json(entry.path.read_text(encoding="utf-8"))
    return found if found.engine_digest == engine.sha256 else None


def test_inspection_is_found_by_the_key_of_its_engine(tmp_path: Path) -> None:
    store = Store(tmp_path, limit_bytes=STORE_BYTES)
    engine = built(store)

    keep_inspection(store, engine, lambda: inspection(engine.sha256))

    elsewhere = Store(tmp_path, limit_bytes=STORE_BYTES)
    assert found_in(elsewhere, engine) == inspection(engine.sha256)


def test_inspection_that_was_evicted_is_simply_not_there(tmp_path: Path) -> None:
    store = Store(tmp_path, limit_bytes=STORE_BYTES)
    engine = built(store)
    keep_inspection(store, engine, lambda: inspection(engine.sha256))
    [kept] = [entry for entry in store.list() if entry.kind == "inspection"]

    store.forget(kept)

    assert found_in(store, engine) is None
    store.forget(kept)  # once more is no error


def test_engine_that_is_built_again_otherwise_gets_another_inspection(tmp_path: Path) -> None:
    store = Store(tmp_path, limit_bytes=STORE_BYTES)
    first = built(store)
    keep_inspection(store, first, lambda: inspection(first.sha256))
    store.forget(first)

    second = built(store, b"another engine")
    assert found_in(store, second) is None
    keep_inspection(store, second, lambda: inspection(second.sha256))

    assert found_in(store, second) == inspection(second.sha256)
    assert found_in(store, first) is None


def test_same_engine_is_not_inspected_twice(tmp_path: Path) -> None:
    store = Store(tmp_path, limit_bytes=STORE_BYTES)
    engine = built(store)
    keep_inspection(store, engine, lambda: inspection(engine.sha256, log="first"))

    keep_inspection(store, engine, lambda: inspection(engine.sha256, log="second"))

    found = found_in(store, engine)
    assert found is not None
    assert found.log.text == "first"


def test_every_engine_that_a_bench_builds_is_inspected(tmp_path: Path) -> None:
    bench = bench_in(tmp_path, write_space(tmp_path))

    prepared = bench.prepare(point())

    found = found_in(bench.store, prepared.engine)
    assert found is not None
    assert (found.spec, found.engine_digest) == (prepared.spec, prepared.engine.sha256)
    assert found.build_s == prepared.build_s
    assert [layer.outputs[0].name for layer in found.layers][-1] == "logits"
    assert "GraphTransformer" in found.log.text


def test_engine_that_was_found_is_not_inspected_again(tmp_path: Path) -> None:
    bench = bench_in(tmp_path, write_space(tmp_path))
    bench.prepare(point())
    [kept] = [entry for entry in bench.store.list() if entry.kind == "inspection"]
    bench.store.forget(kept)

    again = bench_in(tmp_path, bench.space).prepare(point())

    assert found_in(bench.store, again.engine) is None


def test_short_log_is_kept_whole() -> None:
    assert build_log(["one", "two"]) == BuildLog(text="one\ntwo\n")
    assert build_log([]) == BuildLog(text="")


@given(st.lists(st.integers(0, MOST_LOG_CHARACTERS), max_size=8))
def test_long_log_keeps_its_begin_and_its_end(lengths: list[int]) -> None:
    lines = [f"{place}{'.' * length}" for place, length in enumerate(lengths)]

    log = build_log(lines)

    kept = log.text.splitlines()
    gap = [line for line in kept if line.endswith("lines are left out here …")]
    assert len(kept) - len(gap) + log.left_out == len(lines)
    assert sum(map(len, kept)) <= MOST_LOG_CHARACTERS + sum(map(len, gap))
    head = kept.index(gap[0]) if gap else len(kept)
    assert kept[:head] == lines[:head]
    assert not gap or kept[head + 1 :] == lines[len(lines) - len(kept) + head + 1 :]
