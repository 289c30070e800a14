"""Names of the export formats; apart from the formats, so that ``--help`` need not load them."""

from enum import StrEnum


class FormatName(StrEnum):
    """Formats that a deployment can be exported in."""

    BUNDLE = "bundle"
    TRITON = "triton"
    ONNX = "onnx"


class TritonBackend(StrEnum):
    """What runs the model inside Triton Inference Server."""

    ONNXRUNTIME = "onnxruntime"
    TENSORRT = "tensorrt"
    PYTHON = "python"
