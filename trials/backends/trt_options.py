"""What can be chosen about a TensorRT engine, by flavour and device, and how it is set."""

from dataclasses import dataclass
from typing import Any

from search_spaces.deployment import Precision, Scalar
from trials.backend import KEEP_LAYERS_OPTION, Capabilities, EngineSpec, Option, Scope
from trials.backends.trt_library import Library
from trials.errors import UnsupportedError

FIXED, DYNAMIC = "fixed", "dynamic"
_BYTES_PER_MIB = 1 << 20
_LEAST_CAPABILITY = {  # times ten, in TensorRT for RTX (tried) and in the data-centre's (read)
    Precision.FP32: (80, 75),
    Precision.TF32: (80, 80),
    Precision.FP16: (75, 75),
    Precision.BF16: (80, 80),
    Precision.INT8: (80, 75),
    Precision.INT4: (80, 80),
    Precision.FP8: (89, 89),
}
_BATCH_PROFILE = Option(
    name="batch_profile",
    scope=Scope.ENGINE,
    default=FIXED,
    choices=(FIXED, DYNAMIC),
    help="an engine for each batch size, or one for all, made for the largest",
)
_WORKSPACE = Option(
    name="workspace_mib",
    scope=Scope.ENGINE,
    default=0,
    least=0,
    help="scratch memory that its kernels may use, MiB; 0 for as much as the GPU has",
)
_DATA_CENTRE = (
    Option(
        name="optimization_level",
        scope=Scope.ENGINE,
        default=3,
        choices=(0, 1, 2, 3, 4, 5),
        help="how long the builder looks for fast kernels",
    ),
    Option(
        name="max_aux_streams",
        scope=Scope.ENGINE,
        default=-1,
        least=-1,
        help="streams that one request may use beside its own; -1 for as many as TensorRT likes",
    ),
    Option(
        name="sparsity",
        scope=Scope.ENGINE,
        default=False,
        choices=(False, True),
        help="kernels for weights of which two in four are 0; changes nothing for others",
    ),
)
_SPECIALIZATION = Option(
    name="kernel_specialization",
    scope=Scope.SERVING,
    default="eager",  # lazy ones are swapped in while it is measured
    choices=("eager", "lazy", "none"),
    help="when kernels are made for the batch that comes; for batch_profile dynamic",
)
_RTX = (_SPECIALIZATION,)
_SAME_PLAN = "TensorRT for RTX builds the same plan, byte for byte, whatever it is"
_INERT_IN_RTX = tuple((option.name, _SAME_PLAN) for option in _DATA_CENTRE)
_INERT_IN_DATA_CENTRE = tuple(
    (option.name, "only TensorRT for RTX makes kernels when it serves") for option in _RTX
)


def options_of(*, is_rtx: bool) -> tuple[Option, ...]:
    """Return the options that a flavour honours, on whatever device."""
    return (KEEP_LAYERS_OPTION, _BATCH_PROFILE, _WORKSPACE, *(_RTX if is_rtx else _DATA_CENTRE))


def capabilities_of(library: Library, compute_capability: int) -> Capabilities:
    """Say what a flavour honours for a device.

    Args:
        library: The flavour.
        compute_capability: Of the device, as in SM89.
    """
    refusals = [(Precision.INT8_DYNAMIC, "TensorRT wants the scales of activations beforehand")]
    precisions = []
    for precision, (in_rtx, in_data_centre) in _LEAST_CAPABILITY.items():
        least = in_rtx if library.is_rtx else in_data_centre
        if compute_capability >= least:
            precisions.append(precision)
        else:
            refusals.append((precision, _older(least, compute_capability)))
    return Capabilities(
        precisions=tuple(precisions),
        refusals=tuple(refusals),
        options=options_of(is_rtx=library.is_rtx),
        inert=_INERT_IN_RTX if library.is_rtx else _INERT_IN_DATA_CENTRE,
        batch_in_engine=True,
        dynamic_batch=(_BATCH_PROFILE.name, DYNAMIC),
    )


def _older(least: int, compute_capability: int) -> str:
    needed = f"{least // 10}.{least % 10}"
    return f"its products need compute capability {needed}, and SM{compute_capability} is older"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Batch sizes that an engine serves, and the one that it is made for."""

    least: int
    best: int
    most: int

    def __str__(self) -> str:
        if self.least == self.most:
            return f"batch size {self.most}"
        return f"batch sizes {self.least} to {self.most}"


def profile_of(spec: EngineSpec) -> Profile:
    """Read from an engine's spec which batch sizes it serves."""
    chosen = dict(spec.options)
    if spec.batch_size is not None:
        return Profile(least=spec.batch_size, best=spec.batch_size, most=spec.batch_size)
    least, best, most = (int(chosen[f"{name}_batch_size"]) for name in ("min", "opt", "max"))
    return Profile(least=least, best=best, most=most)


def refuse_idle(options: tuple[tuple[str, Scalar], ...]) -> None:
    """Refuse values that would give one deployment two names.

    Raises:
        UnsupportedError: A kernel is specialized for a batch that the engine already fixes.
    """
    chosen = dict(options)
    name, default = _SPECIALIZATION.name, _SPECIALIZATION.default
    is_fixed = chosen.get(_BATCH_PROFILE.name, FIXED) == FIXED
    if is_fixed and chosen.get(name, default) != default:
        raise UnsupportedError(
            f"{name} is for engines of several batch sizes and changes nothing with "
            f"{_BATCH_PROFILE.name} {FIXED}; add the rule {_BATCH_PROFILE.name} == '{DYNAMIC}' or "
            f"{name} == '{default}'"
        )


def set_options(trt: Any, config: Any, spec: EngineSpec) -> None:
    """Set a builder's configuration to what a spec asks for.

    TF32 is a permission and on unless it is taken away: fp32 takes it away, and every other
    precision leaves to TensorRT what its fp32 layers compute in. It is no matter of typing and is
    kept in TensorRT 11, where networks are always strongly typed.

    Args:
        trt: The library's module.
        config: Its ``IBuilderConfig``.
        spec: Of the engine.
    """
    chosen: dict[str, Scalar] = dict(spec.options)
    if spec.precision is Precision.FP32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if (mib := int(chosen.get("workspace_mib", 0))) > 0:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, mib * _BYTES_PER_MIB)
    if "optimization_level" in chosen:
        config.builder_optimization_level = int(chosen["optimization_level"])
    if (streams := int(chosen.get("max_aux_streams", -1))) >= 0:
        config.max_aux_streams = streams
    if chosen.get("sparsity", False):
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
