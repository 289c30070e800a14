"""Comparing two deployments as a user does: trials, exports and engine files."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_exports import Case, at_pace, fake_case, measured_case
from real_spaces import point, write_model, write_space
from typer.testing import CliRunner

from optimizer.cli import app
from optimizer.comparing.compare import CompareOrder, looked_at
from optimizer.comparing.loops import said_of_loops
from optimizer.errors import OptimizerError, StudyError, UsageError
from optimizer.study.study import Asked
from optimizer.workspace import load_blocks, save_blocks
from search_spaces.files import space_from_yaml
from trials.errors import FaultError
from trials.measurement import Block, DeviceTimes, Stamps
from trials.measuring.comparison import Verdict
from trials.measuring.load import CONTENDED
from trials.measuring.pairing import BlockPair
from trials.measuring.turns import Turns

RUNNER = CliRunner()


@dataclass(frozen=True, kw_only=True)
class Ran:
    """How a command ended."""

    code: int
    out: str

    @property
    def document(self) -> dict[str, object]:
        """What ``--json`` printed."""
        found: dict[str, object] = json.loads(self.out)
        return found

    @property
    def cautions(self) -> list[str]:
        """What was said that it cannot tell."""
        found: list[str] = json.loads(self.out)["cautions"]
        return found

    def scores(self) -> list[dict[str, Any]]:
        """What was said of each score."""
        found: list[dict[str, Any]] = json.loads(self.out)["scores"]
        return found

    def verdicts(self) -> dict[str, str]:
        """By metric, what was decided."""
        found = json.loads(self.out)
        return {one["metric"]: one["verdict"] for one in [*found["speeds"], *found["scores"]]}


def compared(*arguments: object) -> Ran:
    ran = RUNNER.invoke(app, ["compare", *map(str, arguments), "--json"])
    if isinstance(ran.exception, OptimizerError | FaultError):
        raise ran.exception
    return Ran(code=ran.exit_code, out=ran.stdout)


def with_slower_twin(case: Case, *, flags: tuple[str, ...] = ()) -> None:
    """Let the study remember its trial a second time, half as fast."""
    twin = at_pace(2.0, flags=flags)(replace(case.outcome, blocks=load_blocks(case.blocks)))
    record = case.study.tell(_asked_again(case), twin)
    save_blocks(twin.blocks, case.workspace.blocks(record.uid))


def _asked_again(case: Case) -> Asked:
    case.study.study.enqueue_trial(case.study.encoding.params(case.deployment))
    return case.study.ask()


def test_trial_is_equivalent_to_itself(tmp_path: Path) -> None:
    case = fake_case(tmp_path)

    ran = compared(0, 0, "-w", case.workspace.root)

    assert ran.code == 0
    assert set(ran.verdicts().values()) == {"equivalent"}
    assert ran.document["live"] is True
    assert ran.document["pairs"] == 20  # two sessions: the first look decided


def test_stored_blocks_tell_a_slower_trial_and_say_that_they_are_weaker(tmp_path: Path) -> None:
    case = fake_case(tmp_path)
    with_slower_twin(case)

    ran = compared(0, 1, "--stored", "-w", case.workspace.root)

    assert ran.code == 3
    assert set(ran.verdicts().values()) == {"slower"}
    assert "weaker" in str(ran.document["cautions"])


def test_faster_is_no_failure(tmp_path: Path) -> None:
    case = fake_case(tmp_path)
    with_slower_twin(case)

    ran = compared(1, 0, "--stored", "-w", case.workspace.root)

    assert (ran.code, set(ran.verdicts().values())) == (0, {"faster"})


def test_what_others_may_have_done_is_undecided(tmp_path: Path) -> None:
    case = fake_case(tmp_path)
    with_slower_twin(case, flags=(CONTENDED,))

    ran = compared(0, 1, "--stored", "-w", case.workspace.root)

    assert (ran.code, set(ran.verdicts().values())) == (0, {"undecided"})


def test_engine_that_cannot_be_had_again_is_compared_by_its_blocks(tmp_path: Path) -> None:
    case = measured_case(tmp_path, deployment=point())
    write_model(tmp_path / "user" / "net.onnx", seed=9)

    ran = compared(0, 0, "-w", case.workspace.root)

    assert ran.document["live"] is False
    assert "has changed" in str(ran.document["cautions"])


def test_export_is_as_right_as_its_trial_sample_by_sample(tmp_path: Path) -> None:
    case = measured_case(tmp_path, deployment=point(batch_size=4))
    case.export(tmp_path / "d")

    ran = compared(0, tmp_path / "d", "-w", case.workspace.root, "--time", "1s")

    accuracy, brier = ran.scores()
    assert accuracy["paired"]["differing"] == brier["paired"]["differing"] == 0
    assert accuracy["data"] == "the search split"


def test_two_exports_are_asked_the_references(tmp_path: Path) -> None:
    case = measured_case(tmp_path, deployment=point())
    case.export(tmp_path / "d")

    ran = compared(tmp_path / "d", tmp_path / "d", "--time", "1s")

    accuracy, _ = ran.scores()
    assert (accuracy["data"], accuracy["paired"]["samples"]) == ("the references", 24)


def test_ten_times_the_work_is_slower_for_certain(tmp_path: Path) -> None:
    small = write_model(tmp_path / "small.onnx", width=8)
    large = write_model(tmp_path / "large.onnx", width=20_000)

    ran = compared(small, large, "--metrics", "latency_p50_ms", "--option", "threads=1")

    assert (ran.code, ran.verdicts()) == (3, {"latency_p50_ms": "slower"})
    assert "neither side came with labelled samples" in str(ran.document["cautions"])


def session(seed: int, *, slower: float) -> Turns:
    """Make a session of ten pairs in which the new engine takes so many times as long."""
    random = np.random.default_rng(seed)

    def block(factor: float) -> Block:
        latencies_s = 1e-3 * factor * np.exp(0.02 * random.standard_normal(50))
        window_s = float(latencies_s.sum())
        return Block(start_s=0.0, window_s=window_s, latencies_s=latencies_s, batch_size=1)

    pairs = tuple(BlockPair(new=block(slower), old=block(1.0)) for _ in range(10))
    return Turns(pairs=pairs, contended=0, blocks=20, restless=0)


@pytest.mark.parametrize(
    ("paces", "verdict"),
    [
        ((1.3, 1.3), Verdict.WORSE),
        ((1.0, 1.3), Verdict.UNDECIDED),
        ((1.3, 1.3, 1.3, 1.0), Verdict.WORSE),
        ((1.0, 1.0), Verdict.EQUIVALENT),
    ],
)
def test_difference_that_rests_on_one_session_is_undecided(
    paces: tuple[float, ...], verdict: Verdict
) -> None:
    turns = [session(seed, slower=pace) for seed, pace in enumerate(paces)]
    order = CompareOrder(metrics=("latency_p50_ms",), margin=0.02, time_s=1.0)

    (found,) = looked_at(turns, order)

    assert found.verdict is verdict


def test_different_loops_are_said_beside_the_verdicts(tmp_path: Path) -> None:
    """As of TensorRT's engines against torch's: a difference may be that of the loops."""
    case = fake_case(tmp_path)
    record = case.study.tell(_asked_again(case), case.outcome)
    save_blocks(tuple(map(_in_line, load_blocks(case.blocks))), case.workspace.blocks(record.uid))

    ran = compared(0, record.number, "--stored", "-w", case.workspace.root)

    (said,) = [one for one in ran.cautions if "different loops" in one]
    assert "A sends a request when the one before is answered" in said
    assert "B has the next request in line on its device" in said
    assert ran.verdicts() != {}


def test_same_loops_are_not_mentioned(tmp_path: Path) -> None:
    case = fake_case(tmp_path)

    for stored in ([], ["--stored"]):
        ran = compared(0, 0, *stored, "-w", case.workspace.root)
        assert "different loops" not in str(ran.cautions)


def test_open_loop_is_told_from_a_closed_one() -> None:
    closed = session(0, slower=1.0).pairs[0].new
    times_s = closed.latencies_s
    batch = np.ones(times_s.size, np.int32)
    stamps = Stamps(due_s=times_s, start_s=times_s, end_s=times_s, batch=batch)
    opened = replace(closed, stamps=stamps)

    (said,) = said_of_loops([opened], [closed])

    assert "A gets requests as they come" in said
    assert said_of_loops([opened], [opened]) == ()


def _in_line(block: Block) -> Block:
    """Make the same block as of a device, which has the next request in line."""
    times_s = block.latencies_s
    return replace(block, device=DeviceTimes(gpu_s=times_s, enqueue_s=times_s, wall_s=times_s))


def test_table_says_what_a_and_b_are_and_what_it_comes_to(tmp_path: Path) -> None:
    case = fake_case(tmp_path)

    ran = RUNNER.invoke(app, ["compare", "0", "knee", "-w", str(case.workspace.root)])

    assert ran.stdout.startswith("A: trial 0 of study real: variant=small")
    assert "20 pairs of neighbouring blocks in 2 sessions" in ran.stdout
    assert ran.stdout.splitlines()[-1].startswith("B is equivalent in latency_p50_ms")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("nowhere/", "0"), "no such file or folder"),
        (("0", "net.onnx"), "no such file or folder"),
        (("0", "0", "--metrics", "latency_p42_ms"), "no speed"),
        (("0", "0", "--option", "threads"), "no option"),
        (("0", "best:speed"), "no objective"),
    ],
)
def test_names_that_lead_nowhere_are_refused(
    tmp_path: Path, arguments: tuple[str, ...], problem: str
) -> None:
    case = fake_case(tmp_path)

    with pytest.raises(UsageError, match=problem):
        compared(*arguments, "-w", case.workspace.root)


def test_trial_that_is_not_there_is_refused(tmp_path: Path) -> None:
    case = fake_case(tmp_path)

    with pytest.raises(StudyError, match="no ended trial 7"):
        compared(0, 7, "-w", case.workspace.root)


def test_of_an_engine_file_nothing_is_stored(tmp_path: Path) -> None:
    model = write_model(tmp_path / "net.onnx")

    with pytest.raises(UsageError, match="nothing was measured"):
        compared(model, model, "--stored")


def test_file_that_is_no_engine_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello", encoding="utf-8")

    with pytest.raises(FaultError, match="Protobuf parsing failed"):
        compared(tmp_path / "text.onnx", tmp_path / "text.onnx")


def test_space_may_say_which_difference_of_accuracy_matters(tmp_path: Path) -> None:
    space = write_space(tmp_path)
    text = Path(space.source).read_text(encoding="utf-8")
    Path(space.source).write_text(
        text.replace("kind: classification", "kind: classification\n  margin: 0.005"),
        encoding="utf-8",
    )

    assert space.task.margin == 0.01
    assert space_from_yaml(Path(space.source)).task.margin == 0.005
