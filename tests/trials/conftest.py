"""Small ONNX models, made when they are needed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper, save_model

Shape = Sequence[int | str]


WriteModel: TypeAlias = Callable[..., Path]


@pytest.fixture
def write_model(tmp_path: Path) -> WriteModel:
    """Write a model of these nodes and return its path."""

    def write(
        nodes: Sequence[NodeProto],
        *,
        inputs: dict[str, Shape],
        outputs: dict[str, Shape],
        weights: dict[str, NDArray[np.generic]] | None = None,
        opset: int = 18,
        domains: Sequence[str] = (),
        dtype: int = TensorProto.FLOAT,
    ) -> Path:
        graph = helper.make_graph(
            list(nodes),
            "test",
            [helper.make_tensor_value_info(name, dtype, each) for name, each in inputs.items()],
            [helper.make_tensor_value_info(name, dtype, each) for name, each in outputs.items()],
            [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
        )
        imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=10)
        path = tmp_path / f"model-{len(list(tmp_path.iterdir()))}.onnx"
        save_model(model, path)
        return path

    return write


@pytest.fixture
def residual_model(write_model: WriteModel) -> Path:
    """A residual block with batch normalization and a classifier; batch is free."""
    return _residual(write_model, "batch")


@pytest.fixture
def fixed_model(write_model: WriteModel) -> Path:
    """The same for a batch of 1, with the Reshape to (1, 8) that exporters write then."""
    return _residual(write_model, 1)


@pytest.fixture
def images() -> Callable[[int], NDArray[np.float32]]:
    """Make that many seeded images for the residual model, shape ``(n, 3, 8, 8)``."""

    def make(count: int) -> NDArray[np.float32]:
        generator = np.random.default_rng(7)
        return np.asarray(generator.standard_normal((count, 3, 8, 8)), np.float32)

    return make


def _residual(write_model: WriteModel, batch: int | str) -> Path:
    generator = np.random.default_rng(0)

    def normal(*shape: int) -> NDArray[np.float32]:
        return np.asarray(generator.standard_normal(shape) / np.sqrt(shape[-1]), np.float32)

    ones = np.ones(8, np.float32)
    flat = np.array([batch if isinstance(batch, int) else -1, 8])
    nodes = [
        helper.make_node("Conv", ["images", "stem"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", "scale", "shift", "mean", "var"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Conv", ["c", "body"], ["d"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c", "d"], ["e"]),
        helper.make_node("Relu", ["e"], ["f"]),
        helper.make_node("GlobalAveragePool", ["f"], ["g"]),
        helper.make_node("Reshape", ["g", "flat"], ["h"]),
        helper.make_node("Gemm", ["h", "head", "bias"], ["logits"]),
    ]
    weights: dict[str, NDArray[np.generic]] = {
        "stem": normal(8, 3, 3, 3),
        "scale": ones,
        "shift": normal(8),
        "mean": normal(8),
        "var": ones * 2,
        "body": normal(8, 8, 3, 3),
        "flat": flat.astype(np.int64),
        "head": normal(8, 5),
        "bias": normal(5),
    }
    return write_model(
        nodes,
        inputs={"images": (batch, 3, 8, 8)},
        outputs={"logits": (batch, 5)},
        weights=weights,
    )


@pytest.fixture
def attention_model(write_model: WriteModel) -> Path:
    """One head of attention over 8 tokens, normalized, and a classifier; batch is free."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> NDArray[np.float32]:
        return np.asarray(random.standard_normal(shape) / np.sqrt(shape[0]), np.float32)

    weights = {name: normal(32, 32) for name in ("to_q", "to_k", "to_v", "to_out")}
    weights |= {"head": normal(32, 4), "gain": np.ones(32, np.float32)}
    shape = {"root": np.array(32**0.5, np.float32), "over": np.array([1])}
    nodes = [
        helper.make_node("LayerNormalization", ["tokens", "gain"], ["n"]),
        *(helper.make_node("MatMul", ["n", f"to_{each}"], [each]) for each in "qkv"),
        helper.make_node("Transpose", ["k"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "turned"], ["raw"]),
        helper.make_node("Div", ["raw", "root"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"]),
        helper.make_node("MatMul", ["shares", "v"], ["seen"]),
        helper.make_node("MatMul", ["seen", "to_out"], ["told"]),
        helper.make_node("Add", ["tokens", "told"], ["sum"]),
        helper.make_node("ReduceMean", ["sum", "over"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "head"], ["logits"]),
    ]
    return write_model(
        nodes,
        inputs={"tokens": ("batch", 8, 32)},
        outputs={"logits": ("batch", 4)},
        weights=weights | shape,
    )
