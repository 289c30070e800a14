"""Verifying an export: what is the same, what is worse, and what cannot be known here."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from real_exports import at_pace, fake_case, measured_case, on_machine
from real_spaces import point, write_data, write_model, write_space

from optimizer.errors import BundleError
from optimizer.export.catalog import format_named
from optimizer.export.checksums import SUMS, sums_of
from optimizer.export.format_name import FormatName
from optimizer.verification.findings import Findings
from optimizer.verification.verify import VerifyOrder, verify
from optimizer.verification.words import data_of, lines_of, verdict_of
from search_spaces.deployment import Precision
from search_spaces.files import space_from_yaml
from trials.errors import FaultError
from trials.measuring.comparison import Verdict
from trials.measuring.load import CONTENDED
from trials.outcome import Completed
from trials.scoring.agreement import Agreement

Changed = Callable[[Completed], Completed]


def verified(
    folder: Path, *, sessions: int = 1, margin: float = 0.1, data: Path | None = None
) -> Findings:
    order = VerifyOrder(folder=folder, margin=margin, sessions=sessions, data=data)
    return verify(order, on_step=lambda _: None)


def faked(tmp_path: Path, changed: Changed = lambda outcome: outcome) -> Path:
    """Export a deployment of the fake backend, recorded as a test says."""
    fake_case(tmp_path, changed=changed).export(tmp_path / "d")
    return tmp_path / "d"


def rewritten(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Edit a manifest by hand, and write new sums over it."""
    document = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    change(document)
    (folder / "manifest.json").write_text(json.dumps(document), encoding="utf-8")
    (folder / SUMS).write_text(sums_of(folder), encoding="utf-8")


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
def test_real_engine_answers_bit_by_bit_alike_on_its_own_machine(
    tmp_path: Path, precision: Precision
) -> None:
    case = measured_case(tmp_path, deployment=point(precision=precision, batch_size=4))
    case.export(tmp_path / "d")

    found = verified(tmp_path / "d")

    assert [(one.output, one.deviation, one.bound) for one in found.outputs] == [
        ("logits", 0.0, 0.0)
    ]
    assert found.predictions is not None
    assert found.predictions.agree == len(found.predictions) == 24
    assert "engine: the one that was measured" in found.facts
    assert [one.metric for one in found.speeds] == ["latency_p99_ms", "throughput_sps"]


@pytest.mark.parametrize("form", [FormatName.TRITON, FormatName.ONNX])
def test_portable_model_builds_the_measured_engine_again(tmp_path: Path, form: FormatName) -> None:
    case = measured_case(tmp_path, deployment=point(precision=Precision.INT8, batch_size=4))
    case.export(tmp_path / "d", format_named(form))

    found = verified(tmp_path / "d", sessions=0)

    assert "engine: built from the portable model; the measured one, bit by bit" in found.facts
    assert found.passed
    assert all(one.bound == 0.0 for one in found.outputs)
    assert any(one.startswith("speed: ") for one in found.unchecked)


def test_same_speed_is_equivalent(tmp_path: Path) -> None:
    found = verified(faked(tmp_path), sessions=2)

    assert {one.verdict for one in found.speeds} == {Verdict.EQUIVALENT}
    assert found.passed
    assert verdict_of(found) == "passed"


@pytest.mark.parametrize(
    ("pace", "verdict"),
    [(0.8, Verdict.WORSE), (1.25, Verdict.BETTER), (0.97, Verdict.EQUIVALENT)],
)
def test_speed_is_held_against_what_was_measured(
    tmp_path: Path, pace: float, verdict: Verdict
) -> None:
    found = verified(faked(tmp_path, at_pace(pace)))

    assert {one.verdict for one in found.speeds} == {verdict}
    assert found.passed is (verdict is not Verdict.WORSE)
    assert found.speeds[0].ratio.value == pytest.approx(1 / pace, rel=0.02)


def test_wider_margin_forgives(tmp_path: Path) -> None:
    found = verified(faked(tmp_path, at_pace(0.8)), margin=0.5)

    assert found.passed


def test_better_than_a_measurement_that_others_disturbed_is_undecided(tmp_path: Path) -> None:
    found = verified(faked(tmp_path, at_pace(1.5, flags=(CONTENDED,))))

    assert {one.verdict for one in found.speeds} == {Verdict.UNDECIDED}
    assert verdict_of(found).startswith("passed, but undecided: latency_p99_ms, throughput_sps")


