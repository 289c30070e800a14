"""The execution providers of ONNX Runtime: which are to be had here, and sessions on them.

A provider is had where the installed library has it *and* there is a GPU. That is no promise that
it works: the library drops a provider whose CUDA, cuDNN or TensorRT it cannot load, and gives the
operators that a provider does not know to the CPU, and goes on without a word. So every session is
asked afterwards who runs what, and one that fell back is refused: its numbers would bear the name
of a provider that did not make them.

References:
    ONNX Runtime, execution providers (CUDA, TensorRT, plugin libraries; EP context design).
    microsoft/onnxruntime issues 17801 and 23647 (silent fallback), 11348 (a graph that was
        optimized for CUDA and saved cannot be loaded), 6427 and 26029 (TF32 for fp32).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from search_spaces.deployment import Precision
from trials.errors import UnsupportedError
from trials.machine.nvml import Card, first_card

_PLUGIN = "onnxruntime_ep_nv_tensorrt_rtx"
_RECORD = "session.record_ep_graph_assignment_info"
_MOST_NAMES = 5  # of nodes in a message
_TF32_OVERRIDE = "NVIDIA_TF32_OVERRIDE"  # read by NVIDIA's libraries when they are loaded
_AMPERE = 8  # major compute capability of the first cards that have TF32


class Provider(StrEnum):
    """Who runs the operators of a graph, as space files call it."""

    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"
    RTX = "nv-tensorrt-rtx"


COMPILING = (Provider.TENSORRT, Provider.RTX)
"""Providers that build an engine of their own, for one batch size, and save it in the plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """How a provider is called by the library, and where it comes from."""

    name: str
    install: str


_SWAP = "pip uninstall onnxruntime, then pip install onnxruntime-gpu"
_KINDS = {
    Provider.CUDA: _Kind(name="CUDAExecutionProvider", install=_SWAP),
    Provider.TENSORRT: _Kind(
        name="TensorrtExecutionProvider", install=f"{_SWAP}, and the TensorRT that it names"
    ),
    Provider.RTX: _Kind(
        name="NvTensorRTRTXExecutionProvider",
        install="pip install onnxruntime-ep-nv-tensorrt-rtx, beside onnxruntime and not -gpu",
    ),
}


def _onnxruntime() -> Any:
    return import_module("onnxruntime")


def _plugin() -> Any | None:
    """Import the package that holds the library of TensorRT for RTX; None where it is not."""
    return None if find_spec(_PLUGIN) is None else import_module(_PLUGIN)


