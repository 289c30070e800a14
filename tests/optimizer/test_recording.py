"""``trifront record`` and ``trifront replay``, as their users have them."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from in_process import Ran, trifront
from replay_fakes import TABLE

from optimizer.errors import TableError
from optimizer.replaying.of_study import table_of_study
from optimizer.replaying.record import check_measured
from optimizer.replaying.table import STATES, DeploymentTable
from optimizer.replaying.table_file import save_table, table_from_parquet
from optimizer.wiring import place_at, study_at

SPACE = """
version: 1
name: pair
backend: fake
task: {kind: classification}
variants:
  - {name: sound, fake: {work_ms: 0.1, accuracy: 0.80, size_mb: 1}}
  - {name: greedy, fake: {work_ms: 1.0, accuracy: 0.95, size_mb: 9, fault: oom}}
axes: {precision: [fp32], batch_size: [1, 16], concurrency: [1, 2]}
"""
COUNT = 8


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A space that was recorded in two sessions: three deployments, then all others."""

    folder: Path
    part: DeploymentTable
    complaint: str
    ran: Ran

    @property
    def path(self) -> Path:
        return self.folder / "pair.parquet"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "pair.yaml").write_text(SPACE, encoding="utf-8")
    space, at = str(folder / "pair.yaml"), ("-w", str(folder / "trifront"))
    begin = ("search", space, "-n", "3", "-s", "pair-grid", "--sampler", "random")
    command = [sys.executable, "-c", "from optimizer.cli import main; main()"]
    subprocess.run(
        [*command, *begin, "--mlflow", "none", *at], check=True, capture_output=True, timeout=100
    )
    place = place_at(folder / "trifront", None)
    study = study_at(place, "pair-grid")
    part = table_of_study(study, place.workspace)
    with pytest.raises(TableError) as caught:
        check_measured(study)
    ran = trifront("record", space, "--out", str(folder / "pair.parquet"), *at)
    return Recorded(folder=folder, part=part, complaint=str(caught.value), ran=ran)


def test_interrupted_recording_says_how_far_it_came_and_can_be_written(recorded: Recorded) -> None:
    assert recorded.complaint.startswith("3 of 8 deployments are measured")
    assert len(recorded.part) == 3


def test_recording_goes_on_where_it_was(recorded: Recorded) -> None:
    assert recorded.ran.code == 0, recorded.ran.err
    assert recorded.ran.out.startswith(f"{recorded.path}: 8 deployments (6 completed, 2 infeasib")
    first = {str(recorded.part.deployment(row)) for row in range(3)}
    table = table_from_parquet(recorded.path)
    assert first < {str(table.deployment(row)) for row in range(COUNT)}


def test_table_says_what_came_of_every_deployment(recorded: Recorded) -> None:
    table = table_from_parquet(recorded.path)

    assert [table.deployment(row) for row in range(COUNT)] == list(table.space.deployments())
    for row in range(COUNT):
        deployment = table.deployment(row)
        fits = deployment.variant == "sound" or deployment.batch_size == 1
        assert STATES[table.states[row]] == ("completed" if fits else "infeasible")
        assert ("does not fit" in table.reasons[row]) == (not fits)
    assert {"latency_p99_ms", "throughput_sps", "accuracy", "peak_memory_mb"} <= set(
        table.metrics.names
    )
    assert (table.metrics.lows <= table.metrics.highs)[table.completed].all()


def test_table_knows_every_price_and_where_it_comes_from(recorded: Recorded) -> None:
    table = table_from_parquet(recorded.path)

    assert table.engine_names == ("greedy fp32", "sound fp32")
    assert (table.prices.convert_s > 0).all()
    assert (table.prices.engine_s > 0).all()
    assert (table.prices.own_s > 0).all()
    assert (table.prices.measure_s > 0)[table.completed].all()
    assert table.origin.study == "pair-grid"
    assert table.origin.space_file == SPACE
    assert len(table.origin.identity) == 12
    assert dict(table.origin.digests).keys() >= {"variant:sound", "variant:greedy"}
    assert table.origin.environment


