"""ONNX files as they come from users: what is in them, what is wrong with them, who they are.

A file is looked at before the search starts, so that whatever cannot work is refused in one line.
It is identified by its content, external data included, never by its name. Giving a free batch
dimension to a file that was exported without one is in ``trials.models.free_batch``.
"""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from trials.backend import TensorSpec
from trials.errors import ModelError
from trials.models.onnx_graph import domains, external_files, nodes, opset, tensors

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

BatchKind: TypeAlias = Literal["free", "fixed"]

# what ONNX Runtime ships beside ONNX's own operators; anything else needs a custom library
_KNOWN_DOMAINS = ("ai.onnx.ml", "com.microsoft")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a model file says of itself.

    Attributes:
        inputs: In the model's order, without those that an initializer fills.
        outputs: In the model's order.
        opset: Version of ONNX's own operators.
        producer: Who wrote the file: name and version, or empty.
        batch: Whether the first dimension of the inputs is free.
        batch_size: That dimension where it is fixed, else None.
        node_count: Operators in all graphs and functions.
        parameter_bytes: Size of all stored tensors.
        domains: Operator domains in use beside ONNX's own; such models run in ONNX Runtime only.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: int
    producer: str
    batch: BatchKind
    batch_size: int | None
    node_count: int
    parameter_bytes: int
    domains: tuple[str, ...]


def read_facts(path: Path) -> ModelFacts:
    """Look into a model file and check that it can be used at all.

    Raises:
        ModelError: It is missing, damaged, invalid, of an opset that the installed ONNX Runtime
            does not know, needs custom operators, or its inputs have no batch dimension.
    """
    model = read_model(path)
    external_files(model, path)
    _check_domains(model, path)
    _check_valid(path)
    _check_opset(model, path)
    stored = {tensor.name for tensor in model.graph.initializer}
    given = [value for value in model.graph.input if value.name not in stored]
    inputs = tuple(_spec(value, path) for value in given)
    batch_size = _batch_size(inputs, path)
    return ModelFacts(
        inputs=inputs,
        outputs=tuple(_spec(value, path, is_input=False) for value in model.graph.output),
        opset=opset(model),
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        batch="free" if batch_size is None else "fixed",
        batch_size=batch_size,
        node_count=sum(1 for _ in nodes(model)),
        parameter_bytes=_parameter_bytes(model),
        domains=domains(model),
    )


def read_model(path: Path) -> "ModelProto":
    """Parse a model file without its external data.

    Raises:
        ModelError: It is missing, not a file, or not ONNX.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # has no types

    try:
        model = onnx.load_model(path, format="protobuf", load_external_data=False)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: there is no such file; check the path") from error
    except IsADirectoryError as error:
        raise ModelError(f"{path}: is a folder; name the .onnx file in it") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    except DecodeError as error:
        raise ModelError(
            f"{path}: is not an ONNX file, or is cut short; export or copy it again"
        ) from error
    if not model.graph.node:
        raise ModelError(f"{path}: holds no operator; is it an ONNX model? export it again")
    return model


def content_digest(path: Path) -> str:
    """Identify a model by its content.

    Returns:
        SHA-256, hexadecimal: of the file alone where it is self-contained, else of the digests of
        the file and of each external file with its name, in the order of names.

    Raises:
        ModelError: The file cannot be read, or its external data is missing or outside its folder.
    """
    external = external_files(read_model(path), path)
    own = _file_digest(path)
    if not external:
        return own
    lines = [own, *(f"{name}\0{_file_digest(file)}" for name, file in external.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_domains(model: "ModelProto", path: Path) -> None:
    custom = [domain for domain in domains(model) if domain not in _KNOWN_DOMAINS]
    if custom:
        name = next(node.op_type for node in nodes(model) if node.domain == custom[0])
        raise ModelError(
            f"{path}: needs the custom operator {custom[0]}::{name}, which only its own library "
            "can run; export the model with ONNX's own operators"
        )


def _check_valid(path: Path) -> None:
    import onnx

    try:
        onnx.checker.check_model(path)
    except onnx.checker.ValidationError as error:
        raise ModelError(
            f"{path}: is not a valid ONNX model ({one_line(str(error))}); export it again"
        ) from error


def _check_opset(model: "ModelProto", path: Path) -> None:
    """Ask the runtime itself, with an operator that every opset has."""
    import onnxruntime
    from onnx import TensorProto, helper
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "probe",
        [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
    )
    probe = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset(model))])
    probe.ir_version = model.ir_version
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # a refusal is an answer here, not an error to print
    try:
        onnxruntime.InferenceSession(
            probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Fail as error:
        raise ModelError(
            f"{path}: opset {opset(model)} (IR version {model.ir_version}) is newer than ONNX "
            f"Runtime {onnxruntime.__version__} knows; export with an older opset, such as 18"
        ) from error


def _batch_size(inputs: tuple[TensorSpec, ...], path: Path) -> int | None:
    """Return the fixed first dimension that all inputs share, or None where all are free."""
    if not inputs:
        raise ModelError(f"{path}: has no inputs; export it with its inputs as graph inputs")
    for one in inputs:
        if not one.shape:
            raise ModelError(
                f"{path}: input {one.name!r} has no batch dimension; export it with inputs of "
                "shape (batch, …)"
            )
    sizes = {one.shape[0] for one in inputs}
    if len(sizes) > 1:
        named = ", ".join(f"{one.name} {one.shape[0] or 'free'}" for one in inputs)
        raise ModelError(
            f"{path}: its inputs disagree about the batch dimension ({named}); export them with "
            "the same first dimension"
        )
    return sizes.pop()


def _spec(value: "ValueInfoProto", path: Path, *, is_input: bool = True) -> TensorSpec:
    from onnx import helper

    kind = "input" if is_input else "output"
    if not value.type.HasField("tensor_type"):
        raise ModelError(
            f"{path}: {kind} {value.name!r} is no tensor; export plain tensors (scikit-learn: "
            "zipmap=False)"
        )
    tensor = value.type.tensor_type
    if is_input and not tensor.HasField("shape"):
        raise ModelError(f"{path}: input {value.name!r} states no shape; export it with shapes")
    dims = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return TensorSpec(name=value.name, dtype=dtype, shape=dims)


def _parameter_bytes(model: "ModelProto") -> int:
    from onnx import helper

    return sum(
        math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        for tensor in tensors(model)
    )


def one_line(text: str) -> str:
    """Shorten foreign error text to its first non-empty line, at most 200 characters."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
    return line if len(line) <= 200 else f"{line[:199]}…"  # noqa: PLR2004 - said above