class Providers:
    """The providers of one process."""

    def __init__(
        self,
        *,
        library: Callable[[], Any] = _onnxruntime,
        plugin: Callable[[], Any | None] = _plugin,
        gpu: Callable[[], Card] = first_card,
    ) -> None:
        """Wait for the first question; nothing is imported before.

        Args:
            library: Imports ONNX Runtime.
            plugin: Imports the package of the RTX provider, or returns None.
            gpu: Describes the GPU that CUDA shows first, on which sessions run.
        """
        self._library = library
        self._plugin = plugin
        self._gpu = gpu
        self._is_registered = False

    @cached_property
    def refusals(self) -> tuple[tuple[Provider, str], ...]:
        """(provider, reason) for every one that is not to be had here."""
        return tuple((one, reason) for one in _KINDS if (reason := self._why_not(one)))

    def honours(self, provider: Provider) -> bool:
        """Tell whether a provider is to be had here."""
        return provider not in dict(self.refusals)

    @cached_property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """What of a GPU changes the engines of its providers, sorted; empty without one."""
        if all(not self.honours(one) for one in _KINDS):
            return ()
        card = self._gpu()
        facts = [("gpu", card.name), ("gpu_driver", card.driver)]
        facts.append(("compute_capability", card.compute_capability))
        plugin = self._plugin()
        if plugin is not None:
            facts.append(("plugin", str(plugin.__version__)))
        return tuple(sorted(facts))

    def opened(
        self, source: str | bytes, options: Any, *, provider: Provider, precision: Precision
    ) -> Any:
        """Open a session that a provider on a GPU runs, whole.

        Args:
            source: An ONNX file or its content.
            options: Of the library; used up.
            provider: Who runs it.
            precision: Of the model, which some providers must be told.

        Raises:
            UnsupportedError: The provider is not to be had (says why and what to install), could
                not be set up, leaves operators to another one, or computes in another precision.
            Exception: What ONNX Runtime raises, as it is.
        """
        if not self.honours(provider):
            raise UnsupportedError(f"provider {provider}: {dict(self.refusals)[provider]}")
        library = self._library()
        self._refuse_rounding(provider, precision)
        options.add_session_config_entry(_RECORD, "1")
        if provider is Provider.RTX:
            name, devices = self._rtx_devices()
            options.add_provider_for_devices(devices[:1], {})
            session = library.InferenceSession(source, options, enable_fallback=0)
        else:
            name = _KINDS[provider].name
            chosen = [(name, _settings(provider, precision))]
            session = library.InferenceSession(
                source, options, providers=chosen, enable_fallback=0
            )
        refuse_fallback(session, name)
        return session

    def on_device(self, shape: Sequence[int], dtype: type) -> Any:
        """Allocate a tensor in the memory of the GPU."""
        return self._library().OrtValue.ortvalue_from_shape_and_type(shape, dtype, "cuda", 0)

    def _refuse_rounding(self, provider: Provider, precision: Precision) -> None:
        """Refuse products that would be rounded otherwise than the precision says.

        TensorRT's builder takes TF32 for fp32 where the card has it, and the providers have no
        option against it; the variable is above them all, and above ``use_tf32`` of CUDA too.

        Raises:
            UnsupportedError: They would be; says what to do.
        """
        is_off = os.environ.get(_TF32_OVERRIDE) == "0"
        has_tf32 = int(self._gpu().compute_capability.split(".")[0]) >= _AMPERE
        if precision is Precision.FP32 and provider in COMPILING and has_tf32 and not is_off:
            raise UnsupportedError(
                f"provider {provider} makes tf32 of fp32 on this GPU: start trifront with "
                f"{_TF32_OVERRIDE}=0, or add the rule provider != '{provider}' or "
                f"precision != '{precision}'"
            )
        if precision is Precision.TF32 and is_off:
            raise UnsupportedError(
                f"{_TF32_OVERRIDE}=0 makes fp32 of tf32: start trifront without it, or leave tf32 "
                "out"
            )

    def _why_not(self, provider: Provider) -> str:
        reasons = []
        try:
            self._gpu()
        except UnsupportedError as error:
            reasons.append(str(error))
        kind = _KINDS[provider]
        if provider is Provider.RTX:
            has = self._plugin() is not None
        else:
            has = kind.name in self._library().get_available_providers()
        if not has:
            reasons.append(f"the installed ONNX Runtime has no {kind.name}: {kind.install}")
        return "; and ".join(reasons)

    def _rtx_devices(self) -> tuple[str, list[Any]]:
        """Return the RTX provider's name and its GPUs; its library is registered once.

        Raises:
            UnsupportedError: There are none.
            Exception: What ONNX Runtime raises where the library cannot be loaded.
        """
        library, plugin = self._library(), self._plugin()
        assert plugin is not None, "refused before"
        name = plugin.get_ep_name()
        if not self._is_registered:
            library.register_execution_provider_library(name, str(plugin.get_library_path()))
            self._is_registered = True
        devices = [one for one in library.get_ep_devices() if one.ep_name == name]
        if not devices:
            raise UnsupportedError(
                f"{name} takes none of this machine's GPUs; it wants an RTX card of Ampere or "
                "newer: use provider cuda"
            )
        return name, devices


def refuse_fallback(session: Any, name: str) -> None:
    """See that a provider runs all of a session's operators.

    Args:
        session: Opened with the recording of assignments on.
        name: The provider, as the library calls it.

    Raises:
        UnsupportedError: It was dropped, or others run some; names these.
    """
    first = session.get_providers()[0]
    if first != name:
        raise UnsupportedError(
            f"ONNX Runtime fell back to {first}: {name} could not be set up, because the CUDA, "
            "cuDNN or TensorRT that it was made for is missing; install the versions that its "
            "page of requirements names"
        )
    strays = list(_strays(session, name))
    if strays:
        shown = ", ".join(strays[:_MOST_NAMES]) + (", …" if len(strays) > _MOST_NAMES else "")
        raise UnsupportedError(
            f"{name} leaves {len(strays)} operators to others ({shown}), and its speed would not "
            "be its own; export with fixed shapes (shapes are computed on the CPU), choose other "
            "operators or another precision, or leave this provider out"
        )


def _strays(session: Any, name: str) -> Iterator[str]:
    for part in session.get_provider_graph_assignment_info():
        if part.ep_name != name:
            for node in part.get_nodes():
                yield f"{node.op_type} {node.name!r}" if node.name else node.op_type


def _settings(provider: Provider, precision: Precision) -> dict[str, str]:
    """Return what a provider must be told, by its own names; everything else stays its default."""
    if provider is Provider.CUDA:
        # on by default, it would make tf32 of fp32
        return {"device_id": "0", "use_tf32": str(int(precision is Precision.TF32))}
    return {
        "device_id": "0",
        "trt_fp16_enable": str(int(precision is Precision.FP16)),
        "trt_int8_enable": str(int(precision is Precision.INT8)),
    }
