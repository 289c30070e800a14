"""TensorRT: data-centre TensorRT 10 and 11, or TensorRT for RTX, whichever is installed.

The precision lives in the types of the ONNX file, and networks are strongly typed, which is the
one way that all of them share. An engine serves one batch size, or all up to a largest one.
TensorRT for RTX also builds without a GPU, for a target that is named (``trifront build``).
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from search_spaces.deployment import Deployment
from trials.abilities import Workshop
from trials.backend import Capabilities, EngineSpec, Tensors
from trials.backends.trt_build import Order, build_plan
from trials.backends.trt_engine import TrtEngine, load_engine, needed_bytes
from trials.backends.trt_layers import layers_from_inspector
from trials.backends.trt_library import Library, library
from trials.backends.trt_options import capabilities_of
from trials.backends.trt_runtime import plan_from_file
from trials.devices.catalog import this_device
from trials.devices.device import Device, DeviceFacts
from trials.errors import UnsupportedError
from trials.inspection import BuildLog, Layer
from trials.machine.nvml import why_no_energy
from trials.serving_options import ON_GPU

_RECIPE = "2"  # to be raised when the same spec builds another plan


class TensorRtBackend:
    """TensorRT, for a named target or for the GPU of this machine."""

    def __init__(
        self,
        target: str | None = None,
        *,
        load: Callable[[], Library] = library,
        find_device: Callable[[], Device] = this_device,
    ) -> None:
        """Build for a device; nothing is touched before a call.

        Args:
            target: Compute capability such as ``SM89``; None for the GPU of this machine.
            load: Gives the library.
            find_device: Gives that GPU.
        """
        self._target = target
        self._library = load
        self._find_device = find_device

    @property
    def name(self) -> str:
        """Name in space files."""
        return "tensorrt"

    def targets(self) -> tuple[str, ...]:
        """Name the compute capabilities that TensorRT for RTX builds for, without having one."""
        return self._library().targets()

    def capabilities(self) -> Capabilities:
        """Say what is honoured for the target.

        Raises:
            UnsupportedError: TensorRT is not installed, it does not build for the target, or a
                target was not named and there is no GPU.
        """
        here = self._gpu()  # first: no library that could be installed brings one
        found = self._library()
        target = self._checked_target(found) if here is None else here.target
        built = capabilities_of(found, int(target.removeprefix("SM")))
        return replace(built, options=(*built.options, *ON_GPU))

    def environment(self) -> tuple[tuple[str, str], ...]:
        """Return flavour, version, recipe and target, or else the GPU with its driver."""
        here = self._gpu()
        found = self._library()
        facts = {"recipe": _RECIPE, found.name: found.version}
        if here is None:
            facts["compute_capability"] = self._checked_target(found)
        else:
            facts["compute_capability"] = here.target
            facts |= {"device": here.name, "device_driver": here.driver}
        return tuple(sorted(facts.items()))

    def build(self, model: Path, spec: EngineSpec, plan: Path) -> BuildLog:
        """Build a plan.

        Raises:
            UnsupportedError: A node, shape or arithmetic that TensorRT or the target lacks.
            MemoryLimitError: It does not fit.
            FaultError: The builder broke.
        """
        return self._built(model, spec, plan, None)

    def build_at_length(
        self, model: Path, spec: EngineSpec, plan: Path, workshop: Workshop
    ) -> BuildLog:
        """Build a plan, telling how far it is, with the timings that earlier builds took.

        Raises:
            TrialError: As for ``build``.
            BaseException: What ``workshop.tell`` raised.
        """
        return self._built(model, spec, plan, workshop)

    def inspect(self, model: Path, spec: EngineSpec, plan: Path) -> tuple[Layer, ...]:
        """Ask TensorRT, which tells the layers of a plan on the GPU that it was built for.

        Says nothing of a plan for a named target, whose GPU need not be here.

        Raises:
            FaultError: The plan is not one of its engines.
        """
        del model, spec
        if self._target is not None:
            return ()
        with self._device().current(), closing(plan_from_file(self._library(), plan)) as loaded:
            return layers_from_inspector(loaded.layers_json())

    def load(self, plan: Path, deployment: Deployment) -> TrtEngine:
        """Load a plan onto the GPU of this machine.

        Raises:
            UnsupportedError: There is no GPU.
            MemoryLimitError: It does not fit.
            FaultError: The runtime broke, or the plan was built for another GPU or version.
        """
        return load_engine(self._library(), self._device(), plan, deployment)

    def peak_memory(
        self, plan: Path, deployment: Deployment, batch: Tensors, *, deadline_s: float
    ) -> int | None:
        """Compute the memory of the GPU that serving needs; nothing is run.

        Raises:
            TrialError: As for :meth:`load`.
        """
        del batch, deadline_s
        return needed_bytes(self._library(), self._device(), plan, deployment)

    def why_no_energy(self, deployment: Deployment) -> str:
        """Say why the energy of a deployment cannot be told here; empty where it can."""
        del deployment
        if (here := self._gpu()) is None:
            return "engines for a named target are not measured"
        return why_no_energy(uuid=here.uuid)

    def _device(self) -> Device:
        try:
            return self._find_device()
        except UnsupportedError as error:
            raise UnsupportedError(f"{_NO_GPU} ({error})") from error

    def _built(
        self, model: Path, spec: EngineSpec, plan: Path, workshop: Workshop | None
    ) -> BuildLog:
        refusals = dict(self.capabilities().refusals)
        if spec.precision in refusals:
            raise UnsupportedError(
                f"TensorRT does not build {spec.precision}: {refusals[spec.precision]}"
            )
        found = self._library()
        order = Order(model=model, spec=spec, target=self._aim(found), workshop=workshop)
        return build_plan(found, order, plan)

    def _aim(self, found: Library) -> str | None:
        """Say what the builder is told; the data-centre flavour knows its GPU by itself.

        TensorRT for RTX that is told nothing builds for every GPU from Ampere on.
        """
        here = self._gpu()
        if here is None or not found.is_rtx:
            return self._target
        return here.target if here.target in found.targets() else "CURRENT"

    def _gpu(self) -> DeviceFacts | None:
        """Return the GPU that is built for; None where a target was named."""
        return None if self._target is not None else self._device().facts

    def _checked_target(self, found: Library) -> str:
        assert self._target is not None, "else there is a GPU"
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
