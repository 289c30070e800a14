"""Layers and build logs beside trials: read from the engine store, which looking leaves alone."""

import csv
import io
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from real_spaces import STORE_BYTES, point, write_space
from search_fakes import completed, infeasible, record_of

from optimizer.dashboard.layers import InspectionProvider
from optimizer.study.records import TrialRecord
from optimizer.workspace import Workspace
from trials.bench import open_bench
from trials.measurement import EngineRecord
from trials.outcome import Completed
from trials.store.store import Store


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(root=tmp_path / "work")


@pytest.fixture
def record(workspace: Workspace, tmp_path: Path) -> TrialRecord:
    """A trial of an engine that ONNX Runtime has really built."""
    bench = open_bench(write_space(tmp_path), Store(workspace.store, limit_bytes=STORE_BYTES))
    engine = bench.prepare(point()).engine
    outcome = completed(point(), latency_ms=1.0, sps=1000.0, accuracy=0.9)
    built = EngineRecord(
        variant_digest="v",
        model_digest="m",
        engine_digest=engine.sha256,
        engine_key=engine.key,
        size_bytes=engine.size_bytes,
    )
    return record_of(0, replace(outcome, engine=built))


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_measured_trial_has_the_layers_of_its_engine_as_a_table(
    record: TrialRecord, workspace: Workspace
) -> None:
    provider = InspectionProvider(workspace)

    assert provider.names(record)[0] == "layers.csv"
    rows = list(csv.DictReader(io.StringIO(provider.content(record, "layers.csv").decode())))

    assert len(rows) > 1
    assert {"name", "operator"} <= rows[0].keys()


def test_looking_writes_nothing_into_the_store(record: TrialRecord, workspace: Workspace) -> None:
    provider = InspectionProvider(workspace)
    before = stamps(workspace.root)

    for name in provider.names(record):
        provider.content(record, name)

    assert stamps(workspace.root) == before


def test_engine_of_another_build_or_none_at_all_has_no_layers(
    record: TrialRecord, workspace: Workspace
) -> None:
    provider = InspectionProvider(workspace)
    outcome = record.outcome
    assert isinstance(outcome, Completed)
    rebuilt = replace(outcome, engine=replace(outcome.engine, engine_digest="x"))

    assert provider.names(replace(record, outcome=rebuilt)) == ()
    assert provider.names(record_of(1, infeasible(point()))) == ()


def test_layers_that_the_store_let_go_of_are_not_there(
    record: TrialRecord, workspace: Workspace
) -> None:
    provider = InspectionProvider(workspace)
    assert provider.names(record)

    shutil.rmtree(workspace.store)

    assert provider.names(record) == ()
    with pytest.raises(FileNotFoundError):
        provider.content(record, "layers.csv")
