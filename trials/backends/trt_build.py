"""Build a plan from a typed ONNX file: parse, set the batch sizes, compile, write."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trials.abilities import Workshop
from trials.backend import EngineSpec
from trials.backends.trt_library import NO_MEMORY, Library, Said, foreign_errors, short
from trials.backends.trt_options import Profile, profile_of, set_options
from trials.backends.trt_progress import Watch
from trials.backends.trt_timing import cache_file, timings
from trials.errors import FaultError, MemoryLimitError, UnsupportedError
from trials.inspection import BuildLog, build_log

_NO_WORKSPACE = ("within workspace limit", "requires workspace memory", "insufficient workspace")
_NO_MEMORY = (*NO_MEMORY, *_NO_WORKSPACE)
# the compiler's word for what the device lacks, against a fault of its own
_NO_SUPPORT = ("not supported", "unsupported", "cannot compile", "not implemented")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be built.

    Attributes:
        model: ONNX whose types are the precision: the network is strongly typed.
        target: Compute capability that TensorRT for RTX builds for, such as ``SM89``, or
            ``CURRENT``; None for the data-centre flavour, which builds for the GPU here.
        workshop: Who hears how far it is; None for nobody.
    """

    model: Path
    spec: EngineSpec
    target: str | None
    workshop: Workshop | None = None


def build_plan(library: Library, order: Order, plan: Path) -> BuildLog:
    """Build an engine.

    Args:
        library: The flavour.
        order: What is built.
        plan: Where the engine is written.

    Returns:
        What the builder said.

    Raises:
        UnsupportedError: A node, shape or arithmetic that the flavour or the device does not have.
        MemoryLimitError: It does not fit.
        FaultError: The builder broke.
        BaseException: What the workshop raised to break it off.
    """
    said = Said()
    with foreign_errors(f"building {order.model.name} for {order.target or 'the GPU here'}", said):
        serialized = _parsed_and_compiled(library, order, said)
    if serialized is None:
        raise build_failure(said, order.spec)
    plan.write_bytes(bytes(serialized))
    return build_log(said.lines)


def _parsed_and_compiled(library: Library, order: Order, said: Said) -> Any:
    """Return the serialized engine; None where there is none."""
    trt = library.module
    logger = said.logger(trt)
    builder = trt.Builder(logger)
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(order.model)):
        raise UnsupportedError(
            f"TensorRT cannot read {order.model.name}: {_first_problem(parser)}"
        )
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    _add_profile(builder, config, network, profile_of(order.spec))
    set_options(trt, config, order.spec)
    if order.target is not None:
        _aim(trt, config, order.target)
    return _compiled(library, order, said, (builder, network, config))


def _compiled(library: Library, order: Order, said: Said, parts: tuple[Any, Any, Any]) -> Any:
    """Let the builder work; returns the serialized engine, None where there is none."""
    builder, network, config = parts
    if order.workshop is None:
        return builder.build_serialized_network(network, config)
    watch = Watch(order.workshop)
    config.progress_monitor = watch.monitor(library.module)
    with ExitStack() as stack:
        if not library.is_rtx:
            path = cache_file(order.workshop.shelf, order.spec.environment)
            stack.enter_context(timings(config, path, said.lines))
        serialized = builder.build_serialized_network(network, config)
    if watch.raised is not None:
        raise watch.raised
    return serialized


def build_failure(
    said: Said, spec: EngineSpec
) -> UnsupportedError | MemoryLimitError | FaultError:
    """Tell from what a builder said whose fault it is that there is no engine."""
    reason = short(said.errors[-1]) if said.errors else "it does not say why"
    told = " ".join(said.errors).lower()
    if any(word in told for word in _NO_MEMORY):
        limit = int(dict(spec.options).get("workspace_mib", 0))
        bound = f" of {limit} MiB (workspace_mib)" if limit else ""
        return MemoryLimitError(
            f"building for {profile_of(spec)} needs more memory than there is{bound}: {reason}; "
            f"{'raise workspace_mib' if limit else 'lower batch_size'}"
        )
    if any(word in told for word in _NO_SUPPORT):
        return UnsupportedError(f"TensorRT cannot build this: {reason}")
    return FaultError(f"TensorRT gave up building: {reason}")


def _first_problem(parser: Any) -> str:
    """Name the node that the parser stumbled over."""
    if parser.num_errors == 0:
        return "it does not say why"
    error = parser.get_error(0)
    name, operator = error.node_name(), error.node_operator()
    where = f"node {name!r} ({operator}): " if operator else ""
    return f"{where}{short(error.desc())}"


def _add_profile(builder: Any, config: Any, network: Any, sizes: Profile) -> None:
    profile = builder.create_optimization_profile()
    is_free = False
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        first, *rest = tuple(tensor.shape)
        if any(size < 0 for size in rest):
            raise UnsupportedError(
                f"input {tensor.name!r} has free dimensions besides the batch: "
                f"{tuple(tensor.shape)}; export the model with fixed ones"
            )
        is_free |= first < 0
        least, best, most = (
            (size if first < 0 else first, *rest) for size in (sizes.least, sizes.best, sizes.most)
        )
        profile.set_shape(tensor.name, least, best, most)  # says nothing, even when it refuses
    if sizes.least < sizes.most and not is_free:
        raise UnsupportedError(
            "the model's batch size is fixed, so that batch_profile: dynamic would be the same "
            "engine as fixed; use fixed, or export the model with a free batch"
        )
    if config.add_optimization_profile(profile) < 0:
        raise UnsupportedError(f"TensorRT refuses inputs of {sizes}")


def _aim(trt: Any, config: Any, target: str) -> None:
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(getattr(trt.ComputeCapability, target), 0):
        raise UnsupportedError(f"TensorRT does not build for {target}")
