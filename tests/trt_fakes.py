"""TensorRT's runtime, as far as ``trials/backends/trt_runtime.py`` calls it, on a computed device.

Plans are ONNX models with a digest before them; a kernel is the whole model, run by ONNX Runtime.
Names and returns are those of TensorRT 11 and TensorRT for RTX 1.7 (``test_trt_names.py``).
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from search_spaces.deployment import Deployment, Precision
from trials.backend import Capabilities, EngineSpec, Tensors
from trials.backends.trt_engine import TrtEngine, load_engine, needed_bytes
from trials.backends.trt_layers import layers_from_inspector
from trials.backends.trt_library import Library
from trials.backends.trt_runtime import plan_from_file
from trials.devices.fake import FakeDevice
from trials.errors import FaultError, TrialError, UnsupportedError
from trials.inspection import BuildLog, Layer, build_log
from trials.serving_options import ON_GPU

MAGIC = b"computed plan\n"
_REFUSED = tuple(
    (each, "the computed backend does not build it")
    for each in Precision
    if each is not Precision.FP32
)


class ILogger:
    """Base of loggers."""

    class Severity(IntEnum):
        """How bad what is said is."""

        INTERNAL_ERROR = 0
        ERROR = 1
        INFO = 3

    def log(self, severity: Severity, message: str) -> None:
        raise NotImplementedError


ERROR = ILogger.Severity.ERROR


class DataType(Enum):
    FLOAT = "float32"
    HALF = "float16"
    INT32 = "int32"
    INT64 = "int64"
    BF16 = "bfloat16"


class TensorIOMode(Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class TensorLocation(Enum):
    DEVICE = 0
    HOST = 1


@dataclass(kw_only=True)
class Behaviour:
    """How the computed runtime behaves, for tests.

    Attributes:
        kernel_s: How long a request takes on the device.
        enqueue_ns: How long the host is busy asking for one without a graph.
        breaks_capture: Work under capture goes nowhere, as on another device.
        context_bytes: What each context allocates.
        host_tensors: Names of tensors that it reads on the host.
        grumbles: It logs an error with every run that goes well.
        fails_silently: Runs fail from now on, and it does not say why.
        enqueues: How often a context was asked.
        contexts: How many were made.
    """

    kernel_s: float = 0.0
    enqueue_ns: int = 0
    breaks_capture: bool = False
    context_bytes: int = 1 << 16
    host_tensors: tuple[str, ...] = ()
    grumbles: bool = False
    fails_silently: bool = False
    enqueues: int = field(default=0)
    contexts: int = field(default=0)


def fake_library(device: FakeDevice, behaviour: Behaviour | None = None) -> Library:
    """Return a flavour of TensorRT whose module is computed."""
    manners = behaviour or Behaviour()
    module = SimpleNamespace(
        ILogger=ILogger,
        DataType=DataType,
        TensorIOMode=TensorIOMode,
        TensorLocation=TensorLocation,
        LayerInformationFormat=SimpleNamespace(JSON="json"),
        EngineStat=SimpleNamespace(TOTAL_WEIGHTS_SIZE="weights"),
        Runtime=lambda logger: Runtime(device, logger, manners),
    )
    return Library(name="tensorrt", version="0.0", module=module, is_rtx=False)


def write_plan(model: Path, plan: Path, *, batch_size: int | None) -> None:
    """Write a plan of a model, for one batch size, or for any up to 64."""
    content = onnx.load_model(model)
    for value in (*content.graph.input, *content.graph.output):
        if batch_size is not None:
            value.type.tensor_type.shape.dim[0].dim_value = batch_size
    body = content.SerializeToString()
    plan.write_bytes(MAGIC + hashlib.sha256(body).digest() + body)


class Runtime:
    """``trt.Runtime``."""

    def __init__(self, device: FakeDevice, logger: ILogger, behaviour: Behaviour) -> None:
        self._device = device
        self._logger = logger
        self._behaviour = behaviour

    def deserialize_cuda_engine(self, content: bytes) -> "ICudaEngine | None":
        digest, body = content[len(MAGIC) : len(MAGIC) + 32], content[len(MAGIC) + 32 :]
        if not content.startswith(MAGIC):
            self._logger.log(ERROR, "Serialization: header.magicTag is another")
        elif hashlib.sha256(body).digest() != digest:
            self._logger.log(ERROR, "Serialization: the plan is not whole")
        else:
            self._device.load_lazily("a plan")
            return self._engine(body)
        return None

    def _engine(self, body: bytes) -> "ICudaEngine":
        return ICudaEngine(self._device, self._logger, self._behaviour, body)


class ICudaEngine:
    """``trt.ICudaEngine``."""

    def __init__(
        self, device: FakeDevice, logger: ILogger, behaviour: Behaviour, body: bytes
    ) -> None:
        self.device = device
        self.logger = logger
        self.behaviour = behaviour
        self.model = onnx.load_model_from_string(body)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            body, options, providers=["CPUExecutionProvider"]
        )
        self._values = {
            value.name: value for value in (*self.model.graph.input, *self.model.graph.output)
        }

    @property
    def num_io_tensors(self) -> int:
        return len(self._values)

    @property
    def device_memory_size_v2(self) -> int:
        return self.behaviour.context_bytes

    def get_engine_stat(self, stat: str) -> int:
        assert stat == "weights"
        return sum(np.prod(one.dims, dtype=int) * 4 for one in self.model.graph.initializer)

    def get_tensor_name(self, at: int) -> str:
        return str(list(self._values)[at])

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        inputs = [value.name for value in self.model.graph.input]
        return TensorIOMode.INPUT if name in inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        kind = self._values[name].type.tensor_type.elem_type
        if kind == onnx.TensorProto.BFLOAT16:
            return DataType.BF16
        return DataType(np.dtype(helper.tensor_dtype_to_np_dtype(kind)).name)

    def get_tensor_location(self, name: str) -> TensorLocation:
        is_on_host = name in self.behaviour.host_tensors
        return TensorLocation.HOST if is_on_host else TensorLocation.DEVICE

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        dims = self._values[name].type.tensor_type.shape.dim
        return tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert profile == 0
        shape = self.get_tensor_shape(name)
        return [tuple(batch if size < 0 else size for size in shape) for batch in (1, 8, 64)]

    def create_execution_context(self) -> "IExecutionContext | None":
        self.device.load_lazily("a context")
        try:
            memory = self.device.memory(self.behaviour.context_bytes)
        except TrialError as error:
            message = f"Cuda Runtime (out of memory): {error}"
            self.logger.log(ERROR, message)
            return None
        self.behaviour.contexts += 1
        return IExecutionContext(self, memory)

    def create_engine_inspector(self) -> Any:
        return SimpleNamespace(get_engine_information=lambda _: json.dumps(self._information()))

    def _information(self) -> dict[str, Any]:
        constants = {one.name: one for one in self.model.graph.initializer}
        layers = []
        for node in self.model.graph.node:
            weights = [constants[name] for name in node.input if name in constants]
            layers.append(
                {
                    "Name": node.output[0],
                    "LayerType": node.op_type,
                    "Outputs": [self._output(name) for name in node.output],
                    "Weights": {
                        "Type": "Float",
                        "Count": int(sum(np.prod(one.dims, dtype=int) for one in weights)),
                    },
                }
            )
        return {"Layers": layers, "Bindings": list(self._values)}

    def _output(self, name: str) -> dict[str, Any]:
        if name not in self._values:
            return {"Name": name}
        return {
            "Name": name,
            "Dimensions": list(self.get_tensor_shape(name)),
            "Format/Datatype": "Row major linear FP32",
        }


class IExecutionContext:
    """``trt.IExecutionContext``."""

    def __init__(self, engine: ICudaEngine, memory: Any) -> None:
        self._engine = engine
        self._memory = memory
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._is_warm = False

    def __del__(self) -> None:
        with self._engine.device.current():
            self._memory.close()

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self._engine.get_tensor_profile_shape(name, 0)
        fits = len(shape) == len(least) and all(
            low <= size <= high for low, size, high in zip(least, shape, most, strict=True)
        )
        if fits:
            self._shapes[name] = shape
        return fits

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shape = self._engine.get_tensor_shape(name)
        batch = next(iter(self._shapes.values()))[0]
        return self._shapes.get(name) or tuple(batch if size < 0 else size for size in shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return address % 256 == 0

    def execute_async_v3(self, handle: int) -> bool:
        engine, behaviour = self._engine, self._engine.behaviour
        device = engine.device
        behaviour.enqueues += 1
        if behaviour.fails_silently:
            return False
        if behaviour.grumbles:
            engine.logger.log(ERROR, "an old story")
        if not self._is_warm:
            try:
                device.load_lazily("kernels")
            except FaultError as error:
                engine.logger.log(ERROR, str(error))
                return False
            self._is_warm = True
        device.clock.spend(behaviour.enqueue_ns)
        effect = self._effect(device)
        if behaviour.breaks_capture and getattr(device._gpu.threads, "capturing", None):
            device.launch_kernel(handle, 0.0, lambda _: None)
            return True
        device.launch_kernel(handle, behaviour.kernel_s, effect)
        return True

    def _effect(self, device: FakeDevice) -> Callable[[FakeDevice], None]:
        engine, shapes, addresses = self._engine, dict(self._shapes), dict(self._addresses)

        def array_at(name: str, shape: tuple[int, ...]) -> NDArray[Any]:
            dtype = np.dtype(engine.get_tensor_dtype(name).value)
            size = int(np.prod(shape)) * dtype.itemsize
            return device.view(addresses[name], size).view(dtype).reshape(shape)

        def effect(_: FakeDevice) -> None:
            inputs = {name: array_at(name, shape) for name, shape in shapes.items()}
            for value, array in zip(
                engine.session.get_outputs(), engine.session.run(None, inputs), strict=True
            ):
                array_at(value.name, array.shape)[...] = array

        return effect


class ComputedTensorRt:
    """A backend whose plans are computed and whose engines are those of the ``tensorrt`` backend.

    Building is not what it is for.
    """

    def __init__(self, device: FakeDevice, behaviour: Behaviour | None = None) -> None:
        self.device = device
        self.library = fake_library(device, behaviour)

    @property
    def name(self) -> str:
        return "tensorrt"

    def capabilities(self) -> Capabilities:
        return Capabilities(
            precisions=(Precision.FP32,),
            refusals=_REFUSED,
            options=ON_GPU,
            batch_in_engine=True,
        )

    def environment(self) -> tuple[tuple[str, str], ...]:
        return (("computed", "1"),)

    def build(self, model: Path, spec: EngineSpec, plan: Path) -> BuildLog:
        if spec.precision is not Precision.FP32:
            raise UnsupportedError(f"{spec.precision} is not built")
        try:
            write_plan(model, plan, batch_size=spec.batch_size)
        except Exception as error:
            raise UnsupportedError(f"{model.name} is no model: {error}") from error
        return build_log(["built"])

    def inspect(self, model: Path, spec: EngineSpec, plan: Path) -> tuple[Layer, ...]:
        del model, spec
        with self.device.current():
            loaded = plan_from_file(self.library, plan)
            try:
                return layers_from_inspector(loaded.layers_json())
            finally:
                loaded.close()

    def load(self, plan: Path, deployment: Deployment) -> TrtEngine:
        return load_engine(self.library, self.device, plan, deployment)

    def peak_memory(
        self, plan: Path, deployment: Deployment, batch: Tensors, *, deadline_s: float
    ) -> int | None:
        del batch, deadline_s
        return needed_bytes(self.library, self.device, plan, deployment)


def as_batches(stack: NDArray[Any], name: str) -> Sequence[Tensors]:
    """Split an array of shape ``(batches, batch, …)``."""
    return tuple({name: batch} for batch in stack)
