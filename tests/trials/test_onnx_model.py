import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from trials.backend import TensorSpec
from trials.errors import ModelError
from trials.models.free_batch import free_batch
from trials.models.onnx_model import content_digest, read_facts

Images = Callable[[int], NDArray[np.float32]]
Write = Callable[..., Path]


def split_model(model: Path, location: str = "weights.bin") -> Path:
    """Save a copy with its weights beside it."""
    out = model.with_name("split.onnx")
    onnx.save_model(
        onnx.load_model(model),
        out,
        save_as_external_data=True,
        location=location,
        size_threshold=256,
    )
    return out


def relocate(model: Path, location: str) -> None:
    """Let a split model name another file."""
    loaded = onnx.load_model(model, load_external_data=False)
    for tensor in loaded.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    model.write_bytes(loaded.SerializeToString())


def test_facts_of_a_free_model(residual_model: Path) -> None:
    facts = read_facts(residual_model)

    assert facts.inputs == (TensorSpec(name="images", dtype="float32", shape=(None, 3, 8, 8)),)
    assert facts.outputs == (TensorSpec(name="logits", dtype="float32", shape=(None, 5)),)
    assert (facts.batch, facts.batch_size, facts.opset) == ("free", None, 18)
    assert (facts.node_count, facts.domains) == (9, ())
    floats = 8 * 3 * 9 + 8 * 8 * 9 + 8 * 5 + 5 + 4 * 8
    assert facts.parameter_bytes == 4 * floats + 2 * 8


def test_facts_of_a_fixed_model(fixed_model: Path) -> None:
    facts = read_facts(fixed_model)

    assert (facts.batch, facts.batch_size) == ("fixed", 1)


def test_facts_do_not_need_the_weights_inside(residual_model: Path) -> None:
    assert read_facts(split_model(residual_model)) == read_facts(residual_model)


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_facts(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_missing_file_is_refused(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "gone.onnx")


def test_folder_is_refused(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04zip", b"not a model", b"\x00" * 100])
def test_file_that_is_not_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)

    assert "ONNX" in refusal(tmp_path / "m.onnx")


@given(share=st.floats(0, 0.999))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_truncated_model_is_refused_wherever_it_is_cut(residual_model: Path, share: float) -> None:
    content = residual_model.read_bytes()
    cut = residual_model.with_name("cut.onnx")
    cut.write_bytes(content[: int(len(content) * share)])

    refusal(cut)


def test_model_that_the_checker_rejects_is_refused(write_model: Write) -> None:
    node = helper.make_node("Relu", ["nowhere"], ["y"])

    path = write_model([node], inputs={"x": ("n", 4)}, outputs={"y": ("n", 4)})

    assert "not a valid ONNX model" in refusal(path)


def test_opset_from_the_future_is_refused(write_model: Write) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])

    path = write_model([node], inputs={"x": ("n",)}, outputs={"y": ("n",)}, opset=99)

    assert "opset 99" in refusal(path)


def test_custom_operator_is_refused(write_model: Write) -> None:
    node = helper.make_node("Foo", ["x"], ["y"], domain="my.ops")

    path = write_model([node], inputs={"x": ("n",)}, outputs={"y": ("n",)}, domains=["my.ops"])

    assert "custom operator my.ops::Foo" in refusal(path)


def test_operators_that_ship_with_the_runtime_are_named_not_refused(write_model: Write) -> None:
    node = helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")

    path = write_model(
        [node], inputs={"x": ("n",)}, outputs={"y": ("n",)}, domains=["com.microsoft"]
    )

    assert read_facts(path).domains == ("com.microsoft",)


def test_model_without_inputs_is_refused(write_model: Write) -> None:
    path = write_model(
        [helper.make_node("Relu", ["w"], ["y"])],
        inputs={},
        outputs={"y": (4,)},
        weights={"w": np.ones(4, np.float32)},
    )

    assert "has no inputs" in refusal(path)


def test_scalar_input_is_refused(write_model: Write) -> None:
    path = write_model(
        [helper.make_node("Relu", ["x"], ["y"])], inputs={"x": ()}, outputs={"y": ()}
    )

    assert "no batch dimension" in refusal(path)


@pytest.mark.parametrize("other", [(2, 4), ("batch", 4)])
def test_inputs_that_disagree_about_the_batch_are_refused(
    write_model: Write, other: tuple[int | str, int]
) -> None:
    path = write_model(
        [helper.make_node("Add", ["x", "z"], ["y"])],
        inputs={"x": (1, 4), "z": other},
        outputs={"y": ("n", 4)},
    )

    assert "disagree about the batch" in refusal(path)


def test_digest_of_a_self_contained_file_is_its_sha256(residual_model: Path) -> None:
    expected = hashlib.sha256(residual_model.read_bytes()).hexdigest()

    assert content_digest(residual_model) == expected


