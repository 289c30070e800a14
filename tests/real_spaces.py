"""Tiny models, data and spaces for ONNX Runtime, made in milliseconds and searched for real."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, save_model

from search_spaces.deployment import Deployment, Precision
from search_spaces.files import space_from_yaml
from search_spaces.space import SearchSpace
from trials.bench import Bench, open_bench
from trials.store.store import Store

FEATURES, CLASSES = 6, 4
TOKENS = 50
STORE_BYTES = 10**9

_SPACE = """
version: 1
name: real
backend: ort
task:
  kind: classification
  data: {{path: data.npz, split: {{calibration: 0.2, search: 0.4, report: 0.4}}}}
variants:
{variants}
axes:
  precision: [fp32, int8]
  batch_size: {batch_sizes}
  concurrency: [1, 2]
  threads: [1, 2]
measure: {{target_p50: 0.5, target_p99: 0.9, target_throughput: 0.5, block_s: 0.005,
          block_requests: 2, warmup_s: 0, max_s: 0.2, deadline_s: 60}}
"""


def write_model(
    path: Path,
    *,
    seed: int = 0,
    batch: int | str = "batch",
    width: int = 8,
    offset: float = 0.0,
    centred: bool = False,
    dtype: int = TensorProto.FLOAT,
) -> Path:
    """Write a perceptron with one hidden layer.

    Args:
        path: Where to.
        seed: Of its weights.
        batch: The first dimension: a number fixes it, a name leaves it free.
        width: Of the hidden layer.
        offset: Added to the answers; NaN makes them unusable.
        centred: Subtract the mean over the batch, which no other batch size can serve alike.
        dtype: Of the input.
    """
    generator = np.random.default_rng(seed)
    weights = {
        "hidden": np.asarray(generator.standard_normal((FEATURES, width)), np.float32),
        "head": np.asarray(generator.standard_normal((width, CLASSES)), np.float32),
        "offset": np.full(CLASSES, offset, np.float32),
        "axes": np.array([0]),
    }
    last = "raw" if centred else "logits"
    nodes = [
        helper.make_node("Cast", ["samples"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "hidden"], ["h"]),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("MatMul", ["a", "head"], ["b"]),
        helper.make_node("Add", ["b", "offset"], [last]),
    ]
    if centred:
        nodes.append(helper.make_node("ReduceMean", ["raw", "axes"], ["mean"]))
        nodes.append(helper.make_node("Sub", ["raw", "mean"], ["logits"]))
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("samples", dtype, (batch, FEATURES))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (batch, CLASSES))],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    save_model(model, path)
    return path


def write_reader(path: Path) -> Path:
    """Write a model of two inputs of two types: three token ids and some pixels."""
    generator = np.random.default_rng(0)
    weights = {
        "words": np.asarray(generator.standard_normal((TOKENS, 2)), np.float32),
        "look": np.asarray(generator.standard_normal((FEATURES, 6)), np.float32),
        "head": np.asarray(generator.standard_normal((6, CLASSES)), np.float32),
        "flat": np.array([-1, 6]),
    }
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["embedded"]),
        helper.make_node("Reshape", ["embedded", "flat"], ["read"]),
        helper.make_node("MatMul", ["pixels", "look"], ["seen"]),
        helper.make_node("Add", ["read", "seen"], ["both"]),
        helper.make_node("Relu", ["both"], ["active"]),
        helper.make_node("MatMul", ["active", "head"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "reader",
        [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ("batch", 3)),
            helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ("batch", FEATURES)),
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("batch", CLASSES))],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    save_model(model, path)
    return path


def write_pages(path: Path, *, count: int = 200) -> Path:
    """Write what such a model reads: token ids in few bits, pixels in bytes, class labels."""
    generator = np.random.default_rng(3)
    arrays: dict[str, NDArray[Any]] = {
        "inputs.input_ids": generator.integers(TOKENS, size=(count, 3), dtype=np.int32),
        "inputs.pixels": generator.integers(256, size=(count, FEATURES), dtype=np.uint8),
        "labels": generator.integers(CLASSES, size=count),
    }
    np.savez(path, allow_pickle=False, **arrays)
    return path


def samples(count: int = 200, *, seed: int = 1) -> NDArray[np.float32]:
    """Make seeded samples, no two alike, shape ``(count, 6)``."""
    return np.asarray(np.random.default_rng(seed).standard_normal((count, FEATURES)), np.float32)


def write_data(path: Path, *, count: int = 200) -> Path:
    """Write samples and class labels."""
    labels = np.random.default_rng(2).integers(CLASSES, size=count)
    np.savez(path, inputs=samples(count), labels=labels)
    return path


def write_space(
    folder: Path,
    models: Mapping[str, Path] | None = None,
    *,
    batch_sizes: str = "[1, 4]",
    variants: str | None = None,
) -> SearchSpace:
    """Write data, and a space file of these models or of a made one, and read it."""
    write_data(folder / "data.npz")
    if models is None:
        models = {"net": write_model(folder / "net.onnx")}
    named = "\n".join(f"  - {{name: {name}, onnx: {path}}}" for name, path in models.items())
    text = _SPACE.format(variants=variants or named, batch_sizes=batch_sizes)
    (folder / "real.yaml").write_text(text, encoding="utf-8")
    return space_from_yaml(folder / "real.yaml")


def bench_in(folder: Path, space: SearchSpace) -> Bench:
    """Open a space over the store of a folder."""
    return open_bench(space, Store(folder / "store", limit_bytes=STORE_BYTES))


def point(
    variant: str = "net",
    precision: Precision = Precision.FP32,
    *,
    batch_size: int = 1,
    concurrency: int = 1,
    threads: int = 1,
) -> Deployment:
    """Name a deployment of such a space."""
    return Deployment(
        variant=variant,
        precision=precision,
        batch_size=batch_size,
        concurrency=concurrency,
        options=(("threads", threads),),
    )
