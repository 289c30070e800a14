"""Sessions of ONNX Runtime, as engines are built and served in them."""

from typing import Any

from search_spaces.deployment import Deployment, Scalar

ERRORS_ONLY = 3  # log severity; saving a hardware-specific graph is a warning, and meant
LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}


def session_options(*, level: str, log_severity: int = ERRORS_ONLY) -> Any:
    """Return options for one thread, optimizing up to ``level``."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS[level])
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = log_severity
    return options


def serving_options(deployment: Deployment, *, log_severity: int = ERRORS_ONLY) -> Any:
    """Return the options that serve a saved graph as it is, as a deployment says."""
    chosen: dict[str, Scalar] = dict(deployment.options)
    options = session_options(level="disable", log_severity=log_severity)
    options.intra_op_num_threads = int(chosen.get("threads", 1))
    spinning = "1" if chosen.get("spinning", True) else "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    return options


def opened(source: str | bytes, options: Any) -> Any:
    """Open a session on the CPU."""
    import onnxruntime

    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
