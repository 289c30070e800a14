"""TensorRT: data-centre TensorRT 10 and 11, or TensorRT for RTX, whichever is installed.

The precision lives in the types of the ONNX file, and networks are strongly typed, which is the
one way that all of them share. An engine serves one batch size. TensorRT for RTX also builds
without a GPU, for a target that is named (``trifront build``). Engines are loaded and measured
where there is a GPU, on the one that CUDA shows first.
"""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from search_spaces.deployment import Deployment, Precision
from trials.backend import Capabilities, EngineSpec, Tensors
from trials.backends.trt_build import build_plan
from trials.backends.trt_engine import SERVING_OPTIONS, TrtEngine, load_engine, needed_bytes
from trials.backends.trt_layers import layers_from_inspector
from trials.backends.trt_library import Library, foreign_errors, library
from trials.backends.trt_runtime import plan_from_file
from trials.devices.catalog import this_device
from trials.devices.device import Device
from trials.errors import UnsupportedError
from trials.inspection import BuildLog, Layer

_RECIPE = "1"  # to be raised when the same spec builds another plan
_AMPERE = 80  # compute capability that fp32 and int8 products of RTX need
_NO_PRODUCER = "trifront does not make models of this precision yet"


class TensorRtBackend:
    """TensorRT, for a named target or for the GPU of this machine."""

    def __init__(
        self, target: str | None = None, *, find_device: Callable[[], Device] = this_device
    ) -> None:
        """Build for a device.

        Args:
            target: Compute capability such as ``SM89``; None for the GPU of this machine.
            find_device: Gives that GPU.
        """
        self._target = target
        self._find_device = find_device

    @property
    def name(self) -> str:
        """Name in space files."""
        return "tensorrt"

    def capabilities(self) -> Capabilities:
        """Say what is honoured for the target.

        Raises:
            UnsupportedError: TensorRT is not installed, it does not build for the target, or a
                target was not named and there is nothing to measure on.
        """
        if self._target is None:  # first: no library that could be installed brings a GPU
            self._device()
        found = library()
        target = self._target_of(found)
        refusals = [
            (Precision.TF32, "TensorRT for RTX builds the same engine as for fp32"),
            (Precision.BF16, _NO_PRODUCER),
            (Precision.FP8, _NO_PRODUCER),
            (Precision.INT4, _NO_PRODUCER),
            (
                Precision.INT8_DYNAMIC,
                "TensorRT wants the scales of activations beforehand; use int8",
            ),
        ]
        precisions = [Precision.FP16]
        if int(target.removeprefix("SM")) < _AMPERE:
            older = f"its products need compute capability 8.0, and {target} is older"
            refusals += [(Precision.FP32, older), (Precision.INT8, older)]
        else:
            precisions += [Precision.FP32, Precision.INT8]
        return Capabilities(
            precisions=tuple(precisions),
            refusals=tuple(refusals),
            options=SERVING_OPTIONS,
            batch_in_engine=True,
        )

    def environment(self) -> tuple[tuple[str, str], ...]:
        """Return flavour, version, recipe and target, or else the GPU with its driver."""
        found = library()
        facts = {"recipe": _RECIPE, found.name: found.version}
        facts["compute_capability"] = self._target_of(found)
        if self._target is None:
            here = self._device().facts
            facts |= {"device": here.name, "device_driver": here.driver}
        return tuple(sorted(facts.items()))

    def build(self, model: Path, spec: EngineSpec, plan: Path) -> BuildLog:
        """Build a plan.

        Raises:
            UnsupportedError: A node, shape or arithmetic that TensorRT or the target lacks.
            MemoryLimitError: It does not fit.
            FaultError: The builder broke.
        """
        found = library()
        target = self._target_of(found)
        assert spec.batch_size is not None, "the batch size is in the engine"
        with foreign_errors(f"building {model.name} for {target}"):
            return build_plan(found, model, plan, batch_size=spec.batch_size, target=self._target)

    def inspect(self, model: Path, spec: EngineSpec, plan: Path) -> tuple[Layer, ...]:
        """Ask TensorRT, which tells the layers of a plan on the GPU that it was built for.

        Says nothing of a plan for a named target, whose GPU need not be here.

        Raises:
            FaultError: The plan is not one of its engines.
        """
        del model, spec
        if self._target is not None:
            return ()
        with self._device().current(), closing(plan_from_file(library(), plan)) as loaded:
            return layers_from_inspector(loaded.layers_json())

    def load(self, plan: Path, deployment: Deployment) -> TrtEngine:
        """Load a plan onto the GPU of this machine.

        Raises:
            UnsupportedError: There is no GPU.
            MemoryLimitError: It does not fit.
            FaultError: The runtime broke, or the plan was built for another GPU or version.
        """
        return load_engine(library(), self._device(), plan, deployment)

    def peak_memory(
        self, plan: Path, deployment: Deployment, batch: Tensors, *, deadline_s: float
    ) -> int | None:
        """Compute the memory of the GPU that serving needs; nothing is run.

        Raises:
            TrialError: As for :meth:`load`.
        """
        del batch, deadline_s
        return needed_bytes(library(), self._device(), plan, deployment)

    def _device(self) -> Device:
        try:
            return self._find_device()
        except UnsupportedError as error:
            raise UnsupportedError(f"{_NO_GPU} ({error})") from error

    def _target_of(self, found: Library) -> str:
        if self._target is None:
            return self._device().facts.target
        known = found.targets()
        if self._target not in known:
            raise UnsupportedError(
                f"{found.name} {found.version} does not build for {self._target}; "
                f"use {', '.join(known) or 'the GPU of this machine'}"
            )
        return self._target


_NO_GPU = (
    "no NVIDIA GPU: engines can be built, not measured; `trifront build SPACE --targets SM89` "
    "builds those of a space, with 'trifront[tensorrt-rtx]'; to measure them, run on a machine "
    "with a GPU and 'trifront[pycuda]' or PyTorch with CUDA"
)
