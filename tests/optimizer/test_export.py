"""Bundles: the engine that was measured, whole or not at all, and everything about it."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_spaces import bench_in, point, samples, write_model, write_space
from search_fakes import FACTS, infeasible

from optimizer.errors import ExportError, WorkspaceError
from optimizer.export.bundle import MANIFEST_FORMAT, Bundle, export_bundle
from optimizer.search.sampler_name import SamplerName
from optimizer.search.samplers import sampler_named
from optimizer.study.records import TrialRecord
from optimizer.study.storage import open_storage
from optimizer.study.study import SearchStudy, open_study
from optimizer.workspace import Workspace
from search_spaces.deployment import Deployment, Precision
from search_spaces.space import SearchSpace
from trials.bench import Bench, Prepared
from trials.outcome import Completed, Outcome
from trials.run import run_trial, score_report


@dataclass(frozen=True, kw_only=True)
class Case:
    """A measured trial, its study, and the bench that it was measured on."""

    study: SearchStudy
    bench: Bench
    record: TrialRecord

    @property
    def deployment(self) -> Deployment:
        return self.record.outcome.deployment

    @property
    def outcome(self) -> Completed:
        assert isinstance(self.record.outcome, Completed)
        return self.record.outcome

    def export(self, folder: Path, *, bench: Bench | None = None) -> Bundle:
        """Export the trial, its engine prepared on this or another bench."""
        found = bench or self.bench
        return export_bundle(
            self.record, self.study, lambda: found.prepare(self.deployment), folder
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A real space with one small model."""
    (tmp_path / "user").mkdir()
    return bench_in(tmp_path, write_space(tmp_path / "user"))


@pytest.fixture
def study(tmp_path: Path, bench: Bench) -> SearchStudy:
    return study_of(bench.space, Workspace(root=tmp_path / "work"), facts=bench.facts)


@pytest.fixture
def case(study: SearchStudy, bench: Bench) -> Case:
    """A trial that was measured, with its verdict."""
    told = record_in(study, lambda one: run_trial(one, bench, on_phase=lambda _: None))
    study.keep_verdict(told.number, score_report(told.outcome.deployment, bench))
    return Case(study=study, bench=bench, record=told)


def study_of(space: SearchSpace, workspace: Workspace, *, facts: Any = FACTS) -> SearchStudy:
    workspace.create()
    storage = open_storage(workspace.storage_url, workspace)
    study = open_study(storage, workspace.storage_url, "real", space=space, facts=facts)
    study.study.sampler, _ = sampler_named(
        SamplerName.RANDOM, study.encoding, seed=0, trials=None, repeats=False
    )
    return study


def record_in(study: SearchStudy, answer: Callable[..., Outcome]) -> TrialRecord:
    asked = study.ask()
    return study.tell(asked, answer(asked.deployment))


