"""Reproducing a trial from its sources, never from the workspace's store."""

from pathlib import Path

import numpy as np
import pytest
from real_exports import (
    Case,
    at_pace,
    fake_case,
    measured_case,
    on_machine,
    record_in,
    study_of,
)
from real_spaces import bench_in, point, write_model
from search_fakes import SPACE, infeasible, measured

from optimizer.errors import ExportError, StudyError
from optimizer.study.records import TrialRecord
from optimizer.verification.findings import Findings
from optimizer.verification.reproduce import ReproduceOrder, reproduce
from optimizer.workspace import Workspace
from search_spaces.deployment import Precision
from search_spaces.files import space_from_yaml
from trials.errors import InfeasibleError
from trials.measuring.comparison import Verdict


def reproduced(case: Case, *, sessions: int = 1, record: TrialRecord | None = None) -> Findings:
    order = ReproduceOrder(blocks=case.blocks, margin=0.1, sessions=sessions)
    return reproduce(record or case.record, case.study, order, on_step=lambda _: None)


def test_real_trial_is_built_again_bit_by_bit_and_scores_the_same(tmp_path: Path) -> None:
    deployment = point(precision=Precision.INT8, batch_size=4)
    case = measured_case(tmp_path, deployment=deployment)

    found = reproduced(case)

    engine = case.outcome.engine.engine_digest[:12]
    assert f"engine: the same, bit by bit ({engine})" in found.facts
    assert {one.difference.value for one in found.scores} == {0.0}
    assert {one.data for one in found.scores} == {
        "the search split (alike on 80 of 80 samples)",
        "the report split (alike on 80 of 80 samples)",
    }


def test_store_of_the_workspace_is_neither_read_nor_written(tmp_path: Path) -> None:
    case = fake_case(tmp_path)
    for payload in (tmp_path / "store").rglob("payload"):
        payload.chmod(0o600)
        payload.write_bytes(b"wrong")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")}

    found = reproduced(case)

    assert found.passed
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")} == before


@pytest.mark.parametrize(("pace", "verdict"), [(0.8, Verdict.WORSE), (1.0, Verdict.EQUIVALENT)])
def test_speed_is_held_against_the_trials_own_blocks(
    tmp_path: Path, pace: float, verdict: Verdict
) -> None:
    found = reproduced(fake_case(tmp_path, changed=at_pace(pace)), sessions=2)

    assert {one.verdict for one in found.speeds} == {verdict}
    assert found.passed is (verdict is not Verdict.WORSE)


def test_trial_whose_raw_blocks_are_gone_is_compared_without_them(tmp_path: Path) -> None:
    case = fake_case(tmp_path)
    case.blocks.unlink()

    found = reproduced(case)

    assert found.speeds == ()
    assert found.unchecked == ("speed: the trial's raw blocks are not in this workspace",)
    assert found.scores


def test_trial_of_another_machine_is_scored_and_not_timed(tmp_path: Path) -> None:
    case = fake_case(tmp_path, changed=on_machine(cpu_model="Abacus 9"))

    found = reproduced(case)

    assert found.speeds == ()
    assert "measured on other hardware: cpu_model was Abacus 9" in found.unchecked[0]
    assert any(fact.startswith("cpu_model was Abacus 9, is ") for fact in found.facts)


def test_model_that_has_changed_is_refused_by_name(tmp_path: Path) -> None:
    case = measured_case(tmp_path, deployment=point())
    write_model(tmp_path / "user" / "net.onnx", seed=9)

    with pytest.raises(StudyError, match="variant 'net' is no longer what the trial was measured"):
        reproduced(case)


def test_data_that_have_changed_are_refused(tmp_path: Path) -> None:
    case = measured_case(tmp_path, deployment=point())
    arrays = dict(np.load(tmp_path / "user" / "data.npz"))
    arrays["labels"] = np.roll(arrays["labels"], 1)
    np.savez(tmp_path / "user" / "data.npz", **arrays)

    with pytest.raises(StudyError, match=r"data '\w+' is no longer what the trial was measured"):
        reproduced(case)


def test_trial_that_was_not_measured_cannot_be_reproduced(tmp_path: Path) -> None:
    case = fake_case(tmp_path)
    record = record_in(case.study, infeasible)

    with pytest.raises(ExportError, match=f"trial {record.number} is infeasible"):
        reproduced(case, record=record)


def test_deployment_that_no_longer_runs_says_why(tmp_path: Path) -> None:
    """Recorded by a formula; the real engine of this variant never fits a batch of 16."""
    text = SPACE.replace("size_mb: ", "fault: oom, size_mb: ").replace("[1, 2, 4, 8]", "[16]")
    (tmp_path / "tiny.yaml").write_text(text, encoding="utf-8")
    bench = bench_in(tmp_path, space_from_yaml(tmp_path / "tiny.yaml"))
    workspace = Workspace(root=tmp_path / "work")
    study = study_of(bench.space, workspace, facts=bench.facts)
    record = record_in(study, measured)

    with pytest.raises(InfeasibleError, match="was measured, and now: a batch of 16 does not fit"):
        reproduced(Case(study=study, workspace=workspace, bench=bench, record=record))
