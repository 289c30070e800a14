"""PyTorch, on the GPU where it sees one and else on the CPU.

The baseline: what a model does without another engine, as its operators one by one (``eager``),
compiled when it is loaded (``compile``) or beforehand (``aot``). It builds from programs of
``torch.export`` and not from ONNX, so that nothing of the model is lost on a detour.
"""

import importlib.util
import os
import shutil
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from search_spaces.deployment import Deployment, Precision, Scalar
from trials.backend import Capabilities, EngineSpec, ModelForm, Option, Scope, Tensors
from trials.backends.torch_card import Card, find_card
from trials.backends.torch_cuda import Cuda, CudaLanes, Forward
from trials.backends.torch_engine import CpuPlace, CudaPlace, TorchEngine, use_threads
from trials.backends.torch_errors import mapped
from trials.backends.torch_memory import device_memory, resident_memory
from trials.backends.torch_plan import (
    Mode,
    build_plan,
    layers_of,
    mode_of,
    read_body,
    read_package,
)
from trials.errors import UnsupportedError
from trials.inspection import BuildLog, Layer
from trials.machine.cpu import cpu_identity
from trials.machine.nvml import why_no_energy
from trials.measuring.memory import why_untold
from trials.models.signature import PlainSignature
from trials.models.torch_program import quiet
from trials.serving_options import ON_GPU, Transfers, transfers_of, uses_cuda_graph

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule

_RECIPE = "1"  # to be raised when the same spec builds another plan
_AMPERE = 80  # compute capability from which GPUs multiply in bf16 and tf32
_COMPILERS = ("g++", "clang++")
_NO_QUANTIZER = "trifront does not quantize torch programs; use backend ort or tensorrt for it"
_QUANTIZED = (Precision.INT8, Precision.INT8_DYNAMIC, Precision.FP8, Precision.INT4)
_THREADS = Option(
    name="threads",
    scope=Scope.SERVING,
    default=1,
    help="threads that work on one request; each request in flight has its own",
)


class TorchBackend:
    """PyTorch."""

    def __init__(self, cards: Callable[[], Card | None] = find_card) -> None:
        """Run on a GPU or on the CPU.

        Args:
            cards: Says which GPU; asked when it is needed, for that loads torch.
        """
        self._cards = cards

    @property
    def name(self) -> str:
        """Name in space files."""
        return "torch"

    def capabilities(self) -> Capabilities:
        """Say what is honoured on this machine.

        Raises:
            UnsupportedError: torch is not installed.
        """
        card = self._card()
        precisions = [Precision.FP32, Precision.FP16]
        refusals = [(precision, _NO_QUANTIZER) for precision in _QUANTIZED]
        if card is None:
            precisions.append(Precision.BF16)
            refusals.append((Precision.TF32, "it is an arithmetic of NVIDIA GPUs"))
        elif card.capability >= _AMPERE:
            precisions += [Precision.BF16, Precision.TF32]
        else:
            older = f"{card.name} is older than compute capability 8.0, which it needs"
            refusals += [(Precision.BF16, older), (Precision.TF32, older)]
        return Capabilities(
            precisions=tuple(precisions),
            refusals=tuple(refusals),
            options=options_of(is_gpu=card is not None, can_compile=has_compiler()),
            batch_fixing=tuple(("mode", mode.value) for mode in (Mode.COMPILE, Mode.AOT)),
            model_form=ModelForm.PROGRAM,
        )

    def environment(self) -> tuple[tuple[str, str], ...]:
        """Return the versions of torch and recipe, and the device that code is made for."""
        card = self._card()
        if card is None:
            facts = [*cpu_identity(), ("device", "cpu")]
        else:
            facts = [
                ("compute_capability", f"SM{card.capability}"),
                ("cuda", card.runtime),
                ("device", card.device),
                ("gpu", card.name),
            ]
        return tuple(sorted([*facts, ("recipe", _RECIPE), ("torch", version("torch"))]))

    def build(self, model: Path, spec: EngineSpec, plan: Path) -> BuildLog:
        """Write the program for its device, or compile it.

        Raises:
            ModelError: The file is no program of torch.
            UnsupportedError: A precision, operator or shape that cannot be run.
            MemoryLimitError: It does not fit.
            FaultError: torch broke.
        """
        self._refuse_precision(spec.precision)
        return build_plan(model, spec, plan, device=self._device())

    def inspect(self, model: Path, spec: EngineSpec, plan: Path) -> tuple[Layer, ...]:
        """Read the operators from the program; what was compiled is one function of them all.

        Raises:
            FaultError: The plan is none of ours.
        """
        return layers_of(spec, model, plan)

    def load(self, plan: Path, deployment: Deployment) -> TorchEngine:
        """Load a plan; mode ``compile`` compiles it now.

        Raises:
            UnsupportedError: The compiler does not know an operator.
            MemoryLimitError: It does not fit.
            FaultError: torch broke, or the file is not one of its engines.
        """
        self._require()
        options = dict(deployment.options)
        card = self._card()
        if card is None:
            return _on_cpu(plan, deployment, threads=int(options.get("threads", 1)))
        return _on_card(plan, deployment, card)

    def peak_memory(
        self, plan: Path, deployment: Deployment, batch: Tensors, *, deadline_s: float
    ) -> int | None:
        """Return the memory of the device that it lives in, bytes.

        On the CPU that of a process that serves nothing else, or None where the kernel does not
        tell; on a GPU what torch reserves of the device's.

        Raises:
            UnsupportedError: The engine does not take inputs of this shape.
            MemoryLimitError: It does not fit.
            FaultError: It broke, or ran past the deadline.
        """
        card = self._card()
        if card is None:
            return resident_memory(plan, deployment, batch, deadline_s=deadline_s)
        load = partial(self.load, plan, deployment)
        return device_memory(card.cuda, load, batch, concurrency=deployment.concurrency)

    def why_no_peak_memory(self, deployment: Deployment) -> str:
        """Say why it is not told: on the CPU where the kernel is silent."""
        del deployment
        return why_untold() if self._card() is None else ""

    def why_no_energy(self, deployment: Deployment) -> str:
        """Say why energy is not told: never on the CPU, on a GPU where it has no counter."""
        del deployment
        if self._card() is None:
            return "nothing meters the energy of a CPU here"
        return why_no_energy()

    def _card(self) -> Card | None:
        self._require()
        return self._cards()

    def _device(self) -> str:
        card = self._card()
        return "cpu" if card is None else card.device

    def _require(self) -> None:
        if importlib.util.find_spec("torch") is None:
            raise UnsupportedError(
                "backend 'torch' needs PyTorch; install 'trifront[torch]', or use backend: ort"
            )

    def _refuse_precision(self, precision: Precision) -> None:
        capabilities = self.capabilities()
        if precision not in capabilities.precisions:
            reason = dict(capabilities.refusals)[precision]
            raise UnsupportedError(
                f"torch does not build {precision} here: {reason}; use "
                f"{', '.join(capabilities.precisions)}"
            )


