"""TensorRT: data-centre TensorRT 10 and 11, or TensorRT for RTX, whichever is installed.

The precision lives in the types of the ONNX file, and networks are strongly typed, which is the
one way that all of them share. An engine serves one batch size, or all up to a largest one.
TensorRT for RTX also builds without a GPU, for a target that is named (``trifront build``).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Never

from search_spaces.deployment import Deployment
from trials.backend import Capabilities, EngineSpec, Tensors, Workshop
from trials.backends.trt_build import Order, build_plan
from trials.backends.trt_gpu import Gpu, gpu_here
from trials.backends.trt_library import Library, foreign_errors, library
from trials.backends.trt_options import capabilities_of
from trials.errors import UnsupportedError
from trials.inspection import BuildLog, Layer

_RECIPE = "2"  # to be raised when the same spec builds another plan


class TensorRtBackend:
    """TensorRT, for a named target or for the GPU of this machine."""

    def __init__(
        self,
        target: str | None = None,
        *,
        load: Callable[[], Library] = library,
        look: Callable[[], Gpu | None] = gpu_here,
    ) -> None:
        """Build for a device; nothing is touched before a call.

        Args:
            target: Compute capability such as ``SM89``; None for the GPU of this machine.
            load: Gives the library.
            look: Tells which GPU is here.
        """
        self._target = target
        self._library = load
        self._gpu_here = look

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
        gpu = self._gpu()  # first: nothing that could be installed brings one
        found = self._library()
        target = self._checked_target(found) if gpu is None else f"SM{gpu.compute_capability}"
        return capabilities_of(found, int(target.removeprefix("SM")))

    def environment(self) -> tuple[tuple[str, str], ...]:
        """Return flavour, version, recipe and target, or else the GPU with its driver."""
        gpu = self._gpu()
        found = self._library()
        facts = {"recipe": _RECIPE, found.name: found.version}
        if gpu is None:
            facts["compute_capability"] = self._checked_target(found)
        else:
            facts["compute_capability"] = f"SM{gpu.compute_capability}"
            facts |= {"device": gpu.name, "device_driver": gpu.driver}
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
        """Say nothing: TensorRT tells the layers of a plan on the GPU that it was built for."""
        del model, spec, plan
        return ()

    def load(self, plan: Path, deployment: Deployment) -> Never:
        """Refuse: a plan runs on the GPU that it was built for.

        Raises:
            UnsupportedError: Always.
        """
        del plan, deployment
        raise UnsupportedError(_NOT_MEASURED)

    def peak_memory(
        self, plan: Path, deployment: Deployment, batch: Tensors, *, deadline_s: float
    ) -> int | None:
        """Say nothing: it would have to be loaded."""
        del plan, deployment, batch, deadline_s
        return None

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
        with foreign_errors(f"building {model.name} for {self._target or 'the GPU here'}"):
            return build_plan(found, order, plan)

    def _aim(self, found: Library) -> str | None:
        """Say what the builder is told; the data-centre flavour knows its GPU by itself.

        TensorRT for RTX that is told nothing builds for every GPU from Ampere on.
        """
        gpu = self._gpu()
        if gpu is None or not found.is_rtx:
            return self._target
        here = f"SM{gpu.compute_capability}"
        return here if here in found.targets() else "CURRENT"

    def _gpu(self) -> Gpu | None:
        """Return the GPU that is built for; None where a target was named."""
        if self._target is not None:
            return None
        found = self._gpu_here()
        if found is None:
            raise UnsupportedError(_NO_GPU)
        return found

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
    "builds those of a space, with 'trifront[tensorrt-rtx]'"
)
_NOT_MEASURED = "this version of trifront builds TensorRT engines and measures none yet"
