"""Every name of TensorRT that we use stands in the installed flavour, and in the computed one."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
import trt_fakes
import trt_rtx_fake

NAMES = {
    "Runtime": ("deserialize_cuda_engine",),
    "ICudaEngine": (
        *("create_engine_inspector", "create_execution_context", "device_memory_size_v2"),
        *("get_engine_stat", "get_tensor_dtype", "get_tensor_location", "get_tensor_mode"),
        *("get_tensor_name",),
        *("get_tensor_profile_shape", "get_tensor_shape", "num_io_tensors"),
    ),
    "IExecutionContext": (
        *("execute_async_v3", "get_tensor_shape", "set_input_shape", "set_tensor_address"),
    ),
}
RTX_NAMES = {
    "ICudaEngine": ("create_runtime_config",),
    "IRuntimeConfig": ("cuda_graph_strategy", "dynamic_shapes_kernel_specialization_strategy"),
    "CudaGraphStrategy": ("DISABLED", "WHOLE_GRAPH_CAPTURE"),
    "DynamicShapesKernelSpecializationStrategy": ("EAGER",),
}


@pytest.fixture(params=["tensorrt", "tensorrt_rtx"])
def flavour(request: pytest.FixtureRequest) -> Any:
    if find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return import_module(request.param)


@pytest.mark.parametrize("kind", NAMES)
def test_flavour_has_what_engines_are_run_with(flavour: Any, kind: str) -> None:
    assert [name for name in NAMES[kind] if not hasattr(getattr(flavour, kind), name)] == []


@pytest.mark.parametrize("kind", RTX_NAMES)
def test_tensorrt_for_rtx_has_its_own_switches(kind: str) -> None:
    flavour = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")

    assert [name for name in RTX_NAMES[kind] if not hasattr(getattr(flavour, kind), name)] == []


@pytest.mark.parametrize("kind", RTX_NAMES)
def test_computed_switches_are_those_of_tensorrt_for_rtx(kind: str) -> None:
    flavour = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    computed = trt_rtx_fake.RtxEngine if kind == "ICudaEngine" else getattr(trt_rtx_fake, kind)

    own = {name for name in dir(computed) if not name.startswith("_")}
    assert own >= set(RTX_NAMES[kind])
    assert [name for name in own if not hasattr(getattr(flavour, kind), name)] == []


def test_types_of_tensors_are_known_by_their_names(flavour: Any) -> None:
    from trials.backends.trt_runtime import TYPES

    assert set(TYPES) <= set(flavour.DataType.__members__)
    assert {"INPUT", "OUTPUT"} <= set(flavour.TensorIOMode.__members__)
    assert {"DEVICE", "HOST"} <= set(flavour.TensorLocation.__members__)
    assert "JSON" in flavour.LayerInformationFormat.__members__
    assert "TOTAL_WEIGHTS_SIZE" in flavour.EngineStat.__members__


@pytest.mark.parametrize("kind", NAMES)
def test_computed_runtime_has_no_other_names_than_the_real_one(flavour: Any, kind: str) -> None:
    computed = vars(getattr(trt_fakes, kind))

    public = {name for name in computed if not name.startswith("_")}
    assert public >= set(NAMES[kind])
    assert [name for name in public if not hasattr(getattr(flavour, kind), name)] == []
