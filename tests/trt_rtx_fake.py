"""What TensorRT for RTX has besides: switches of an execution context, on a computed device."""

from dataclasses import dataclass, replace
from enum import Enum
from types import SimpleNamespace
from typing import Any

from trt_fakes import (
    Behaviour,
    ICudaEngine,
    IExecutionContext,
    ILogger,
    Runtime,
    fake_library,
)

from trials.backends.trt_library import Library
from trials.devices.fake import FakeDevice


class CudaGraphStrategy(Enum):
    DISABLED = 0
    WHOLE_GRAPH_CAPTURE = 1


class DynamicShapesKernelSpecializationStrategy(Enum):
    LAZY = 0
    EAGER = 1
    NONE = 2


@dataclass
class IRuntimeConfig:
    """``trt.IRuntimeConfig``; what nobody sets is neither of what we ask for by default."""

    cuda_graph_strategy: CudaGraphStrategy = CudaGraphStrategy.DISABLED
    dynamic_shapes_kernel_specialization_strategy: DynamicShapesKernelSpecializationStrategy = (
        DynamicShapesKernelSpecializationStrategy.LAZY
    )


@dataclass(kw_only=True)
class RtxBehaviour(Behaviour):
    """How it behaves, and with which switches each context was made, as they were then."""

    configs: tuple[IRuntimeConfig, ...] = ()


def rtx_library(device: FakeDevice, behaviour: RtxBehaviour) -> Library:
    """Return TensorRT for RTX, whose module is computed."""

    def runtime(logger: ILogger) -> RtxRuntime:
        return RtxRuntime(device, logger, behaviour)

    plain = fake_library(device, behaviour)
    names: dict[str, Any] = vars(plain.module) | {
        "CudaGraphStrategy": CudaGraphStrategy,
        "DynamicShapesKernelSpecializationStrategy": DynamicShapesKernelSpecializationStrategy,
        "Runtime": runtime,
    }
    module = SimpleNamespace(**names)
    return replace(plain, name="tensorrt_rtx", module=module, is_rtx=True)


class RtxRuntime(Runtime):
    """``trt.Runtime``."""

    def __init__(self, device: FakeDevice, logger: ILogger, behaviour: RtxBehaviour) -> None:
        super().__init__(device, logger, behaviour)
        self._manners = behaviour

    def _engine(self, body: bytes) -> "RtxEngine":
        return RtxEngine(self._device, self._logger, self._manners, body)


class RtxEngine(ICudaEngine):
    """``trt.ICudaEngine``."""

    def __init__(
        self, device: FakeDevice, logger: ILogger, behaviour: RtxBehaviour, body: bytes
    ) -> None:
        super().__init__(device, logger, behaviour, body)
        self._manners = behaviour

    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig()

    def create_execution_context(
        self, config: IRuntimeConfig | None = None
    ) -> IExecutionContext | None:
        self._manners.configs += (replace(config or IRuntimeConfig()),)
        return super().create_execution_context()
