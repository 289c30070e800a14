"""``scripts/gpu-check`` on a machine without a GPU: its smoke form, with as little installed."""

import csv
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from untraced import untraced

pytest.importorskip("torch", reason="needs the extra trifront[torch]")

ROOT = Path(__file__).resolve().parents[1]
ABSENT = (
    "mlflow",
    "onnx",
    "onnxruntime",
    "optuna",
    "psutil",
    "pyarrow",
    "pydantic",
    "safetensors",
    "scipy",
    "yaml",
)
BARE = f"""
import runpy, sys
for name in {ABSENT!r}:
    sys.modules[name] = None  # importing it raises ImportError, as on a bare machine
sys.path.insert(0, {str(ROOT)!r})
sys.argv[0] = "scripts/gpu_check.py"
runpy.run_path({str(ROOT / "scripts/gpu_check.py")!r}, run_name="__main__")
"""


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the smoke form where nothing is installed but numpy and torch."""
    out = tmp_path_factory.mktemp("gpu-check") / "out"
    arguments = ["--smoke", "--device", "cpu", "--out", str(out), "--tensorrt", str(out)]
    ran = subprocess.run(
        [sys.executable, "-P", "-c", BARE, *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        env=untraced(),
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return out


@pytest.mark.timeout(300)
def test_every_part_that_needs_no_gpu_is_done_on_a_bare_machine(checked: Path) -> None:
    report = json.loads((checked / "report.json").read_text(encoding="utf-8"))

    assert set(report["missing"]) <= {"card", "card_after"}
    assert {"versions", "models", "loop_cost", "against_bare", "grid"} <= set(report["found"])
    assert len(report["found"]["grid"]) == 12
    assert all("blocks" in row for row in report["found"]["grid"])


@pytest.mark.timeout(300)
def test_report_says_what_was_not_available_and_why(checked: Path) -> None:
    text = (checked / "report.md").read_text(encoding="utf-8")

    if shutil.which("nvidia-smi") is None:
        assert "**Not available:** card: FileNotFoundError: nvidia-smi is not on the PATH" in text
    assert "12 deployments measured, 0 could not be" in text


@pytest.mark.timeout(300)
def test_tensorrt_is_taken_as_far_as_it_goes_and_its_words_are_kept(checked: Path) -> None:
    report = json.loads((checked / "report.json").read_text(encoding="utf-8"))

    told = report["found"]["tensorrt"]

    names = [step["step"] for step in told["steps"]]
    if importlib.util.find_spec("tensorrt_rtx") is None:
        assert names == ["import tensorrt"]
        assert "No module named 'tensorrt_rtx'" in told["last words"]
    else:
        assert names[-1] in ("deserialize", "run")
        assert told["steps"][-1]["said"]


@pytest.mark.timeout(300)
def test_precisions_are_held_against_fp32(checked: Path) -> None:
    report = json.loads((checked / "report.json").read_text(encoding="utf-8"))

    deviations = {row["precision"]: row["deviation"] for row in report["found"]["grid"]}

    assert deviations["fp32"] < 1e-5 < deviations["fp16"] < deviations["bf16"] < 0.1


@pytest.mark.timeout(300)
def test_what_was_recorded_becomes_a_table_that_is_searched(checked: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-P", str(ROOT / "scripts/gpu_table.py"), str(checked), "--trials", "6"],
        capture_output=True,
        text=True,
        timeout=100,
        env=untraced(),
        check=False,
    )

    with (checked / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert len(rows) == 12
    assert {row["on_front"] for row in rows} >= {"1"}
    assert all(0 < float(row["latency_p50_ms"]) <= float(row["latency_p99_ms"]) for row in rows)
    assert "TPE, 6 trials" in ran.stdout
