"""Give a model that was exported with a fixed batch a free one where that changes nothing.

Only what an exporter writes by default is mended: the first dimension of inputs and outputs, and
the constant shapes of Reshape operators. Whether that was enough is not argued but tried: the
mended copy must answer batches of 1, 2 and 3 samples as the original answers each sample alone.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trials.backend import Tensors, TensorSpec
from trials.errors import ModelError
from trials.models.onnx_graph import external_files
from trials.models.onnx_model import one_line, read_facts, read_model

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

_BATCHES = (1, 2, 3)
_FREE_SIZE = 32  # tried for free dimensions other than the batch
_TOLERANCE = 1e-3  # kernels sum in another order at another batch size; a wrong batch is far off


def free_batch(path: Path, out: Path) -> None:
    """Write a self-contained copy of a fixed-batch model with a free batch dimension.

    Raises:
        ModelError: The model cannot be used, its batch is free already, or the copy would answer
            otherwise than the original; nothing is written then.
    """
    import onnx

    facts = read_facts(path)
    if facts.batch_size is None:
        raise ModelError(f"{path}: its batch dimension is free already; use it as it is")
    model = read_model(path)
    external_files(model, path)
    onnx.load_external_data_for_model(model, str(path.parent))
    _free_dimensions(model, facts.batch_size)
    _free_reshapes(model, facts.batch_size)
    with TemporaryDirectory(dir=out.parent, prefix=".free-batch-") as folder:
        mended = Path(folder) / "model.onnx"
        onnx.save_model(model, mended)
        problem = _difference(path, mended, facts.inputs)
        if problem is not None:
            raise ModelError(
                f"{path}: its batch of {facts.batch_size} cannot be freed ({problem}); export it "
                "with a free first dimension (torch.onnx.export: dynamic_shapes)"
            )
        mended.replace(out)


def _free_dimensions(model: "ModelProto", batch_size: int) -> None:
    stored = {tensor.name for tensor in model.graph.initializer}
    given = [value for value in model.graph.input if value.name not in stored]
    for value in (*given, *model.graph.output):
        shape = value.type.tensor_type.shape
        if shape.dim and shape.dim[0].dim_value == batch_size:
            shape.dim[0].dim_param = "batch"  # clears the number: they share a oneof
    del model.graph.value_info[:]  # shapes inferred for the old batch


def _free_reshapes(model: "ModelProto", batch_size: int) -> None:
    """Let Reshapes to a constant (batch, …) take the batch from their input."""
    from onnx import numpy_helper

    shapes = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    for name, tensor in _constants(model):
        if name not in shapes:
            continue
        dims = numpy_helper.to_array(tensor).copy()
        if dims.size and dims[0] == batch_size:
            dims[0] = 0 if (dims[1:] == -1).any() else -1  # 0 copies the input's own dimension
            tensor.CopyFrom(numpy_helper.from_array(dims, tensor.name))


def _constants(model: "ModelProto") -> Iterator[tuple[str, "TensorProto"]]:
    for tensor in model.graph.initializer:
        yield tensor.name, tensor
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.HasField("t"):
                yield node.output[0], attribute.t


def _difference(original: Path, mended: Path, inputs: tuple[TensorSpec, ...]) -> str | None:
    """Say how the two models differ on seeded random samples; None where they do not."""
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    foreign = (errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.RuntimeException)
    try:
        reference, copy = _session(original), _session(mended)
        for size in _BATCHES:
            samples = _samples(inputs, size)
            expected = _one_by_one(reference, samples, inputs)
            for name, left, right in zip(
                (one.name for one in copy.get_outputs()),
                expected,
                copy.run(None, samples),
                strict=True,
            ):
                if left.shape != right.shape:
                    return f"output {name!r} of {size} samples has shape {right.shape}"
                if not np.allclose(left, right, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True):
                    return f"output {name!r} of {size} samples differs from one by one"
    except foreign as error:
        return one_line(str(error))
    return None


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # a refusal is an answer here, not an error to print
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _one_by_one(
    session: Any, samples: Tensors, inputs: tuple[TensorSpec, ...]
) -> list[NDArray[Any]]:
    """Answer each sample alone, in a batch filled with copies of it; stack the first rows."""
    count = len(samples[inputs[0].name])
    rows = []
    for index in range(count):
        feeds = {
            one.name: np.repeat(samples[one.name][index : index + 1], one.shape[0] or 1, axis=0)
            for one in inputs
        }
        rows.append([output[:1] for output in session.run(None, feeds)])
    return [np.concatenate(column) for column in zip(*rows, strict=True)]


def _samples(inputs: tuple[TensorSpec, ...], size: int) -> Tensors:
    generator = np.random.default_rng(size)
    samples: dict[str, NDArray[Any]] = {}
    for one in inputs:
        shape = (size, *(dim or _FREE_SIZE for dim in one.shape[1:]))
        dtype = np.dtype(one.dtype)
        if dtype.kind == "f":
            samples[one.name] = generator.standard_normal(shape).astype(dtype)
        else:  # indices and flags: 0 and 1 are valid wherever something is indexed
            samples[one.name] = generator.integers(0, 2, shape).astype(dtype)
    return samples
