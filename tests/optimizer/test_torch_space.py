"""A space of backend ``torch``, searched and exported as a user does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from untraced import untraced

pytest.importorskip("torch", reason="needs the extra trifront[torch]")

SHIPPED = Path(__file__).resolve().parents[2] / "search_spaces/shipped/fashion_mnist"
SPACE = f"""
version: 1
name: clothes
backend: torch
task:
  kind: classification
  data:
    calibration: {SHIPPED}/calibration.npz
    search: {SHIPPED}/search.npz
    report: {SHIPPED}/report.npz
  preprocess: {{dtype: float32, scale: 0.00392156862745098}}
variants:
  - name: cnn-w16
    torch:
      factory: search_spaces.shipped.fashion_mnist.nets:cnn_w16
      weights: {SHIPPED}/cnn-w16.safetensors
      input_shape: [1, 28, 28]
axes: {{precision: [fp32, bf16], batch_size: [8, 64], concurrency: [1], threads: [1]}}
measure: {{block_s: 0.02, max_s: 0.3, warmup_s: 0.02, seed: 0}}
"""


def trifront(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(Path(sys.executable).with_name("trifront")), *arguments],
        cwd=folder,
        env=untraced() | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


@pytest.mark.timeout(300)
def test_torch_space_is_searched_and_its_front_exported_and_verified(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE, encoding="utf-8")

    searched = trifront("search", "space.yaml", "--trials", "4", folder=tmp_path)
    exported = trifront("export", "knee", "--to", "bundle", folder=tmp_path)
    refused = trifront("export", "knee", "--format", "onnx", "--to", "no", folder=tmp_path)
    verified = trifront("verify", "bundle", "--sessions", "1", "--json", folder=tmp_path)

    assert searched.returncode == 0, searched.stderr
    assert "all 4 trials are done" in searched.stderr
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "bundle/engine.pt2").is_file()
    assert refused.returncode == 1
    assert "programs of torch.export, not ONNX" in refused.stderr
    [output] = json.loads(verified.stdout)["outputs"]
    assert (output["output"], output["deviation"]) == ("outputs", 0.0)
