"""ONNX Runtime, on the CPU or with a provider that runs on a GPU.

An engine is the graph as ONNX Runtime has optimized it, saved: what is stored, scored and measured
is the same file, and loading it optimizes nothing again. Tried for fp32, fp16, int8 and
int8-dynamic on six
models: bit-identical answers and the same speed as optimizing in the session that serves. Such a
graph is made for the instruction set of one CPU, so that CPU is part of an engine's identity. What
is kept and served on a GPU is told in ``ort_gpu``.
"""

from dataclasses import replace
from pathlib import Path

from search_spaces.deployment import Deployment, Precision
from trials.backend import (
    KEEP_LAYERS_OPTION,
    Capabilities,
    EngineSpec,
    Option,
    Scope,
    Tensors,
)
from trials.backends.ort_engine import OrtEngine, refuse_types
from trials.backends.ort_errors import mapped
from trials.backends.ort_gpu import (
    build_on_gpu,
    load_on_gpu,
    provider_of,
)
from trials.backends.ort_layers import layers_of
from trials.backends.ort_log import INFO, overheard
from trials.backends.ort_memory import peak_memory
from trials.backends.ort_providers import COMPILING, Provider, Providers
from trials.backends.ort_session import LEVELS, opened, serving_options, session_options
from trials.backends.ort_unsigned import use_unsigned
from trials.errors import FaultError, UnsupportedError
from trials.inspection import BuildLog, Layer, build_log
from trials.machine.cpu import cpu_identity
from trials.machine.nvml import why_no_energy
from trials.machine.packages import onnxruntime_version
from trials.measuring.memory import why_untold
from trials.serving_options import TRANSFERS, Transfers, transfers_of

_NO_TRANSFERS = (Transfers.EXCLUDE.value, "the CPU has no transfers to leave out")
_FUSING_LEVELS = ("extended", "all")  # those at which integer operators are made
_RECIPE = "1"  # to be raised when the same spec builds another graph
_CAPABILITIES = Capabilities(
    precisions=(Precision.FP32, Precision.FP16, Precision.INT8, Precision.INT8_DYNAMIC),
    refusals=(
        (Precision.TF32, "it is an arithmetic of NVIDIA GPUs"),
        (Precision.BF16, "its operators have no bf16 kernels on the CPU"),
        (Precision.FP8, "its optimizer miscomputes fp8 on the CPU"),
        (Precision.INT4, "only matrix products of language models have int4 kernels"),
    ),
    options=(
        KEEP_LAYERS_OPTION,
        Option(
            name="graph_optimization",
            scope=Scope.ENGINE,
            default="all",
            choices=tuple(LEVELS),
            help="how far the graph is fused, and laid out for the device",
        ),
        Option(
            name="threads",
            scope=Scope.SERVING,
            default=1,
            help="threads that work on one request; all requests share one pool",
        ),
        Option(
            name="spinning",
            scope=Scope.SERVING,
            default=True,
            choices=(False, True),
            help="idle threads burn CPU to wake faster; only with threads > 1",
        ),
    ),
    batch_fixing=tuple(("provider", one.value) for one in COMPILING),
    # activation scales are taken over the whole batch of each call
    batch_bound=(Precision.INT8_DYNAMIC,),
)