def has_compiler() -> bool:
    """Tell whether torch finds the C++ compiler that ``compile`` and ``aot`` call."""
    named = os.environ.get("CXX")
    return any(shutil.which(each) for each in ([named] if named else _COMPILERS))


def options_of(*, is_gpu: bool, can_compile: bool) -> tuple[Option, ...]:
    """Return the options that are honoured on a device, with a C++ compiler or without."""
    return (_mode_option(can_compile=can_compile), *(ON_GPU if is_gpu else (_THREADS,)))


def _mode_option(*, can_compile: bool) -> Option:
    modes: tuple[Scalar, ...] = (Mode.EAGER.value,)
    help_text = "operators one by one; compile and aot need a C++ compiler, as g++, on the PATH"
    if can_compile:
        modes = tuple(mode.value for mode in Mode)
        help_text = "operators one by one, compiled when loaded, or compiled beforehand"
    return Option(name="mode", scope=Scope.ENGINE, default="eager", choices=modes, help=help_text)


def _on_cpu(plan: Path, deployment: Deployment, *, threads: int) -> TorchEngine:
    mode = mode_of(deployment.options)
    if mode is Mode.AOT:
        package = read_package(plan, runners=deployment.concurrency, is_single=False)
        place = CpuPlace(forward=package.run, inputs=package.signature.inputs, threads=threads)
        return TorchEngine(package.signature, place)
    body, signature = read_body(plan, device="cpu", is_eager=mode is Mode.EAGER)
    place = CpuPlace(forward=body, inputs=signature.inputs, threads=threads)
    if mode is Mode.COMPILE:
        use_threads(threads)  # the number becomes part of the code
        place = CpuPlace(
            forward=_compiled(body, signature, device="cpu"),
            inputs=signature.inputs,
            threads=threads,
            scoring_threads=threads,
        )
    return TorchEngine(signature, place)


def _on_card(plan: Path, deployment: Deployment, card: Card) -> TorchEngine:
    mode, options = mode_of(deployment.options), dict(deployment.options)
    is_graphed = uses_cuda_graph(options)
    tf32 = deployment.precision is Precision.TF32
    card.cuda.use_tf32(allowed=tf32)  # compilers look at it
    forward: Forward
    if mode is Mode.AOT:
        package = read_package(plan, runners=deployment.concurrency, is_single=is_graphed)
        signature = package.signature
        forward = _one_at_a_time(package.run) if is_graphed else package.run
    else:
        body, signature = read_body(plan, device=card.device, is_eager=mode is Mode.EAGER)
        forward = body
        if mode is Mode.COMPILE:
            forward = _compiled(body, signature, device=card.device)
    lanes = CudaLanes(
        cuda=card.cuda,
        forward=_in_arithmetic(forward, card.cuda, tf32=tf32),
        inputs=signature.inputs,
        is_graphed=is_graphed,
        with_transfers=transfers_of(options) is Transfers.INCLUDE,
    )
    return TorchEngine(signature, CudaPlace(lanes=lanes, cuda=card.cuda, meters=card.meters))


def _compiled(body: "GraphModule", signature: PlainSignature, *, device: str) -> Forward:
    """Compile a program and let it run once, so that no request waits for the compiler."""
    import torch

    with quiet(), mapped("compiling an engine"), torch.inference_mode():
        compiled: Forward = torch.compile(body, fullgraph=True, dynamic=False)
        compiled(
            *(
                torch.zeros(one.shape, dtype=getattr(torch, one.dtype), device=device)
                for one in signature.inputs
            )
        )
    return compiled


def _in_arithmetic(forward: Forward, cuda: Cuda, *, tf32: bool) -> Forward:
    """Run in fp32 or tf32, whatever another engine of this process was run in meanwhile."""

    def run(*inputs: "Tensor") -> "list[Tensor]":
        cuda.use_tf32(allowed=tf32)
        return list(forward(*inputs))

    return run


def _one_at_a_time(forward: Forward) -> Forward:
    lock = Lock()

    def run(*inputs: "Tensor") -> "list[Tensor]":
        with lock:
            return list(forward(*inputs))

    return run
