"""ONNX Runtime as if it had providers on a GPU: its CPU computes, and answers in their names.

Everything but the providers is the real library: sessions, bindings, tensors, session options.
"""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import onnxruntime

from trials.backends.ort import OrtBackend
from trials.backends.ort_providers import Providers
from trials.machine.nvml import Card

CARD = Card(
    uuid="GPU-1111",
    name="NVIDIA H100",
    compute_capability="9.0",
    driver="580.1",
    is_mig=False,
    is_persistent=True,
    processes=0,
)
ALL = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")


class _Session:
    """A real session of the CPU that says it was somebody else."""

    def __init__(self, real: Any, name: str, strays: Sequence[str]) -> None:
        self._real = real
        self._name = name
        self._strays = strays

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def get_providers(self) -> list[str]:
        return [self._name, "CPUExecutionProvider"]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        found = []
        for part in self._real.get_provider_graph_assignment_info():
            for node in part.get_nodes():
                stays = node.op_type in self._strays
                name = "CPUExecutionProvider" if stays else self._name
                found.append(SimpleNamespace(ep_name=name, get_nodes=lambda node=node: [node]))
        return found


class OrtOnGpu:
    """The library's module.

    Args:
        available: Providers that it was built with.
        drops: Whether it cannot set any of them up, as where CUDA is missing.
        strays: Operators that they leave to the CPU.
        saves: Whether a compiling one saves its engine.
    """

    def __init__(
        self,
        *,
        available: Sequence[str] = ALL,
        drops: bool = False,
        strays: Sequence[str] = (),
        saves: bool = True,
    ) -> None:
        self.available = available
        self.drops = drops
        self.strays = strays
        self.saves = saves
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.registered: list[tuple[str, str]] = []
        self.devices: list[str] = []
        self.OrtValue = SimpleNamespace(ortvalue_from_shape_and_type=self._allocated)

    def get_available_providers(self) -> list[str]:
        return list(self.available)

    def InferenceSession(  # noqa: N802 - the library's name
        self,
        source: str | bytes,
        options: Any,
        providers: Sequence[Any] | None = None,
        *,
        enable_fallback: int = 1,
    ) -> Any:
        if providers is None:  # chosen by device, in the options
            return onnxruntime.InferenceSession(source, options, enable_fallback=enable_fallback)
        ((name, settings),) = providers
        self.asked.append((name, settings))
        context = _taken_context(options)
        real = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        if self.drops:
            return real
        if context and self.saves:
            _write_context(str(source), real, Path(context))
        return _Session(real, name, self.strays)

    def register_execution_provider_library(self, name: str, path: str) -> None:
        self.registered.append((name, path))

    def get_ep_devices(self) -> list[Any]:
        return list(onnxruntime.get_ep_devices())

    def _allocated(self, shape: Sequence[int], dtype: type, device: str, number: int) -> Any:
        self.devices.append(f"{device}:{number}")
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype)


def plugin_named(name: str) -> Any:
    """Make a plugin package whose provider has that name."""
    return SimpleNamespace(
        __version__="0.5.0", get_ep_name=lambda: name, get_library_path=lambda: Path("ep.so")
    )


def ort_on_gpu(
    library: OrtOnGpu | None = None, *, plugin: Any = None, card: Card = CARD
) -> OrtBackend:
    """Make the backend over it, on a machine with one GPU."""
    found = library or OrtOnGpu()
    return OrtBackend(Providers(library=lambda: found, plugin=lambda: plugin, gpu=lambda: card))


def _taken_context(options: Any) -> str:
    """Take the wish for a compiled model out of the options, which the CPU does not know."""
    try:
        path = str(options.get_session_config_entry("ep.context_file_path"))
    except RuntimeError:
        return ""
    options.add_session_config_entry("ep.context_enable", "0")
    return path


def _write_context(source: str, real: Any, plan: Path) -> None:
    """Save what a compiling provider would: a model of one shape."""
    model = onnx.load_model(source)
    for value, node in (
        *zip(model.graph.input, real.get_inputs(), strict=True),
        *zip(model.graph.output, real.get_outputs(), strict=True),
    ):
        for dim, size in zip(value.type.tensor_type.shape.dim, node.shape, strict=True):
            dim.dim_value = size
    onnx.save_model(model, plan)
