"""Engines of ONNX Runtime on a GPU: what is kept as the plan, and how it is served.

**The plan.** The graph that is optimized for the CPU is laid out for that CPU, so no GPU ever gets
it; and a graph that was optimized for CUDA and saved cannot be loaded again (microsoft/onnxruntime
issue 11348). So with ``cuda`` the plan is the converted model itself, and ``graph_optimization``
is done whenever it is loaded: what is scored and what is measured are then made by the same steps,
and not the same file. ``tensorrt`` and ``nv-tensorrt-rtx`` compile an engine for one batch size,
and the plan is their *context model*: one ONNX file with that engine in it.

**Serving.** Requests are bound beforehand. With ``transfers: include`` inputs and outputs lie in
the memory of the host, and each request copies them to the GPU and back, as a server's do; with
``exclude`` they lie on the GPU. Either way a request is over when the GPU is done: a run waits for
its stream unless told otherwise.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from search_spaces.deployment import Deployment, Scalar
from trials.backend import EngineSpec
from trials.backends.ort_engine import OrtEngine, refuse_types
from trials.backends.ort_errors import mapped
from trials.backends.ort_log import INFO, overheard
from trials.backends.ort_providers import COMPILING, Provider, Providers
from trials.backends.ort_session import session_options
from trials.errors import FaultError, UnsupportedError
from trials.inspection import BuildLog, build_log
from trials.machine.nvml import meter
from trials.serving_options import Transfers, transfers_of

_CONTEXT = {"ep.context_enable": "1", "ep.context_embed_mode": "1"}
_CONTEXT_PATH = "ep.context_file_path"
_IDLE = {"threads": 1, "spinning": True}  # options that mean nothing on a GPU, at their defaults


def provider_of(options: tuple[tuple[str, Scalar], ...]) -> Provider:
    """Read the provider from a deployment's or a spec's options."""
    return Provider(str(dict(options).get("provider", Provider.CPU)))


def build_on_gpu(model: Path, spec: EngineSpec, plan: Path, providers: Providers) -> BuildLog:
    """Let the provider take the whole model, and keep what it is loaded from.

    Raises:
        UnsupportedError: The provider is not to be had, or leaves operators to the CPU.
        MemoryLimitError: It does not fit.
        FaultError: ONNX Runtime broke.
    """
    provider = provider_of(spec.options)
    options = session_options(level=_level(spec.options), log_severity=INFO)
    if provider in COMPILING:
        _fix_batch(options, model, spec.batch_size)
        for key, value in (*_CONTEXT.items(), (_CONTEXT_PATH, str(plan))):
            options.add_session_config_entry(key, value)
    with mapped(f"building {model.name} for {spec.precision} on {provider}"), overheard() as lines:
        refuse_types(
            providers.opened(str(model), options, provider=provider, precision=spec.precision)
        )
    if provider not in COMPILING:
        shutil.copyfile(model, plan)
    elif not plan.is_file():
        raise FaultError(f"{provider} took {model.name} and saved no engine")
    return build_log(lines)


def load_on_gpu(plan: Path, deployment: Deployment, providers: Providers) -> OrtEngine:
    """Load a plan on the GPU.

    Raises:
        UnsupportedError: An option that means nothing here, or a provider that fell back.
        MemoryLimitError: It does not fit.
        FaultError: ONNX Runtime broke, or the file is not a plan.
    """
    provider, transfers = provider_of(deployment.options), transfers_of(dict(deployment.options))
    _refuse_idle(deployment, provider)
    if transfers is Transfers.EXCLUDE and provider is Provider.RTX:
        raise UnsupportedError(
            f"provider {provider} binds no memory of the GPU here, so transfers are always in; "
            f"add the rule provider != '{provider}' or transfers == '{Transfers.INCLUDE}'"
        )
    options = session_options(level=_level(deployment.options))
    with _damage_is_a_fault(), mapped(f"loading an engine for {deployment}"):
        session = providers.opened(
            str(plan), options, provider=provider, precision=deployment.precision
        )
    return OrtEngine(
        session,
        transfers=transfers,
        allocate=None if transfers is Transfers.INCLUDE else providers.on_device,
        meters=meter,
    )


def _level(options: tuple[tuple[str, Scalar], ...]) -> str:
    return str(dict(options).get("graph_optimization", "all"))


def _refuse_idle(deployment: Deployment, provider: Provider) -> None:
    """Refuse values that would give one deployment two names."""
    chosen = dict(deployment.options)
    for name, default in _IDLE.items():
        if chosen.get(name, default) != default:
            written = str(default).lower()
            raise UnsupportedError(
                f"{name} is of the CPU and means nothing to provider {provider}; add the rule "
                f"provider == 'cpu' or {name} == {written}"
            )


@contextmanager
def _damage_is_a_fault() -> Iterator[None]:
    """Tell a file that is no plan from a provider that fell back, which is said by its name."""
    try:
        yield
    except UnsupportedError as error:
        if error.__cause__ is None:
            raise
        raise FaultError(f"{error}; the engine file is damaged") from error


def _fix_batch(options: Any, model: Path, batch_size: int | None) -> None:
    """Fix every free dimension of the inputs, which must be that of the batch alone.

    Raises:
        UnsupportedError: There are others, or it has no name to call it by.
    """
    import onnx

    assert batch_size is not None, "capabilities say that these engines serve one batch size"
    names = set()
    for value in onnx.load_model(model, load_external_data=False).graph.input:
        for place, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.HasField("dim_value"):
                continue
            if place or not dim.dim_param:
                raise UnsupportedError(
                    f"input {value.name!r} has a free dimension that is not its batch, or has no "
                    "name; this provider compiles for one shape: export it with a named batch and "
                    "other dimensions fixed"
                )
            names.add(dim.dim_param)
    for name in sorted(names):
        options.add_free_dimension_override_by_name(name, batch_size)
