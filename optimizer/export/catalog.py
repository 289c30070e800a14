"""The export formats by name."""

from optimizer.errors import UsageError
from optimizer.export.bundle import BundleFormat
from optimizer.export.converted import OnnxFormat
from optimizer.export.export import Format
from optimizer.export.format_name import FormatName, TritonBackend
from optimizer.export.triton import TritonFormat


def format_named(
    name: FormatName, *, model_name: str | None = None, triton_backend: TritonBackend | None = None
) -> Format:
    """Make a format.

    Args:
        name: Which one.
        model_name: What Triton calls the model; None for the name of the space.
        triton_backend: What runs it there; None for the one that suits.

    Raises:
        UsageError: An option that the format does not have, or a name that is none.
    """
    if name is FormatName.TRITON:
        return TritonFormat(model_name=model_name, backend=triton_backend)
    if model_name is not None or triton_backend is not None:
        option = "--model-name" if model_name is not None else "--triton-backend"
        raise UsageError(f"{option} is for --format triton", hint="leave one of the two out")
    return OnnxFormat() if name is FormatName.ONNX else BundleFormat()
