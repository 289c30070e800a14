"""TensorRT: data-centre TensorRT 10 and 11, or TensorRT for RTX, whichever is installed.

The precision lives in the types of the ONNX file, and networks are strongly typed, which is the
one way that all of them share. An engine serves one batch size. TensorRT for RTX also builds
without a GPU, for a target that is named (``trifront build``).
"""

from pathlib import Path
from typing import Never

from search_spaces.deployment import Deployment, Precision
from trials.backend import KEEP_LAYERS_OPTION, Capabilities, EngineSpec, Tensors
from trials.backends.trt_build import build_plan
from trials.backends.trt_library import Library, foreign_errors, library
from trials.errors import UnsupportedError
from trials.inspection import BuildLog, Layer

_RECIPE = "1"  # to be raised when the same spec builds another plan
_LEAST_CAPABILITY = {  # times ten, for the products of each precision; tried with RTX 1.7
    Precision.FP32: 80,
    Precision.FP16: 75,
    Precision.BF16: 80,
    Precision.INT8: 80,
    Precision.INT4: 80,
    Precision.FP8: 89,
}


class TensorRtBackend:
    """TensorRT, for a named target."""

    def __init__(self, target: str | None = None) -> None:
        """Build for a device.

        Args:
            target: Compute capability such as ``SM89``; None for the GPU of this machine.
        """
        self._target = target

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
        if self._target is None:  # nothing that could be installed changes that
            raise UnsupportedError(_NO_GPU)
        found = library()
        target = self._target_of(found)
        refusals = [
            (Precision.TF32, "TensorRT for RTX builds the same engine as for fp32"),
            (
                Precision.INT8_DYNAMIC,
                "TensorRT wants the scales of activations beforehand; use int8",
            ),
        ]
        capability = int(target.removeprefix("SM"))
        precisions = []
        for precision, least in _LEAST_CAPABILITY.items():
            if capability >= least:
                precisions.append(precision)
            else:
                wanted = f"its products need compute capability {least / 10:.1f}"
                refusals.append((precision, f"{wanted}, and {target} is older"))
        return Capabilities(
            precisions=tuple(precisions),
            refusals=tuple(refusals),
            options=(KEEP_LAYERS_OPTION,),
            batch_in_engine=True,
        )

    def environment(self) -> tuple[tuple[str, str], ...]:
        """Return flavour, version, target and recipe."""
        found = library()
        return (
            ("compute_capability", self._target_of(found)),
            ("recipe", _RECIPE),
            (found.name, found.version),
        )

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
            return build_plan(found, model, plan, batch_size=spec.batch_size, target=target)

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
        raise UnsupportedError(_NO_GPU)

    def peak_memory(
        self, plan: Path, deployment: Deployment, batch: Tensors, *, deadline_s: float
    ) -> int | None:
        """Say nothing: it would have to be loaded."""
        del plan, deployment, batch, deadline_s
        return None

    def _target_of(self, found: Library) -> str:
        if self._target is None:
            raise UnsupportedError(_NO_GPU)
        known = found.targets()
        if self._target not in known:
            raise UnsupportedError(
                f"{found.name} {found.version} does not build for {self._target}; "
                f"use {', '.join(known) or 'the GPU of this machine'}"
            )
        return self._target


_NO_GPU = (
    "this version of trifront builds TensorRT engines for named targets and measures none yet; "
    "`trifront build SPACE --targets SM89` builds those of a space, with 'trifront[tensorrt-rtx]'"
)