class OrtBackend:
    """ONNX Runtime with one of its execution providers."""

    def __init__(self, providers: Providers | None = None) -> None:
        """Wait for the first question.

        Args:
            providers: Those of the installed library, unless told.
        """
        self._providers = providers or Providers()

    @property
    def name(self) -> str:
        """Name in space files."""
        return "ort"

    def capabilities(self) -> Capabilities:
        """Say what is honoured; the same on every machine but for providers on GPUs."""
        providers = self._providers
        found = replace(_CAPABILITIES, options=(*_CAPABILITIES.options, *_gpu_options(providers)))
        if not providers.honours(Provider.CUDA):
            return found
        return replace(
            found,
            precisions=(*found.precisions, Precision.TF32),
            refusals=tuple(one for one in found.refusals if one[0] is not Precision.TF32),
        )

    def environment(self) -> tuple[tuple[str, str], ...]:
        """Return the versions of library and recipe, and the CPU that graphs are optimized for.

        Facts of a GPU are called ``provider.…`` and belong to the engines of its providers.
        """
        of_gpu = ((f"provider.{name}", value) for name, value in self._providers.facts)
        return (
            *cpu_identity(),
            ("onnxruntime", onnxruntime_version()),
            *of_gpu,
            ("recipe", _RECIPE),
        )

    def build(self, model: Path, spec: EngineSpec, plan: Path) -> BuildLog:
        """Optimize the graph in a session of its own and save it.

        Raises:
            UnsupportedError: A precision, operator, opset or type that cannot be run.
            MemoryLimitError: It does not fit.
            FaultError: ONNX Runtime broke.
        """
        _refuse_precision(spec)
        if provider_of(spec.options) is not Provider.CPU:
            return build_on_gpu(model, spec, plan, self._providers)
        options = session_options(level=_level(spec), log_severity=INFO)
        options.optimized_model_filepath = str(plan)
        source = _unsigned(model) if _is_made_unsigned(spec) else None
        with mapped(f"building {model.name} for {spec.precision}"), overheard() as lines:
            refuse_types(opened(source or str(model), options))
        return build_log(lines)

    def rewrite(self, model: Path, spec: EngineSpec, out: Path) -> bool:
        """Write an int8 model with unsigned activations, which ONNX Runtime runs faster.

        Returns:
            Whether there was anything to rewrite; if not, nothing is written.
        """
        rewritten = _unsigned(model) if _is_made_unsigned(spec) else None
        if rewritten is not None:
            out.write_bytes(rewritten)
        return rewritten is not None

    def inspect(self, model: Path, spec: EngineSpec, plan: Path) -> tuple[Layer, ...]:
        """Read the layers from the saved graph, and their origin from the model's.

        Raises:
            FaultError: The plan is not a saved graph.
        """
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # no types

        try:
            optimized = onnx.load_model(plan, load_external_data=False)
        except (OSError, DecodeError) as error:
            raise FaultError(f"{plan.name} is no engine of ONNX Runtime: {error}") from error
        given = onnx.load_model(model, load_external_data=False)
        if _is_made_unsigned(spec):
            use_unsigned(given)
        return layers_of(given, optimized)

    def load(self, plan: Path, deployment: Deployment) -> OrtEngine:
        """Load a plan as it is.

        Raises:
            UnsupportedError: An option that means nothing here, or a provider that fell back.
            MemoryLimitError: It does not fit.
            FaultError: ONNX Runtime broke, or the file is not a saved graph.
        """
        if provider_of(deployment.options) is not Provider.CPU:
            return load_on_gpu(plan, deployment, self._providers)
        if transfers_of(dict(deployment.options)) is not Transfers.INCLUDE:
            raise UnsupportedError(
                "the CPU has no transfers to leave out; add the rule provider != 'cpu' or "
                f"transfers == '{Transfers.INCLUDE}'"
            )
        try:
            with mapped(f"loading an engine for {deployment}"):
                return OrtEngine(opened(str(plan), serving_options(deployment)))
        except UnsupportedError as error:  # it was supported when it was built
            raise FaultError(f"{error}; the engine file is damaged") from error

    def peak_memory(
        self, plan: Path, deployment: Deployment, batch: Tensors, *, deadline_s: float
    ) -> int | None:
        """Return the resident memory of a process that serves nothing else, bytes.

        None where the kernel does not tell, as in some sandboxes, and on a GPU, whose memory
        others use too.

        Raises:
            UnsupportedError: The engine does not take inputs of this shape.
            MemoryLimitError: It does not fit.
            FaultError: The process that rehearses it died, or ran past the deadline.
        """
        if provider_of(deployment.options) is not Provider.CPU:
            return None
        return peak_memory(plan, deployment, batch, deadline_s=deadline_s)

    def why_no_peak_memory(self, deployment: Deployment) -> str:
        """Say why it is not told: on a GPU never, on the CPU where the kernel is silent."""
        provider = provider_of(deployment.options)
        if provider is Provider.CPU:
            return why_untold()
        return f"ONNX Runtime does not say what provider {provider} holds of the GPU's memory"

    def why_no_energy(self, deployment: Deployment) -> str:
        """Say why energy is not told: never on the CPU, on a GPU where it has no counter."""
        if provider_of(deployment.options) is Provider.CPU:
            return "nothing meters the energy of a CPU here"
        return why_no_energy()


def _level(spec: EngineSpec) -> str:
    return str(dict(spec.options).get("graph_optimization", "all"))


def _is_made_unsigned(spec: EngineSpec) -> bool:
    """Tell whether int8 activations become unsigned, which is for the kernels of the CPU alone."""
    is_on_cpu = provider_of(spec.options) is Provider.CPU
    return is_on_cpu and spec.precision is Precision.INT8 and _level(spec) in _FUSING_LEVELS


def _unsigned(model: Path) -> bytes | None:
    """Return the model with unsigned activations; None where it has none to rewrite."""
    import onnx

    loaded = onnx.load_model(model)
    content: bytes | None = loaded.SerializeToString() if use_unsigned(loaded) else None
    return content


def _gpu_options(providers: Providers) -> tuple[Option, ...]:
    refusals = providers.refusals
    has_gpu = len(refusals) < len(Provider) - 1
    return (
        Option(
            name="provider",
            scope=Scope.ENGINE,
            default=Provider.CPU.value,
            choices=tuple(one.value for one in Provider),
            refusals=tuple((one.value, reason) for one, reason in refusals),
            is_tacit=True,
            help="who runs the operators; all of them, or the deployment is infeasible",
        ),
        TRANSFERS if has_gpu else replace(TRANSFERS, refusals=(_NO_TRANSFERS,)),
    )


def _refuse_precision(spec: EngineSpec) -> None:
    precision = spec.precision
    if precision is Precision.TF32 and provider_of(spec.options) is Provider.CUDA:
        return
    if precision not in _CAPABILITIES.precisions:
        reason = dict(_CAPABILITIES.refusals)[precision]
        raise UnsupportedError(f"ort does not build {precision}: {reason}; use fp32 or int8")
