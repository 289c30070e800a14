"""Build a plan from a typed ONNX file: parse, set one batch size, compile, write."""

from pathlib import Path
from typing import Any

from trials.backends.trt_library import Library, Said
from trials.errors import FaultError, MemoryLimitError, UnsupportedError
from trials.inspection import BuildLog, build_log

_MOST_CHARACTERS = 300
_NO_MEMORY = ("out of memory", "outofmemory", "insufficient workspace", "bad_alloc")
# the compiler's word for what the device lacks, against a fault of its own
_NO_SUPPORT = ("not supported", "unsupported", "cannot compile operation", "not implemented")


def build_plan(
    library: Library, model: Path, plan: Path, *, batch_size: int, target: str | None
) -> BuildLog:
    """Build an engine that serves one batch size.

    Args:
        library: The flavour.
        model: ONNX whose types are the precision: the network is strongly typed.
        plan: Where the engine is written.
        batch_size: Of each request; replaces the free first dimension of every input.
        target: Compute capability that is built for, such as ``SM89``; None for the GPU here.

    Returns:
        What the builder said.

    Raises:
        UnsupportedError: A node, shape or arithmetic that the flavour or the device does not have.
        MemoryLimitError: It does not fit.
        FaultError: The builder broke.
    """
    trt, said = library.module, Said()
    logger = said.logger(trt)
    builder = trt.Builder(logger)
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(model)):
        raise UnsupportedError(f"TensorRT cannot read {model.name}: {_first_problem(parser)}")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    _add_profile(builder, config, network, batch_size)
    if target is not None:
        _aim(trt, config, target)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise build_failure(said, batch_size)
    plan.write_bytes(bytes(serialized))
    return build_log(said.lines)


def build_failure(said: Said, batch_size: int) -> UnsupportedError | MemoryLimitError | FaultError:
    """Tell from what a builder said whose fault it is that there is no engine."""
    reason = _short(said.errors[-1]) if said.errors else "it does not say why"
    told = " ".join(said.errors).lower()
    if any(word in told for word in _NO_MEMORY):
        return MemoryLimitError(
            f"building for batch size {batch_size} needs more memory than there is ({reason}); "
            "lower batch_size"
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
    return f"{where}{_short(error.desc())}"


def _add_profile(builder: Any, config: Any, network: Any, batch_size: int) -> None:
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        first, *rest = tuple(tensor.shape)
        if any(size < 0 for size in rest):
            raise UnsupportedError(
                f"input {tensor.name!r} has free dimensions besides the batch: "
                f"{tuple(tensor.shape)}; export the model with fixed ones"
            )
        shape = (batch_size if first < 0 else first, *rest)
        profile.set_shape(tensor.name, shape, shape, shape)  # says nothing, even when it refuses
    if config.add_optimization_profile(profile) < 0:
        raise UnsupportedError(f"TensorRT refuses inputs of batch size {batch_size}")


def _aim(trt: Any, config: Any, target: str) -> None:
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(getattr(trt.ComputeCapability, target), 0):
        raise UnsupportedError(f"TensorRT does not build for {target}")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MOST_CHARACTERS else f"{line[:_MOST_CHARACTERS]}…"