def test_other_hardware_compares_answers_and_no_speed(tmp_path: Path) -> None:
    case = measured_case(
        tmp_path, deployment=point(batch_size=4), changed=on_machine(cpu_model="Abacus 9")
    )
    case.export(tmp_path / "d")

    found = verified(tmp_path / "d")

    assert found.speeds == ()
    [reason] = [one for one in found.unchecked if one.startswith("speed: ")]
    assert "measured on other hardware: cpu_model was Abacus 9, is " in reason
    assert found.outputs[0].holds
    assert found.passed


def test_engine_of_another_version_is_not_loaded_but_built_anew(tmp_path: Path) -> None:
    """As after an upgrade: answers are then held against the bound of the precision."""
    case = measured_case(tmp_path, deployment=point(batch_size=4))
    case.export(tmp_path / "d")
    rewritten(
        tmp_path / "d",
        lambda one: one["engine"]["environment"].update(onnxruntime="0.9"),  # type: ignore[index] # a JSON document
    )

    found = verified(tmp_path / "d", sessions=0)

    assert "engine: built from the portable model; another than the measured one" in found.facts
    assert found.outputs[0].bound == 1e-4
    assert found.passed


def test_answers_beyond_the_bound_fail(tmp_path: Path) -> None:
    folder = faked(tmp_path)
    arrays = dict(np.load(folder / "references.npz"))
    arrays["outputs.logits"][3] += 1
    np.savez(folder / "references.npz", **arrays)
    digest = sums_of(folder).split("  references.npz")[0].rpartition("\n")[2]
    rewritten(
        folder,
        lambda one: one["files"]["references.npz"].update(sha256=digest),  # type: ignore[index] # likewise
    )

    found = verified(folder)

    assert list(found.failures()) == ["output logits differs"]
    assert "output logits: differs by " in "\n".join(lines_of(found))
    assert verdict_of(found) == "failed: output logits differs"


def test_data_of_the_report_split_score_exactly_as_they_did(tmp_path: Path) -> None:
    case = measured_case(tmp_path, deployment=point(batch_size=4))
    case.export(tmp_path / "d")
    split = case.bench.dataset.report
    np.savez(tmp_path / "report.npz", inputs=split.arrays[0][1], labels=split.labels)

    found = verified(tmp_path / "d", sessions=0, data=tmp_path / "report.npz")

    assert [(one.metric, one.data) for one in found.scores] == [
        ("accuracy", "the references"),
        ("accuracy", "--data"),
        ("macro_f1", "--data"),
    ]
    for score in found.scores:
        assert (score.difference.low, score.difference.value) == (0.0, 0.0)
        assert score.verdict is Verdict.EQUIVALENT


def test_other_data_are_compared_with_the_chance_of_both(tmp_path: Path) -> None:
    case = measured_case(tmp_path, deployment=point(batch_size=4))
    case.export(tmp_path / "d")
    data = write_data(tmp_path / "mine.npz", count=60)

    found = verified(tmp_path / "d", sessions=0, data=data)

    accuracy = found.scores[1]
    assert accuracy.difference.low is not None
    assert accuracy.difference.low < accuracy.difference.value
    assert accuracy.verdict is Verdict.UNDECIDED