def test_digest_covers_external_data(residual_model: Path) -> None:
    split = split_model(residual_model)
    before = content_digest(split)

    weights = split.with_name("weights.bin")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")

    assert content_digest(split) != before


def test_digest_does_not_depend_on_where_the_model_lies(
    residual_model: Path, tmp_path: Path
) -> None:
    split = split_model(residual_model)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for file in (split, split.with_name("weights.bin")):
        (moved / file.name).write_bytes(file.read_bytes())
    (moved / split.name).rename(moved / "renamed.onnx")

    assert content_digest(moved / "renamed.onnx") == content_digest(split)


@pytest.mark.parametrize("location", ["../outside.bin", "/outside.bin", "link.bin"])
def test_external_data_outside_the_folder_is_refused(
    residual_model: Path, tmp_path: Path, location: str
) -> None:
    split = split_model(residual_model)
    outside = tmp_path.parent / f"{tmp_path.name}-outside.bin"
    outside.write_bytes(b"secret")
    (tmp_path / "link.bin").symlink_to(outside)
    relocate(split, location)

    for look in (read_facts, content_digest):
        with pytest.raises(ModelError, match="outside the model's folder"):
            look(split)


def test_missing_external_data_is_refused(residual_model: Path) -> None:
    split = split_model(residual_model)
    split.with_name("weights.bin").unlink()

    assert "'weights.bin' is missing" in refusal(split)


def test_freed_model_answers_every_batch_as_the_original_answers_samples(
    fixed_model: Path, images: Images, tmp_path: Path
) -> None:
    free_batch(fixed_model, tmp_path / "free.onnx")

    original = onnxruntime.InferenceSession(fixed_model, providers=["CPUExecutionProvider"])
    freed = onnxruntime.InferenceSession(
        tmp_path / "free.onnx", providers=["CPUExecutionProvider"]
    )
    one_by_one = [original.run(None, {"images": each[None]})[0][0] for each in images(5)]
    together = freed.run(None, {"images": images(5)})[0]
    np.testing.assert_allclose(together, np.stack(one_by_one), atol=1e-5)
    assert read_facts(tmp_path / "free.onnx").batch == "free"


def test_freed_model_is_self_contained(fixed_model: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()

    free_batch(split_model(fixed_model), tmp_path / "made" / "free.onnx")

    assert [path.name for path in (tmp_path / "made").iterdir()] == ["free.onnx"]
    assert read_facts(tmp_path / "made" / "free.onnx").batch == "free"


def test_batch_larger_than_one_can_be_freed(write_model: Write, tmp_path: Path) -> None:
    path = write_model(
        [helper.make_node("Softmax", ["x"], ["y"], axis=1)],
        inputs={"x": (4, 6)},
        outputs={"y": (4, 6)},
    )

    free_batch(path, tmp_path / "free.onnx")

    assert read_facts(tmp_path / "free.onnx").inputs[0].shape == (None, 6)


def unsafe(write_model: Write, node: onnx.NodeProto, batch: int, **weights: object) -> Path:
    return write_model(
        [node],
        inputs={"x": (batch, 4)},
        outputs={"y": (batch, 4)},
        weights=weights,
    )


def test_model_that_mixes_samples_cannot_be_freed(write_model: Write, tmp_path: Path) -> None:
    path = unsafe(write_model, helper.make_node("Softmax", ["x"], ["y"], axis=0), batch=1)

    with pytest.raises(ModelError, match=r"cannot be freed .*differs.*export it with a free"):
        free_batch(path, tmp_path / "free.onnx")

    assert not (tmp_path / "free.onnx").exists()


def test_model_with_constants_of_the_batchs_size_cannot_be_freed(
    write_model: Write, tmp_path: Path
) -> None:
    node = helper.make_node("Add", ["x", "w"], ["y"])
    path = unsafe(write_model, node, batch=4, w=np.arange(16, dtype=np.float32).reshape(4, 4))

    with pytest.raises(ModelError, match="its batch of 4 cannot be freed"):
        free_batch(path, tmp_path / "free.onnx")


def test_free_model_needs_no_mending(residual_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="free already"):
        free_batch(residual_model, tmp_path / "free.onnx")


def test_indices_can_be_freed(write_model: Write, tmp_path: Path) -> None:
    path = write_model(
        [
            helper.make_node("Unsqueeze", ["x", "axis"], ["u"]),
            helper.make_node("Squeeze", ["u", "axis"], ["y"]),
        ],
        inputs={"x": (1, 3)},
        outputs={"y": (1, 3)},
        weights={"axis": np.array([1], np.int64)},
        dtype=TensorProto.INT64,
    )

    free_batch(path, tmp_path / "free.onnx")

    assert read_facts(tmp_path / "free.onnx").inputs[0].dtype == "int64"
