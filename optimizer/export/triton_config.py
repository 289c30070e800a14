"""``config.pbtxt``: a model as Triton Inference Server is told of it. Pure text.

The fields are those of Triton's ``model_config.proto``. What stands in them comes from the
deployment: its batch size is the largest batch, its concurrency the number of instances.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from trials.backend import TensorSpec

_TYPES = {
    "bool": "TYPE_BOOL",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "int8": "TYPE_INT8",
    "uint16": "TYPE_UINT16",
    "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64",
    "uint8": "TYPE_UINT8",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonModel:
    """What Triton is told.

    Attributes:
        name: Also that of the folder; the server refuses a model whose folder is named otherwise.
        batch_size: Samples in the largest batch, >= 1.
        queue_delay_us: How long a request may wait for others to share a batch, microseconds; None
            where requests are not to share one.
        preferred: Sizes of batches that leave at once, ascending.
        instances: Requests that are run at once, >= 1.
        on_gpu: Where the instances run.
        labels: Name of the file with the class names of the first output, if there is one.
        graph_level: Triton's number for ONNX Runtime's graph optimization; None for its default.
        parameters: (key, value) for the backend.
    """

    name: str
    backend: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch_size: int
    queue_delay_us: int | None
    preferred: tuple[int, ...]
    instances: int
    on_gpu: bool
    labels: str | None
    graph_level: int | None
    parameters: tuple[tuple[str, str], ...]

    @property
    def batches(self) -> bool:
        """Tell whether the batch is free, so that the server may choose it."""
        return all(one.shape[:1] == (None,) for one in (*self.inputs, *self.outputs))


def config_text(model: TritonModel) -> str:
    """Write the configuration in protobuf's text format."""
    return "\n".join(_lines(model)) + "\n"


def _lines(model: TritonModel) -> Iterator[str]:
    yield f"name: {_quoted(model.name)}"
    yield f"backend: {_quoted(model.backend)}"
    if model.batches:
        yield f"max_batch_size: {model.batch_size}"
    else:
        yield "max_batch_size: 0 # the model fixes its batch, which is part of the shapes below"
    for spec in model.inputs:
        yield f"input [ {{ {_tensor(spec, model)} }} ]"
    for position, spec in enumerate(model.outputs):
        labels = f" label_filename: {_quoted(model.labels)}" if model.labels else ""
        yield f"output [ {{ {_tensor(spec, model)}{labels if position == 0 else ''} }} ]"
    if model.batches and model.batch_size > 1 and model.queue_delay_us is not None:
        yield "dynamic_batching {"
        sizes = ", ".join(map(str, model.preferred))
        yield f"  preferred_batch_size: [ {sizes} ] # what was measured"
        yield f"  max_queue_delay_microseconds: {model.queue_delay_us}"
        yield "}"
    kind = "KIND_GPU" if model.on_gpu else "KIND_CPU"
    yield f"instance_group [ {{ count: {model.instances} kind: {kind} }} ]"
    if model.graph_level is not None:
        yield f"optimization {{ graph {{ level: {model.graph_level} }} }}"
    for key, value in model.parameters:
        yield (f"parameters {{ key: {_quoted(key)} value: {{ string_value: {_quoted(value)} }} }}")


def _tensor(spec: TensorSpec, model: TritonModel) -> str:
    """Write a tensor's fields; the batch is not one of its dimensions where the server batches."""
    shape = spec.shape[1:] if model.batches else spec.shape
    dims = ", ".join("-1" if size is None else str(size) for size in shape)
    text = f"name: {_quoted(spec.name)} data_type: {_TYPES[spec.dtype]}"
    if not shape:  # one number a sample: Triton wants a dimension for it
        return f"{text} dims: [ 1 ] reshape {{ shape: [ ] }}"
    return f"{text} dims: [ {dims} ]"


def _quoted(text: str) -> str:
    """Write a string literal; bytes beyond printable ASCII in octal, as C does."""
    written = "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\' else f"\\{byte:03o}"  # noqa: PLR2004 - printable ASCII
        for byte in text.encode()
    )
    return f'"{written}"'
