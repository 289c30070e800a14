from collections import Counter
from pathlib import Path

import pytest

from search_spaces.errors import SpaceError
from search_spaces.files import space_from_yaml
from search_spaces.space import SearchSpace

SPACE = """
version: 1
name: kept
backend: ort
task:
  kind: classification
  data: {data}
variants:
  - {{name: net, onnx: net.onnx}}
axes:
  precision: {precision}
  keep_layers: {kept}
"""
ONE_FILE = "{path: data.npz, split: {calibration: 0.2, search: 0.4, report: 0.4}}"
WITHOUT_CALIBRATION = "{search: data.npz, report: other.npz}"


def space(folder: Path, *, precision: str, kept: str, data: str = ONE_FILE) -> SearchSpace:
    for name in ("net.onnx", "data.npz", "other.npz"):
        (folder / name).touch()
    text = SPACE.format(precision=precision, kept=kept, data=data)
    (folder / "kept.yaml").write_text(text, encoding="utf-8")
    return space_from_yaml(folder / "kept.yaml")


def test_model_in_fp32_is_tried_once_whatever_is_kept(tmp_path: Path) -> None:
    found = space(tmp_path, precision="[fp32, int8, fp16]", kept="[0, 1, 4]")

    tried = Counter(each.precision.value for each in found.deployments())
    assert tried == {"fp32": 1, "int8": 3, "fp16": 3}


def test_nothing_is_left_out_where_every_precision_lowers(tmp_path: Path) -> None:
    found = space(tmp_path, precision="[int8, int8-dynamic]", kept="[1, 2]")

    assert found.rules == ()
    assert len(list(found.deployments())) == 4


def test_fp32_without_a_place_among_the_kept_layers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"axes\.keep_layers: leaves nothing for fp32.*add 0"):
        space(tmp_path, precision="[fp32, int8]", kept="[2]")


@pytest.mark.parametrize(
    ("precision", "kept", "what"),
    [("[fp8]", "[0]", "fp8"), ("[bf16]", "[0, 2]", "keep_layers"), ("[int8]", "[2]", "static")],
)
def test_what_needs_calibration_is_named_where_there_is_none(
    tmp_path: Path, precision: str, kept: str, what: str
) -> None:
    with pytest.raises(SpaceError, match=f"calibration: is missing, and {what}.* needs it"):
        space(tmp_path, precision=precision, kept=kept, data=WITHOUT_CALIBRATION)


def test_no_kept_layer_needs_no_calibration(tmp_path: Path) -> None:
    found = space(tmp_path, precision="[bf16]", kept="[0]", data=WITHOUT_CALIBRATION)

    assert len(list(found.deployments())) == 1