def manifest_in(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return manifest


def test_bundle_holds_engine_model_space_and_manifest(tmp_path: Path, case: Case) -> None:
    bundle = case.export(tmp_path / "d")

    assert [path.name for path in bundle.files] == [
        "README.md",
        "engine.onnx",
        "manifest.json",
        "model.onnx",
        "space.yaml",
    ]
    assert (tmp_path / "d" / "space.yaml").read_text(encoding="utf-8") == case.study.space_file


def test_manifest_names_every_file_with_its_digest(tmp_path: Path, case: Case) -> None:
    case.export(tmp_path / "d")

    files = manifest_in(tmp_path / "d")["files"]

    others = {path.name for path in (tmp_path / "d").iterdir()} - {"manifest.json"}
    assert files.keys() == others
    for name, facts in files.items():
        content = (tmp_path / "d" / name).read_bytes()
        assert facts == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert files["engine.onnx"]["sha256"] == case.outcome.engine.engine_digest
    assert files["model.onnx"]["sha256"] == case.outcome.engine.model_digest


def test_manifest_says_everything_about_the_trial(tmp_path: Path, case: Case) -> None:
    case.export(tmp_path / "d")

    manifest = manifest_in(tmp_path / "d")

    assert manifest["format"] == MANIFEST_FORMAT
    assert (manifest["study"], manifest["trial"]) == (case.study.name, case.record.number)
    assert manifest["deployment"] == dict(case.deployment.axes())
    assert manifest["precision"] == case.deployment.precision
    assert manifest["inputs"] == dict(case.bench.facts.digests)
    assert manifest["preprocessing"]["dtype"] == "float32"
    assert {"onnxruntime", "python", "cpu_model"} <= manifest["measured_on"].keys()
    assert manifest["report"]["accuracy"].keys() == {"value", "low", "high"}
    for name, estimate in case.outcome.metrics().items():
        assert manifest["metrics"][name]["value"] == estimate.value
        assert manifest["metrics"][name]["high"] == estimate.high


def test_exported_engine_gives_the_answers_that_were_scored(tmp_path: Path, case: Case) -> None:
    import onnxruntime as ort

    prepared = case.bench.prepare(case.deployment)
    engine = case.bench.backend.load(prepared.engine.path, case.deployment)
    expected = engine.infer({"samples": samples(4)})["logits"]
    case.export(tmp_path / "d")

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    cpu = ["CPUExecutionProvider"]
    as_built = ort.InferenceSession(tmp_path / "d" / "engine.onnx", options, providers=cpu)
    portable = ort.InferenceSession(tmp_path / "d" / "model.onnx", providers=cpu)

    assert np.array_equal(as_built.run(None, {"samples": samples(4)})[0], expected)
    np.testing.assert_allclose(
        portable.run(None, {"samples": samples(4)})[0], expected, rtol=1e-4, atol=1e-4
    )


def test_readme_loads_the_engine_as_it_says(
    tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.export(tmp_path / "d")
    readme = (tmp_path / "d" / "README.md").read_text(encoding="utf-8")
    [program] = readme.split("```python\n")[1].split("```\n")[:1]
    monkeypatch.chdir(tmp_path / "d")
    names: dict[str, Any] = {"batch": samples(case.deployment.batch_size)}

    exec(program, names)  # noqa: S102 - a reader would run just this

    assert len(program.splitlines()) <= 10
    assert names["outputs"][0].shape == (case.deployment.batch_size, 4)
    assert f"Trial {case.record.number} of study real" in readme


def test_pruned_engine_is_built_again_bit_by_bit(tmp_path: Path, case: Case) -> None:
    case.bench.store.prune(None, everything=True)
    again = bench_in(tmp_path / "elsewhere", case.bench.space)

    case.export(tmp_path / "d", bench=again)

    engine = (tmp_path / "d" / "engine.onnx").read_bytes()
    assert hashlib.sha256(engine).hexdigest() == case.outcome.engine.engine_digest


def test_engine_of_a_model_that_has_changed_is_refused(tmp_path: Path, case: Case) -> None:
    write_model(tmp_path / "user" / "net.onnx", seed=9)
    changed = bench_in(tmp_path, case.bench.space)

    with pytest.raises(ExportError, match="the model of variant 'net' has changed"):
        case.export(tmp_path / "d", bench=changed)

    assert not (tmp_path / "d").exists()


def test_engine_that_is_not_bit_identical_is_refused(tmp_path: Path, case: Case) -> None:
    is_int8 = case.deployment.precision is Precision.INT8
    other = point(precision=Precision.FP32 if is_int8 else Precision.INT8)

    with pytest.raises(ExportError, match="building it again gave another one"):
        export_bundle(case.record, case.study, lambda: case.bench.prepare(other), tmp_path / "d")

    assert not (tmp_path / "d").exists()


def test_folder_in_use_is_refused_and_left_as_it_was(tmp_path: Path, case: Case) -> None:
    case.export(tmp_path / "d")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "d").iterdir()}

    with pytest.raises(ExportError, match="d is not empty"):
        case.export(tmp_path / "d")

    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "d").iterdir()} == before


def test_empty_folder_is_taken(tmp_path: Path, case: Case) -> None:
    (tmp_path / "d").mkdir()

    assert case.export(tmp_path / "d").files


def test_file_in_the_way_is_refused(tmp_path: Path, case: Case) -> None:
    (tmp_path / "d").write_text("mine", encoding="utf-8")

    with pytest.raises(ExportError, match="is not empty"):
        case.export(tmp_path / "d")

    assert (tmp_path / "d").read_text(encoding="utf-8") == "mine"


def test_export_that_fails_half_way_leaves_nothing(tmp_path: Path, case: Case) -> None:
    def prepare() -> Prepared:
        prepared = case.bench.prepare(case.deployment)
        prepared.model.path.unlink()  # gone by the time that it is copied
        return prepared

    before = set(tmp_path.iterdir())

    with pytest.raises(WorkspaceError, match="cannot write"):
        export_bundle(case.record, case.study, prepare, tmp_path / "d")

    assert set(tmp_path.iterdir()) == before


def test_what_a_killed_export_left_is_removed_by_the_next(tmp_path: Path, case: Case) -> None:
    dead, alive = 2**22 + 1, os.getpid()  # beyond the largest process id of Linux, and ours
    for owner in (dead, alive):
        (tmp_path / f".d.export-{owner}.x").mkdir()

    case.export(tmp_path / "d")

    assert not (tmp_path / f".d.export-{dead}.x").exists()
    assert (tmp_path / f".d.export-{alive}.x").exists()


def test_trial_that_was_not_measured_is_refused_with_its_reason(
    tmp_path: Path, study: SearchStudy, bench: Bench
) -> None:
    record = record_in(study, infeasible)

    with pytest.raises(ExportError, match="is infeasible: needs 25 GB of 24 GB") as caught:
        Case(study=study, bench=bench, record=record).export(tmp_path / "d")

    assert "trifront front" in caught.value.hint
