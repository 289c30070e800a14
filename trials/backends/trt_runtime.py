"""A plan, brought back: what TensorRT's runtime tells of it, and the contexts that run it.

Only names that both flavours have (``tests/trials/test_trt_names.py``). Whatever they return as
False or None becomes an error here, with what the library said to its logger.
"""

import json
from pathlib import Path
from typing import Any

from trials.backend import TensorSpec
from trials.backends.trt_library import (
    NO_MEMORY,
    Library,
    Said,
    foreign_errors,
    short,
    trouble,
)
from trials.errors import FaultError, TrialError, UnsupportedError

TYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}
"""Those of TensorRT that NumPy has too, by their names in it."""

_NO_DRIVER = ("driver version is insufficient", "no cuda-capable device")
_OTHER_VERSION = ("version tag", "serialization version", "same version", "stdversionread")
_OTHER_GPU = ("incompatible device", "compute capability", "expecting compute", "platform")


def plan_from_file(library: Library, path: Path) -> "Plan":
    """Read a plan and bring it onto the GPU that is current in this thread.

    Raises:
        UnsupportedError: A tensor is of a type that NumPy does not have.
        MemoryLimitError: It does not fit.
        FaultError: It cannot be read, is damaged, or was built for another version or GPU, or
            CUDA does not start.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FaultError(f"{path.name} cannot be read: {error.strerror}") from error
    said = Said()
    with foreign_errors(f"loading {path.name}", said):
        runtime = library.module.Runtime(said.logger(library.module))
        engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise _refusal(library, path.name, said)
    return Plan(library, runtime, engine, said)


class Plan:
    """A deserialized plan; the GPU that it lies on is current in every thread that calls."""

    def __init__(self, library: Library, runtime: Any, engine: Any, said: Said) -> None:
        self._library = library
        self._runtime = runtime
        self._engine = engine
        self._said = said
        self.inputs, self.outputs = self._tensors()

    @property
    def captures_itself(self) -> bool:
        """Whether the runtime makes CUDA graphs by itself, so that nobody else has to."""
        return self._library.is_rtx

    @property
    def context_bytes(self) -> int:
        """Memory of the GPU that each context needs for what lies between layers."""
        return int(self._engine.device_memory_size_v2)

    @property
    def weights_bytes(self) -> int:
        """Memory of the GPU for what all contexts share: the weights."""
        stat = self._library.module.EngineStat.TOTAL_WEIGHTS_SIZE
        return int(self._engine.get_engine_stat(stat))

    def context(self, *, cuda_graph: bool, specialization: str = "eager") -> "Context":
        """Make what runs one request at a time.

        Args:
            cuda_graph: Let the runtime replay a CUDA graph, where it does so by itself.
            specialization: When TensorRT for RTX makes kernels for shapes that it meets.

        Raises:
            MemoryLimitError: It does not fit.
            FaultError: The runtime broke.
        """
        heard = len(self._said.errors)
        if self._library.is_rtx:
            config = self._runtime_config(cuda_graph=cuda_graph, specialization=specialization)
            made = self._engine.create_execution_context(config)
        else:
            made = self._engine.create_execution_context()
        if made is None:
            raise trouble("making an execution context", self._said, heard)
        return Context(made, self._said)

    def layers_json(self) -> Any:
        """Return what the engine inspector tells, parsed.

        Raises:
            FaultError: It does not tell, or in another form.
        """
        wanted = self._library.module.LayerInformationFormat.JSON
        inspector = self._engine.create_engine_inspector()
        text = inspector.get_engine_information(wanted)
        try:
            return json.loads(text)
        except (TypeError, ValueError) as error:
            raise FaultError(f"TensorRT's engine inspector tells no JSON: {error}") from error

    def close(self) -> None:
        """Take it off the GPU; its contexts are closed."""
        del self._engine, self._runtime

    def _runtime_config(self, *, cuda_graph: bool, specialization: str) -> Any:
        trt, config = self._library.module, self._engine.create_runtime_config()
        kinds = trt.DynamicShapesKernelSpecializationStrategy
        kind = getattr(kinds, specialization.upper())
        config.dynamic_shapes_kernel_specialization_strategy = kind
        graphs = trt.CudaGraphStrategy
        config.cuda_graph_strategy = graphs.WHOLE_GRAPH_CAPTURE if cuda_graph else graphs.DISABLED
        return config

    def _tensors(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        engine, modes = self._engine, self._library.module.TensorIOMode
        names = [engine.get_tensor_name(at) for at in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == modes.INPUT]
        outputs = [name for name in names if engine.get_tensor_mode(name) == modes.OUTPUT]
        shapes = {name: self._input_shape(name) for name in inputs}
        shapes |= self._output_shapes(outputs, shapes)
        specs = {name: self._spec(name, shapes[name]) for name in names}
        return tuple(specs[name] for name in inputs), tuple(specs[name] for name in outputs)

    def _spec(self, name: str, shape: tuple[int | None, ...]) -> TensorSpec:
        if self._engine.get_tensor_location(name) != self._library.module.TensorLocation.DEVICE:
            raise UnsupportedError(
                f"{name!r} holds shapes, which TensorRT reads on the host; export the model with "
                "fixed dimensions besides the batch"
            )
        kind = self._engine.get_tensor_dtype(name).name
        if kind not in TYPES:
            raise UnsupportedError(
                f"{name!r} is of type {kind}, which NumPy does not have; keep the model's inputs "
                "and outputs in fp32 or fp16"
            )
        return TensorSpec(name=name, dtype=TYPES[kind], shape=shape)

    def _input_shape(self, name: str) -> tuple[int | None, ...]:
        """Return a shape whose free dimensions are those that the profile leaves free."""
        shape = tuple(self._engine.get_tensor_shape(name))
        if all(size >= 0 for size in shape):
            return shape
        least, _, most = map(tuple, self._engine.get_tensor_profile_shape(name, 0))
        return tuple(low if low == high else None for low, high in zip(least, most, strict=True))

    def _output_shapes(
        self, names: list[str], inputs: dict[str, tuple[int | None, ...]]
    ) -> dict[str, tuple[int | None, ...]]:
        """Ask the engine, or, where that leaves something open, a context of the only shape."""
        found = {name: tuple(self._engine.get_tensor_shape(name)) for name in names}
        is_told = all(size >= 0 for shape in found.values() for size in shape)
        fixed = {name: _all_known(shape) for name, shape in inputs.items()}
        if is_told or None in fixed.values():
            return {name: _with_none(shape) for name, shape in found.items()}
        context = self.context(cuda_graph=False)
        try:
            for name, shape in fixed.items():
                context.set_shape(name, shape or ())
            return {name: context.shape(name) for name in names}
        finally:
            context.close()


class Context:
    """Runs requests one at a time, on tensors whose addresses were set before."""

    def __init__(self, context: Any, said: Said) -> None:
        self._context = context
        self._said = said
        self._heard = len(said.errors)  # that are not of what this context does next

    def set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """Set the shape of an input.

        Raises:
            UnsupportedError: The plan was not built for it.
        """
        if not self._context.set_input_shape(name, shape):
            raise UnsupportedError(f"the engine does not take {name!r} of shape {shape}")

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, once those of all inputs are set.

        Raises:
            UnsupportedError: It depends on the values of the inputs.
        """
        found = tuple(self._context.get_tensor_shape(name))
        if any(size < 0 for size in found):
            raise UnsupportedError(
                f"the shape of {name!r} depends on what the inputs hold: {found}; export the "
                "model with outputs whose shapes follow from those of its inputs"
            )
        return found

    def set_address(self, name: str, address: int) -> None:
        """Say where a tensor lies on the GPU.

        Raises:
            FaultError: The runtime refuses.
        """
        if not self._context.set_tensor_address(name, address):
            raise trouble(f"binding {name!r}", self._said, self._heard)
        self._heard = len(self._said.errors)

    def enqueue(self, handle: int) -> None:
        """Ask a stream for one request; returns at once.

        Raises:
            MemoryLimitError: It does not fit.
            FaultError: The runtime broke.
        """
        if not self._context.execute_async_v3(handle):
            raise trouble("running a request", self._said, self._heard)
        self._heard = len(self._said.errors)

    def close(self) -> None:
        """Give its memory back; its work is done."""
        del self._context


def _refusal(library: Library, name: str, said: Said) -> TrialError:
    """Say why a plan is not taken, and what to do."""
    told = " ".join(said.errors).lower()
    reason = short(said.errors[-1]) if said.errors else "it does not say why"
    mine = f"{library.name} {library.version}"
    if any(word in told for word in NO_MEMORY):
        return trouble(f"loading {name}", said, 0)
    if any(word in told for word in _NO_DRIVER):
        return FaultError(
            f"{mine} cannot load {name}: it needs a newer NVIDIA driver than there is ({reason})"
        )
    if any(word in told for word in _OTHER_VERSION):
        why = f"was built by another version than {mine}, or is no plan at all"
    elif any(word in told for word in _OTHER_GPU):
        why = "was built for another GPU"
    else:
        why = f"is no plan that {mine} takes"
    return FaultError(f"{name} {why}; build it again on this machine ({reason})")


def _all_known(shape: tuple[int | None, ...]) -> tuple[int, ...] | None:
    known = tuple(size for size in shape if size is not None)
    return known if len(known) == len(shape) else None


def _with_none(shape: tuple[int, ...]) -> tuple[int | None, ...]:
    return tuple(None if size < 0 else size for size in shape)