def test_recording_again_measures_nothing_and_writes_the_same(recorded: Recorded) -> None:
    again = recorded.folder / "again.parquet"
    space, at = str(recorded.folder / "pair.yaml"), str(recorded.folder / "trifront")

    ran = trifront("record", space, "--out", str(again), "-w", at)

    assert ran.code == 0
    assert "all 8 trials are done" in ran.err
    one, other = map(table_from_parquet, (recorded.path, again))
    assert np.array_equal(one.metrics.values, other.metrics.values, equal_nan=True)
    assert one.total_s == other.total_s


def test_recorded_table_is_raced_on(recorded: Recorded) -> None:
    picture = recorded.folder / "race.png"
    options = ("--sampler", "random,grid", "--seeds", "2", "--json", "--plot", str(picture))

    ran = trifront("replay", str(recorded.path), *options)

    document = json.loads(ran.out)
    grid = document["contestants"][1]
    assert grid["prices_s"]["0.99"]["reached"] == 2
    assert grid["ended_s"]["median"] == pytest.approx(document["total_s"])
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_race_is_printed_for_people(recorded: Recorded) -> None:
    ran = trifront(
        *("replay", str(recorded.path), "--sampler", "random:20", "--seeds", "2"),
        *("--constraint", "accuracy >= 0.5", "--noise", "0.05", "--until", "99%"),
    )

    assert ran.code == 0, ran.err
    assert "'pair': 8 deployments, 2 engines, 6 feasible" in ran.out
    assert "bounds: accuracy >= 0.5" in ran.out
    assert "front found [%]" in ran.out


def test_part_of_a_space_is_not_raced_on(recorded: Recorded) -> None:
    path = recorded.folder / "part.parquet"
    save_table(recorded.part, path)

    ran = trifront("replay", str(path), "--sampler", "random")

    assert ran.code == 1
    assert "has 3 of the 8 deployments of its space" in ran.err


@pytest.fixture
def table(tmp_path: Path) -> Path:
    save_table(replace(TABLE, origin=TABLE.origin), tmp_path / "table.parquet")
    return tmp_path / "table.parquet"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--sampler", "tpee"), "there is no contestant 'tpee'; did you mean 'tpe'"),
        (("--sampler", "tpe:x"), "'x' is no number of trials"),
        (("--constraint", "accuracy"), "is no bound"),
        (("--constraint", "energy_per_sample_mj <= 3"), "has no energy_per_sample_mj"),
    ],
)
def test_wrong_order_is_refused_in_one_line(
    options: tuple[str, ...], complaint: str, table: Path
) -> None:
    ran = trifront("replay", str(table), *options)

    assert (ran.code, ran.out) == (1, "")
    first, *hints = ran.err.splitlines()
    assert first.startswith("trifront: ")
    assert complaint in first
    assert len(hints) <= 1


def test_table_that_cannot_be_written_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    out, place = tmp_path / "nowhere" / "fake.parquet", tmp_path / "trifront"

    ran = trifront("record", "fake", "--out", str(out), "-w", str(place))

    assert ran.code == 1
    assert f"cannot write {out}" in ran.err
    assert "choose another --out" in ran.err
    assert not place.exists()


def test_program_generates_a_table(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "scripts" / "generate_table.py"
    path = tmp_path / "made.parquet"
    sizes = ("--variants", "2", "--precisions", "2", "--builds", "1", "--batches", "2")

    ran = subprocess.run(
        [sys.executable, str(script), "--out", str(path), *sizes, "--seed", "5"],
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
        env={"PYTHONPATH": str(script.parents[1]), "PATH": "/usr/bin:/bin"},
    )

    assert ran.stdout.startswith(f"{path}: 144 deployments")
    assert table_from_parquet(path).origin.study == "generated-5"
