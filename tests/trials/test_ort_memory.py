"""Memory of serving on ONNX Runtime: what counts, what does not, and what is left behind."""

import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from search_spaces.deployment import Deployment, Precision
from trials.backend import EngineSpec, Tensors
from trials.backends.ort import OrtBackend
from trials.backends.ort_memory import Rehearsal, bring_up, rehearse
from trials.errors import DeadlineError, FaultError, UnsupportedError
from trials.measuring.memory import is_told

_MB = 1_000_000
_POINT = Deployment(variant="v", precision=Precision.FP32, batch_size=1, concurrency=1)

pytestmark = pytest.mark.skipif(not is_told(), reason="this kernel does not tell")


def built(model: Path) -> Path:
    spec = EngineSpec(
        backend="ort",
        model_digest="0" * 64,
        precision=Precision.FP32,
        batch_size=None,
        options=(),
        environment=(),
    )
    OrtBackend().build(model, spec, model.with_name("plan"))
    return model.with_name("plan")


def needed_bytes(
    plan: Path, batch: Tensors, *, concurrency: int = 1, deadline_s: float = 60
) -> int:
    point = replace(_POINT, concurrency=concurrency)
    told = OrtBackend().peak_memory(plan, point, batch, deadline_s=deadline_s)
    assert told is not None
    return told


def widening(write_model: Callable[..., Path], columns: int, *, opset: int = 18) -> Path:
    """Write a model that works on ``columns`` floats and answers one."""
    weights = {
        "wide": np.ones((1, columns), np.float32),
        "back": np.ones((columns, 1), np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "wide"], ["a"]),
        helper.make_node("Tanh", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "back"], ["y"]),
    ]
    shapes = {"inputs": {"x": ("batch", 1)}, "outputs": {"y": ("batch", 1)}}
    return write_model(nodes, **shapes, weights=weights, opset=opset)


ROW = {"x": np.ones((1, 1), np.float32)}


def test_every_request_in_flight_counts_with_all_that_it_works_on(
    write_model: Callable[..., Path],
) -> None:
    """A wide row of 4 MB each, which ONNX Runtime never gives back."""
    plan = built(widening(write_model, 1_000_000))

    needs = [needed_bytes(plan, ROW, concurrency=concurrency) for concurrency in (1, 2, 4)]

    assert needs[1] - needs[0] == pytest.approx(4 * _MB, rel=0.05)
    assert needs[2] - needs[1] == pytest.approx(8 * _MB, rel=0.05)


def test_weights_count(write_model: Callable[..., Path]) -> None:
    few, many = (
        needed_bytes(built(widening(write_model, columns)), ROW) for columns in (1_000, 1_000_000)
    )

    assert many - few > 2 * 4 * _MB


def test_inputs_of_each_request_count(write_model: Callable[..., Path]) -> None:
    node = helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=1)
    model = write_model(
        [node],
        inputs={"x": ("batch", "length")},
        outputs={"y": ("batch", 1)},
        weights={"axes": np.array([1])},
    )
    batch = {"x": np.ones((1, 1_000_000), np.float32)}

    one, three = (needed_bytes(built(model), batch, concurrency=count) for count in (1, 3))

    assert three - one == pytest.approx(8 * _MB, rel=0.05)


@pytest.mark.parametrize("opset", [7, 8, 9, 13, 21])
def test_requests_are_held_in_flight_in_models_of_any_opset(
    write_model: Callable[..., Path], opset: int
) -> None:
    plan = built(widening(write_model, 100_000, opset=opset))

    one, two = (needed_bytes(plan, ROW, concurrency=count) for count in (1, 2))

    assert two - one > 400_000


def test_outputs_whose_shape_depends_on_the_data_are_served(
    write_model: Callable[..., Path],
) -> None:
    model = write_model(
        [helper.make_node("NonZero", ["x"], ["y"])],
        inputs={"x": ("batch", 4)},
        outputs={"y": (2, "found")},
        dtype=TensorProto.INT64,
    )

    needed = needed_bytes(built(model), {"x": np.arange(8).reshape(2, 4)}, concurrency=3)

    assert 0 < needed < _MB


def test_request_that_cannot_be_held_is_a_fault_and_no_number(
    write_model: Callable[..., Path], tmp_path: Path
) -> None:
    """As if ONNX Runtime did not warn: here the output has the shape that it declares."""
    model = write_model(
        [helper.make_node("Identity", ["x"], ["trifront.pause"])],
        inputs={"x": ("batch", 1)},
        outputs={"trifront.pause": ("batch", 1)},
    )
    np.save(tmp_path / "x.npy", ROW["x"])

    with pytest.raises(FaultError, match="did not warn of an output's shape"):
        rehearse(Rehearsal(plan=model, deployment=_POINT, inputs=(("x", tmp_path / "x.npy"),)))


def test_runtime_is_brought_up_without_leaving_a_thread() -> None:
    before = threading.active_count()

    bring_up()

    assert threading.active_count() == before


def test_batch_that_the_engine_does_not_take_is_unsupported(fixed_model: Path) -> None:
    with pytest.raises(UnsupportedError, match="does not take inputs of this shape"):
        needed_bytes(built(fixed_model), {"images": np.ones((2, 3, 8, 8), np.float32)})


def test_nothing_is_left_in_the_temporary_folder(
    residual_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))

    needed_bytes(built(residual_model), {"images": np.ones((2, 3, 8, 8), np.float32)})

    assert not list(folder.iterdir())


def test_no_room_for_temporary_files_is_a_fault_that_says_where(
    residual_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = built(residual_model)
    monkeypatch.setattr(tempfile, "tempdir", "/proc")  # nobody can write there

    with pytest.raises(FaultError, match=r"cannot be rehearsed in /proc: .*TMPDIR"):
        needed_bytes(plan, {"images": np.ones((2, 3, 8, 8), np.float32)})


def test_rehearsal_past_its_deadline_is_a_fault(residual_model: Path) -> None:
    with pytest.raises(DeadlineError, match="fresh process"):
        needed_bytes(
            built(residual_model), {"images": np.ones((2, 3, 8, 8), np.float32)}, deadline_s=0
        )
