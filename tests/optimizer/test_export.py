"""Exports: the deployment that was measured, whole or not at all, and everything about it."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save_model
from real_exports import Case, InProcess, measured_case, record_in, study_of
from real_spaces import bench_in, point, samples, write_model, write_space
from search_fakes import infeasible

from optimizer.certifying.certificate import Certificate, Certified, keep_certificate
from optimizer.errors import ExportError, UsageError
from optimizer.export.catalog import format_named
from optimizer.export.description import installed_packages
from optimizer.export.export import check_place
from optimizer.export.format_name import FormatName, TritonBackend
from optimizer.export.manifest import Manifest, Role, manifest_from_json
from optimizer.workspace import Workspace, load_blocks
from search_spaces.deployment import Deployment, Precision
from search_spaces.files import space_from_yaml
from search_spaces.space import SearchSpace
from trials.bench import Prepared
from trials.measurement import Estimate

ONNX = format_named(FormatName.ONNX)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """A trial that was measured, with its verdict."""
    return measured_case(tmp_path)


def manifest_in(folder: Path) -> Manifest:
    path = folder / "manifest.json"
    return manifest_from_json(path.read_text(encoding="utf-8"), source=path)


def test_bundle_holds_all_that_is_needed_to_check_it(tmp_path: Path, case: Case) -> None:
    exported = case.export(tmp_path / "d")

    assert [path.name for path in exported.files] == [
        "README.md",
        "SHA256SUMS",
        "blocks.parquet",
        "engine.onnx",
        "manifest.json",
        "model.onnx",
        "references.npz",
        "space.yaml",
    ]
    assert (tmp_path / "d" / "space.yaml").read_text(encoding="utf-8") == case.study.space_file
    assert load_blocks(tmp_path / "d" / "blocks.parquet")[0].batch_size == (
        case.deployment.batch_size
    )


def test_onnx_format_is_the_converted_model_and_its_manifest(tmp_path: Path, case: Case) -> None:
    exported = case.export(tmp_path / "d", ONNX)

    assert [path.name for path in exported.files] == [
        "SHA256SUMS",
        "manifest.json",
        "model.onnx",
    ]
    model = (tmp_path / "d" / "model.onnx").read_bytes()
    assert hashlib.sha256(model).hexdigest() == case.outcome.engine.model_digest


def test_manifest_names_every_file_with_digest_size_and_role(tmp_path: Path, case: Case) -> None:
    case.export(tmp_path / "d")

    files = manifest_in(tmp_path / "d").files

    others = {path.name for path in (tmp_path / "d").iterdir()} - {"manifest.json", "SHA256SUMS"}
    assert files.keys() == others
    for name, facts in files.items():
        content = (tmp_path / "d" / name).read_bytes()
        assert (facts.sha256, facts.size_bytes) == (
            hashlib.sha256(content).hexdigest(),
            len(content),
        )
    assert files["engine.onnx"].sha256 == case.outcome.engine.engine_digest
    assert files["model.onnx"].role is Role.MODEL


def test_manifest_says_everything_about_the_trial(tmp_path: Path, case: Case) -> None:
    case.export(tmp_path / "d")

    manifest = manifest_in(tmp_path / "d")

    assert (manifest.trial.study, manifest.trial.number) == ("real", case.record.number)
    assert manifest.deployment.deployment() == case.deployment
    assert manifest.digests == dict(case.bench.facts.digests)
    assert manifest.environment == dict(case.outcome.environment.facts)
    assert manifest.measurement.measuring_plan() == case.study.space.plan
    assert manifest.task.task().preprocessing == case.study.space.task.preprocessing
    assert manifest.scores.keys() == {"search", "report"}
    assert {name: one.estimate() for name, one in manifest.metrics.items()} == (
        case.outcome.metrics()
    )


def test_manifest_says_who_exported_when_and_with_what(tmp_path: Path, case: Case) -> None:
    case.export(tmp_path / "d")

    manifest = manifest_in(tmp_path / "d")

    assert manifest.exported.by == "Ada"
    assert manifest.exported.at.isoformat().endswith("+00:00")
    assert manifest.packages == installed_packages()
    assert f"numpy=={np.__version__}" in manifest.packages
    assert not any("/" in one or "@" in one for one in manifest.packages)


def test_engine_can_be_built_from_what_the_manifest_says(tmp_path: Path, case: Case) -> None:
    case.export(tmp_path / "d")

    manifest = manifest_in(tmp_path / "d")

    spec = manifest.engine.spec(manifest.deployment.precision, case.bench.facts.environment)
    assert spec == case.bench.prepare(case.deployment).spec


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

    assert np.array_equal(as_built.run(None, {"samples": samples(4)})[0], expected)


@pytest.mark.parametrize("references", [24, 0])
def test_readme_loads_the_engine_in_ten_lines_as_it_says(
    tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch, references: int
) -> None:
    case.export(tmp_path / "d", samples=references)
    readme = (tmp_path / "d" / "README.md").read_text(encoding="utf-8")
    [program] = readme.split("```python\n")[1].split("```\n")[:1]
    monkeypatch.chdir(tmp_path / "d")
    names: dict[str, Any] = {"batch": samples(case.deployment.batch_size)}

    exec(program, names)  # noqa: S102 - a reader would run just this

    assert len(program.splitlines()) <= 10
    assert names["outputs"][0].shape == (case.deployment.batch_size, 4)
    assert f"Trial {case.record.number} of study real" in readme
    if references:
        stored = names["stored"]["outputs.logits"]
        assert np.array_equal(names["outputs"][0], stored[: case.deployment.batch_size])


def two_inputs(folder: Path) -> SearchSpace:
    """Write a space whose model takes two inputs of other names than the usual one."""
    write_space(folder)
    weights = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Add", ["left", "to/the:right"], ["sum"]),
        helper.make_node("MatMul", ["sum", "head"], ["logits"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "two",
        [info(name, TensorProto.FLOAT, ("n", 6)) for name in ("left", "to/the:right")],
        [info("logits", TensorProto.FLOAT, ("n", 4))],
        [numpy_helper.from_array(weights, "head")],
    )
    opset = [helper.make_opsetid("", 18)]
    save_model(helper.make_model(graph, opset_imports=opset, ir_version=10), folder / "net.onnx")
    left = samples(200)
    labels = np.random.default_rng(2).integers(4, size=200)
    both = {"inputs.left": left, "inputs.to/the:right": left[::-1]}
    np.savez(folder / "data.npz", allow_pickle=False, labels=labels, **both)
    text = (folder / "real.yaml").read_text(encoding="utf-8")
    types = '  preprocess: {dtype: {left: float32, "to/the:right": float32}}\nvariants:'
    (folder / "real.yaml").write_text(text.replace("variants:", types), encoding="utf-8")
    return space_from_yaml(folder / "real.yaml")


def test_model_of_several_inputs_is_exported_and_loaded_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = measured_case(tmp_path, space=two_inputs(tmp_path), deployment=point(batch_size=4))
    case.export(tmp_path / "d")
    readme = (tmp_path / "d" / "README.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path / "d")
    names: dict[str, Any] = {}

    exec(readme.split("```python\n")[1].split("```\n")[0], names)  # noqa: S102 - as a reader would

    manifest = manifest_in(tmp_path / "d")
    assert [one.name for one in manifest.inputs] == ["left", "to/the:right"]
    assert manifest.task.task().preprocessing == case.study.space.task.preprocessing
    assert np.array_equal(names["outputs"][0], names["stored"]["outputs.logits"][:4])


def test_export_without_references_says_what_is_lost(tmp_path: Path, case: Case) -> None:
    case.export(tmp_path / "d", samples=0)

    assert manifest_in(tmp_path / "d").references is None
    assert not (tmp_path / "d" / "references.npz").exists()
    readme = (tmp_path / "d" / "README.md").read_text(encoding="utf-8")
    assert "outputs, accuracy and speed cannot be checked" in readme


def test_export_without_raw_blocks_says_what_is_lost(tmp_path: Path, case: Case) -> None:
    case.blocks.unlink()

    case.export(tmp_path / "d")

    assert not (tmp_path / "d" / "blocks.parquet").exists()
    readme = (tmp_path / "d" / "README.md").read_text(encoding="utf-8")
    assert "speed cannot be checked" in readme


def test_pruned_engine_is_built_again_bit_by_bit(tmp_path: Path, case: Case) -> None:
    case.bench.store.prune(None, everything=True)
    again = bench_in(tmp_path / "elsewhere", case.bench.space)

    gathered = case.gathered(preparer=InProcess(bench=again))

    engine = hashlib.sha256(gathered.engine.read_bytes()).hexdigest()
    assert engine == case.outcome.engine.engine_digest


def test_engine_of_a_model_that_has_changed_is_refused(tmp_path: Path, case: Case) -> None:
    write_model(tmp_path / "user" / "net.onnx", seed=9)
    changed = bench_in(tmp_path, case.bench.space)

    with pytest.raises(ExportError, match="the model of variant 'net' has changed"):
        case.gathered(preparer=InProcess(bench=changed))


class Changeable(InProcess):
    """Builds another engine each time, as some builders do: here that of another precision."""

    def prepare(self, deployment: Deployment) -> Prepared:
        """Prepare the other precision."""
        is_int8 = deployment.precision is Precision.INT8
        return super().prepare(point(precision=Precision.FP32 if is_int8 else Precision.INT8))


def test_engine_that_is_not_bit_identical_is_refused(case: Case) -> None:
    with pytest.raises(ExportError, match="building it again gave another one"):
        case.gathered(preparer=Changeable(bench=case.bench))


def test_bound_is_recorded_with_the_room_that_is_left(tmp_path: Path) -> None:
    write_space(tmp_path)
    bounds = 'constraints: ["latency_p50_ms <= 1000", "accuracy >= 1"]'
    with (tmp_path / "real.yaml").open("a", encoding="utf-8") as file:
        file.write(bounds)
    case = measured_case(tmp_path, space=space_from_yaml(tmp_path / "real.yaml"))
    case.export(tmp_path / "d")

    latency, accuracy = manifest_in(tmp_path / "d").constraints

    assert (latency.metric, latency.sense, latency.bound) == ("latency_p50_ms", "<=", 1000)
    assert latency.margin == 1000 - latency.measured.value
    assert (latency.standing, accuracy.standing) == ("meets", "misses")
    assert accuracy.margin == accuracy.measured.value - 1


def test_trial_that_was_not_measured_is_refused_with_its_reason(
    tmp_path: Path, case: Case
) -> None:
    study = study_of(case.study.space, Workspace(root=tmp_path / "other"), facts=case.bench.facts)
    record = record_in(study, infeasible)
    refused = Case(study=study, workspace=case.workspace, bench=case.bench, record=record)

    with pytest.raises(ExportError, match="is infeasible: needs 25 GB of 24 GB") as caught:
        refused.gathered()

    assert "trifront front" in caught.value.hint


def test_folder_in_use_is_refused_and_left_as_it_was(tmp_path: Path, case: Case) -> None:
    case.export(tmp_path / "d")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "d").iterdir()}

    for refused in (check_place, case.export):
        with pytest.raises(ExportError, match="d is not empty"):
            refused(tmp_path / "d")

    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "d").iterdir()} == before


def test_empty_folder_is_taken(tmp_path: Path, case: Case) -> None:
    (tmp_path / "d").mkdir()

    assert case.export(tmp_path / "d").files


def test_working_folder_is_not_replaced_under_ones_feet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "d").mkdir()
    monkeypatch.chdir(tmp_path / "d")

    with pytest.raises(ExportError, match="is the working folder"):
        check_place(Path())


def test_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d").write_text("mine", encoding="utf-8")

    with pytest.raises(ExportError, match="is not empty"):
        check_place(tmp_path / "d")


def test_options_of_another_format_are_refused() -> None:
    with pytest.raises(UsageError, match="--model-name is for --format triton"):
        format_named(FormatName.BUNDLE, model_name="net")
    with pytest.raises(UsageError, match="--triton-backend is for --format triton"):
        format_named(FormatName.ONNX, triton_backend=TritonBackend.PYTHON)


def test_manifest_says_how_surely_a_certified_deployment_belongs(
    tmp_path: Path, case: Case
) -> None:
    p99 = Estimate(value=2.0, low=1.5, high=None)
    certified = Certified(
        trial=case.record.number,
        probability=0.97,
        sessions=3,
        speeds=(("latency_p99_ms", p99),),
    )
    certificate = Certificate(
        at_s=0.0, sessions=3, decided=True, trials=1, contended=0.0, candidates=(certified,)
    )
    case.export(tmp_path / "before")
    keep_certificate(case.study, certificate)

    case.export(tmp_path / "after")

    found = manifest_in(tmp_path / "after").certified
    assert manifest_in(tmp_path / "before").certified is None
    assert found is not None
    assert (found.probability, found.sessions, found.decided) == (0.97, 3, True)
    assert found.speeds["latency_p99_ms"].estimate() == p99
