"""The notebook of the documentation runs, and what it shows is what it printed."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from untraced import untraced

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
SCRIPT = ROOT / "scripts" / "run_notebook.py"
MOST_BYTES = 200_000  # a reader's browser and our history carry it


def cells(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return found


def run(notebook: Path, to: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), "--notebook", str(notebook), "--to", str(to)],
        capture_output=True,
        text=True,
        timeout=500,
        env=untraced(),
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(600)  # under a minute; several on a machine that others keep busy
def test_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    ran = run(NOTEBOOK, tmp_path / "ran.ipynb")

    assert ran.returncode == 0, ran.stderr
    before, after = cells(NOTEBOOK), cells(tmp_path / "ran.ipynb")
    assert [one["source"] for one in after] == [one["source"] for one in before]
    assert [len(one.get("outputs", ())) for one in after] == [
        len(one.get("outputs", ())) for one in before
    ]


def test_kept_notebook_was_run_in_order_and_is_small() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    code = [one for one in cells(NOTEBOOK) if one["cell_type"] == "code"]

    assert [one["execution_count"] for one in code] == [*range(1, len(code) + 1)]
    assert "image/png" in text
    assert len(text) < MOST_BYTES
    assert tempfile.gettempdir() not in text
    assert '"output_type": "error"' not in text


def test_notebook_whose_cell_fails_is_told_and_not_written(tmp_path: Path) -> None:
    cell: dict[str, Any] = {
        "cell_type": "code",
        "execution_count": None,
        "id": "a",
        "metadata": {},
        "outputs": [],
    }
    wrong = {
        "cells": [cell | {"source": "1 / 0"}],
        "metadata": {},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    (tmp_path / "wrong.ipynb").write_text(json.dumps(wrong), encoding="utf-8")

    ran = run(tmp_path / "wrong.ipynb", tmp_path / "ran.ipynb")

    assert ran.returncode == 1
    assert "ZeroDivisionError" in ran.stderr
    assert not (tmp_path / "ran.ipynb").exists()
