"""Trials under an open load, from the search to what is made of them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from optimizer.cli import app

RUNNER = CliRunner()
SPACE = """
version: 1
name: users
backend: fake
task: {kind: classification}
variants:
  - {name: small, fake: {work_ms: 0.5, accuracy: 0.80, size_mb: 1}}
  - {name: large, fake: {work_ms: 1.0, accuracy: 0.95, size_mb: 9}}
axes: {precision: [fp32], batch_size: [2], concurrency: [1], load: [open], rate_rps: [100]}
measure: {max_s: 4, block_s: 0.1, deadline_s: 60}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("users")
    (folder / "users.yaml").write_text(SPACE)
    arguments = ["search", str(folder / "users.yaml"), "--trials", "2", "--sampler", "grid"]
    ran = RUNNER.invoke(app, [*arguments, "--mlflow", "none", "-w", str(folder / "trifront")])
    assert ran.exit_code == 0, ran.output
    return folder / "trifront"


def trifront(place: Path, *arguments: str) -> Result:
    return RUNNER.invoke(app, [*arguments, "-w", str(place)])


def test_throughput_is_the_rate_that_was_given(place: Path) -> None:
    shown = json.loads(trifront(place, "show", "0", "--json").stdout)

    assert shown["metrics"]["throughput_sps"] == {"value": 100.0, "low": 100.0, "high": 100.0}


def test_arrivals_that_happened_to_differ_tie_nobody(place: Path) -> None:
    """Both are offered as much: the faster and the more accurate are on the front for certain."""
    front = json.loads(trifront(place, "front", "--json").stdout)

    assert [one["probability_on_front"] for one in front["front"]] == [1.0, 1.0]


@pytest.mark.parametrize("trial", ["0", "1"])
def test_numbers_are_computed_again_to_the_last_digit(place: Path, trial: str) -> None:
    ran = trifront(place, "recompute", trial)

    assert ran.exit_code == 0, ran.output


def test_open_loads_are_compared_by_what_was_measured(place: Path) -> None:
    ran = trifront(place, "compare", "0", "1", "--metrics", "latency_p50_ms")

    assert "an open load is not measured in turns" in ran.stdout
    assert ran.exit_code in (0, 3)


def test_open_load_is_not_held_against_a_closed_one(place: Path, tmp_path: Path) -> None:
    (tmp_path / "engine.onnx").touch()

    ran = trifront(place, "compare", "0", str(tmp_path / "engine.onnx"))

    assert "two questions" in str(ran.exception)


def test_bundle_carries_the_trace_that_it_was_measured_with(tmp_path: Path) -> None:
    """Elsewhere the path of the space file leads nowhere."""
    trace = tmp_path / "peak.csv"
    trace.write_text("\n".join(str(0.01 * number**1.1) for number in range(200)))
    traced = SPACE.replace("max_s: 4", f"max_s: 1, arrivals: {{kind: trace, path: {trace}}}")
    (tmp_path / "users.yaml").write_text(traced)
    place = tmp_path / "trifront"
    search = ("search", str(tmp_path / "users.yaml"), "--trials", "1", "--sampler", "grid")
    assert trifront(place, *search, "--mlflow", "none").exit_code == 0
    exported = trifront(place, "export", "0", "--to", str(tmp_path / "deploy"))
    content = trace.read_bytes()
    trace.unlink()

    verify = ("verify", str(tmp_path / "deploy"), "--sessions", "2", "--json")
    verified = RUNNER.invoke(app, verify)

    assert exported.exit_code == 0, exported.output
    assert (tmp_path / "deploy" / "arrivals.csv").read_bytes() == content
    assert verified.exit_code in (0, 3), verified.output  # the machine's speed is not the matter
    found = json.loads(verified.stdout)
    assert {one["metric"] for one in found["speeds"]} >= {"latency_p99_ms"}


def test_trace_that_has_changed_since_is_not_exported_as_the_measured_one(
    tmp_path: Path,
) -> None:
    trace = tmp_path / "peak.csv"
    trace.write_text("\n".join(str(0.01 * number) for number in range(200)))
    traced = SPACE.replace("max_s: 4", f"max_s: 1, arrivals: {{kind: trace, path: {trace}}}")
    (tmp_path / "users.yaml").write_text(traced)
    place = tmp_path / "trifront"
    search = ("search", str(tmp_path / "users.yaml"), "--trials", "1", "--sampler", "grid")
    assert trifront(place, *search, "--mlflow", "none").exit_code == 0
    trace.write_text("\n".join(str(0.02 * number) for number in range(200)))

    ran = trifront(place, "export", "0", "--to", str(tmp_path / "deploy"))

    assert ran.exit_code == 1
    assert "the trace has changed since the search began" in str(ran.exception)
    assert not (tmp_path / "deploy").exists()
