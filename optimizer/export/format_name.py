"""Names and defaults of exports; apart from the formats, so that ``--help`` need not load them."""

from enum import StrEnum

REFERENCES = 512  # on as many samples an accuracy of 90 % is known to ±2.6 points


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
