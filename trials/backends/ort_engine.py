"""An engine of ONNX Runtime: one session that all requests share."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trials.backend import Request, Tensors, TensorSpec
from trials.backends.ort_errors import mapped, runtime_errors, trial_error
from trials.errors import OutputError, UnsupportedError
from trials.machine.gpu_source import GpuSource

Allocate: TypeAlias = Callable[[Sequence[int], type], Any]
"""Makes a tensor of the library, of a shape and a NumPy type."""

TYPES = {
    "tensor(bool)": "bool",
    "tensor(double)": "float64",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(int8)": "int8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(uint8)": "uint8",
}


class OrtEngine:
    """One session that all requests share; see :class:`trials.backend.Engine`."""

    def __init__(
        self,
        session: Any,
        *,
        hidden: str = "",
        transfers: str | None = None,
        allocate: Allocate | None = None,
        meters: Callable[[], AbstractContextManager[GpuSource | None]] | None = None,
    ) -> None:
        """Serve the outputs of a session.

        Args:
            session: Of the library, owned from now on.
            hidden: An output that is not the model's.
            transfers: Whether requests copy to a GPU and back; None where it runs on the CPU.
            allocate: Makes the tensors that requests are bound to; None for the host's memory.
            meters: Opens those of the GPU that it runs on; None where it runs on the CPU.
        """
        self._session = session
        self._allocate = allocate or _on_host
        self._meters = meters
        self._transfers = transfers
        self._answers = [node for node in session.get_outputs() if node.name != hidden]
        self._inputs = tuple(map(_spec, session.get_inputs()))
        self._outputs = tuple(map(_spec, self._answers))

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs in the model's order."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs in the model's order."""
        return self._outputs

    @property
    def transfers(self) -> str | None:
        """Whether copies to the GPU and back are part of a request; None on the CPU."""
        return self._transfers

    @property
    def uses_graphs(self) -> bool:
        """No request is a CUDA graph."""
        return False

    def infer(self, inputs: Tensors) -> Tensors:
        """Run one batch and return fresh arrays.

        Raises:
            OutputError: An output has another shape or type than promised.
            UnsupportedError: The model does not take inputs of this shape.
            MemoryLimitError: The batch does not fit.
            FaultError: ONNX Runtime broke.
        """
        with mapped("running a batch"):
            arrays = self._run(inputs)
        for spec, array in zip(self._outputs, arrays, strict=True):
            _check(spec, array)
        return {spec.name: array for spec, array in zip(self._outputs, arrays, strict=True)}

    @contextmanager
    def lane(self, batches: Sequence[Tensors]) -> Iterator[Sequence[Request]]:
        """Bind one request per batch for one worker thread.

        Output buffers are sized from the model's symbolic shapes. Only where those do not tell is
        the batch run once here, and then the first request is no longer a cold one.

        Raises:
            UnsupportedError: The model does not take inputs of this shape.
            MemoryLimitError: The buffers do not fit.
            FaultError: ONNX Runtime broke.
        """
        bindings: list[Any] = []
        try:
            with mapped("binding buffers"):
                bindings = [self.binding(batch) for batch in batches]
            yield tuple(_request(self._session, binding) for binding in bindings)
        finally:
            for binding in bindings:
                binding.clear_binding_inputs()
                binding.clear_binding_outputs()

    def gpu(self) -> AbstractContextManager[GpuSource | None]:
        """Open the meters of the GPU; None on the CPU, or where nobody can read them."""
        return nullcontext() if self._meters is None else self._meters()

    def close(self) -> None:
        """Release the session."""
        del self._session

    def binding(self, batch: Tensors) -> Any:
        """Copy a batch and allocate its outputs, in ONNX Runtime's own form for ``run``.

        Raises:
            Exception: What ONNX Runtime raises, as it is.
        """
        binding = self._session.io_binding()
        for spec in self._inputs:
            array = batch[spec.name]
            value = self._allocate(array.shape, array.dtype.type)
            value.update_inplace(np.ascontiguousarray(array))
            binding.bind_ortvalue_input(spec.name, value)
        for spec, shape in zip(self._outputs, self._output_shapes(batch), strict=True):
            dtype = np.dtype(spec.dtype).type
            value = self._allocate(shape, dtype)
            binding.bind_ortvalue_output(spec.name, value)
        return binding

    def run(self, binding: Any) -> None:
        """Run a request; raises what ONNX Runtime raises."""
        self._session.run_with_iobinding(binding)

    def _run(self, inputs: Tensors) -> list[NDArray[Any]]:
        names = [spec.name for spec in self._outputs]
        arrays: list[NDArray[Any]] = self._session.run(names, dict(inputs))
        return arrays

    def _output_shapes(self, batch: Tensors) -> list[tuple[int, ...]]:
        """Work out the shapes of the outputs for one batch."""
        known: dict[object, int] = {}
        for node in self._session.get_inputs():
            known.update(zip(node.shape, batch[node.name].shape, strict=False))
        shapes = [node.shape for node in self._answers]
        if all(type(dim) is int or dim in known for shape in shapes for dim in shape):
            return [
                tuple(dim if type(dim) is int else known[dim] for dim in shape) for shape in shapes
            ]
        return [array.shape for array in self._run(batch)]


def refuse_types(session: Any) -> None:
    """Refuse a model whose inputs or outputs are no tensors of numbers.

    Raises:
        UnsupportedError: Names the first.
    """
    for node in (*session.get_inputs(), *session.get_outputs()):
        if node.type not in TYPES:
            raise UnsupportedError(
                f"{node.name!r} is a {node.type}; export plain numeric tensors (scikit-learn: "
                "zipmap=False)"
            )


def _on_host(shape: Sequence[int], dtype: type) -> Any:
    from onnxruntime import OrtValue

    return OrtValue.ortvalue_from_shape_and_type(shape, dtype)


def _request(session: Any, binding: Any) -> Request:
    run: Callable[[Any], None] = session.run_with_iobinding
    errors = runtime_errors()

    def request() -> None:
        try:
            run(binding)
        except errors as error:
            raise trial_error(error, "running a request") from error

    return request


def _spec(node: Any) -> TensorSpec:
    shape = tuple(dim if type(dim) is int else None for dim in node.shape)
    return TensorSpec(name=node.name, dtype=TYPES[node.type], shape=shape)


def _check(spec: TensorSpec, array: NDArray[Any]) -> None:
    if not spec.takes(array):
        raise OutputError(
            f"output {spec.name!r} is {array.dtype.name} {array.shape}, promised was {spec.dtype} "
            f"{spec.shape}; export the model with true output shapes"
        )