def test_metric_that_is_code_scores_data_and_no_references(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_metric.py").write_text(
        "def score(outputs, labels):\n    return (outputs['logits'].argmax(1) == labels) * 1.0\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    write_space(tmp_path)
    text = (tmp_path / "real.yaml").read_text(encoding="utf-8")
    text = text.replace("kind: classification", "kind: custom\n  metric: my_metric:score")
    (tmp_path / "real.yaml").write_text(text, encoding="utf-8")
    measured_case(tmp_path, space=space_from_yaml(tmp_path / "real.yaml")).export(tmp_path / "d")
    data = write_data(tmp_path / "mine.npz", count=60)

    found = verified(tmp_path / "d", sessions=0, data=data)

    assert found.predictions is None
    assert any("the metric is code" in one for one in found.unchecked)
    assert [(one.metric, one.data) for one in found.scores] == [("score", "--data")]


def test_export_without_references_says_what_it_cannot_check(tmp_path: Path) -> None:
    fake_case(tmp_path).export(tmp_path / "d", samples=0)

    found = verified(tmp_path / "d")

    assert found.unchecked == (
        "outputs: the export has no references",
        "speed: the export has no inputs",
    )
    assert verdict_of(found) == "passed, as far as it could be checked"


@pytest.mark.parametrize("batch", ["batch", 4])
def test_load_takes_its_inputs_from_the_data_where_there_are_no_references(
    tmp_path: Path, batch: str | int
) -> None:
    model = write_model(tmp_path / "net.onnx", batch=batch)
    space = write_space(tmp_path, {"net": model}, batch_sizes="[4]")
    case = measured_case(tmp_path, space=space, deployment=point(batch_size=4))
    case.export(tmp_path / "d", samples=0)

    found = verified(tmp_path / "d", data=write_data(tmp_path / "mine.npz", count=60))

    assert [one.metric for one in found.speeds] == ["latency_p99_ms", "throughput_sps"]


def test_export_verifies_from_any_place_and_is_not_changed_by_it(tmp_path: Path) -> None:
    folder = faked(tmp_path).rename(tmp_path / "elsewhere")
    before = sums_of(folder)

    found = verified(folder)

    assert found.passed
    assert sums_of(folder) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda one: one["files"].pop("engine.json"), "engine.json is not in the manifest"),
        (lambda one: one["engine"].update(sha256="0" * 64), "files.engine.json.sha256 is not"),
        (lambda one: one["files"]["model.json"].update(sha256="0" * 64), "files.model.json.sha"),
        (lambda one: one["files"]["model.json"].update(role="readme"), "names no model"),
        (lambda one: one.update(mine="kept"), "mine: Extra inputs are not permitted"),
    ],
)
def test_manifest_edited_by_hand_is_refused_even_with_new_sums(
    tmp_path: Path, change: Callable[[dict[str, object]], object], words: str
) -> None:
    folder = faked(tmp_path)
    rewritten(folder, change)

    with pytest.raises(BundleError, match=words):
        verified(folder)


def test_truncated_engine_is_found_before_it_is_loaded(tmp_path: Path) -> None:
    folder = faked(tmp_path)
    content = (folder / "engine.json").read_bytes()
    (folder / "engine.json").write_bytes(content[: len(content) // 2])

    with pytest.raises(BundleError, match=r"engine.json is not what SHA256SUMS says"):
        verified(folder)


def test_truncated_engine_with_forged_sums_does_not_load(tmp_path: Path) -> None:
    folder = faked(tmp_path)
    (folder / "engine.json").write_bytes(b"{}")
    digest = sums_of(folder).split("  engine.json")[0].rpartition("\n")[2]

    def forge(one: dict[str, object]) -> None:
        one["files"]["engine.json"].update(sha256=digest)  # type: ignore[index] # likewise
        one["engine"].update(sha256=digest)  # type: ignore[attr-defined] # likewise

    rewritten(folder, forge)

    with pytest.raises(FaultError, match="is no engine of the fake backend"):
        verified(folder)


def test_what_is_no_export_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()

    for name, words in (
        ("absent", "there is no such folder"),
        ("file", "is no folder"),
        ("folder", "has no file SHA256SUMS, so it is no export, or an old one"),
    ):
        with pytest.raises(BundleError, match=words):
            verified(tmp_path / name)


def test_findings_are_one_json_document(tmp_path: Path) -> None:
    found = verified(faked(tmp_path, at_pace(0.8)), sessions=2)

    data = json.loads(json.dumps(data_of(found), allow_nan=False))

    assert data["passed"] is False
    assert data["failures"] == ["latency_p99_ms is worse", "throughput_sps is worse"]
    assert data["speeds"][0].keys() == {"metric", "new", "old", "ratio", "verdict"}
    assert data["outputs"] == [{"output": "logits", "deviation": 0.0, "bound": 0.0, "holds": True}]


def test_output_that_is_no_number_any_more_is_json_all_the_same(tmp_path: Path) -> None:
    found = verified(faked(tmp_path))
    spoilt = Agreement(output="logits", deviation=math.inf, bound=0.1)

    text = json.dumps(data_of(replace(found, outputs=(spoilt,))), allow_nan=False)

    assert json.loads(text)["outputs"] == [
        {"output": "logits", "deviation": None, "bound": 0.1, "holds": False}
    ]


def test_metrics_that_are_compared_are_those_of_objectives_and_constraints(
    tmp_path: Path,
) -> None:
    """Where none of them is a speed, the usual three are."""
    folder = faked(tmp_path)
    rewritten(folder, lambda one: one.update(objectives=[], constraints=[]))

    found = verified(folder)

    assert [one.metric for one in found.speeds] == [
        *("latency_p50_ms", "latency_p99_ms", "throughput_sps")
    ]
