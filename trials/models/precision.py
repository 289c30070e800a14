"""Convert a model to a precision: the arithmetic lives in the ONNX file, not in a builder flag.

One recipe per precision, made so that every backend can build the result. int8 in particular:
symmetric signed quantize/dequantize pairs, weights per channel, bias in floating point (TensorRT
refuses zero points and int32 biases). The pairs stand before the inputs of convolutions, matrix
products and residual additions and not behind convolutions, so that an activation function follows
its convolution at once and both are fused. Quantizing behind them as well, which is ONNX Runtime's
default, made a ResNet 1.5 times slower and no better.

No input file is touched. The result is one self-contained file, put in place at once.
"""

import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from search_spaces.deployment import Precision
from trials.backend import Tensors
from trials.errors import MemoryLimitError, TrialError, UnsupportedError
from trials.models.onnx_graph import drop_unused_domains, external_files, nodes, opset, tensors
from trials.models.onnx_model import one_line, read_model

if TYPE_CHECKING:
    from onnx import ModelProto

_RECIPE = "1"  # raise it when a recipe below changes: kept conversions are made anew
_QUANTIZED = ("Conv", "MatMul", "Gemm")
_LEAST_QDQ_OPSET = 13  # QuantizeLinear per channel
_WARNING, _ERROR = 2, 3  # log severities of ONNX Runtime; the first is its default


def needs_calibration(precision: Precision) -> bool:
    """Tell whether ``convert`` looks at calibration samples."""
    return precision is Precision.INT8


def converter_versions(precision: Precision) -> tuple[tuple[str, str], ...]:
    """Return everything besides model and samples that changes what ``convert`` writes."""
    if precision in (Precision.FP32, Precision.TF32):
        return ()
    return (
        ("onnx", version("onnx")),
        ("onnxruntime", version("onnxruntime")),
        ("recipe", _RECIPE),
    )


def convert(
    model: Path, precision: Precision, out: Path, *, calibration: Sequence[Tensors]
) -> None:
    """Write a self-contained copy of ``model`` that computes in ``precision``.

    Args:
        model: A checked ONNX file; never touched.
        precision: fp32 and tf32 keep the file as it is.
        out: Appears complete or not at all.
        calibration: Batches by input name, for the precisions that need them.

    Raises:
        UnsupportedError: There is no converter for the precision, or it cannot convert this model.
        MemoryLimitError: Converting needs more memory than there is.
    """
    converter = _CONVERTERS.get(precision)
    if converter is None:
        makeable = ", ".join(known.value for known in _CONVERTERS)
        raise UnsupportedError(f"no converter makes {precision.value}; use one of: {makeable}")
    with TemporaryDirectory(dir=out.parent, prefix=".convert-") as folder:
        made = Path(folder) / "converted.onnx"
        with _explained(model, precision), _silenced():
            converter(model, made, calibration)
        made.replace(out)


def _as_it_is(model: Path, made: Path, _: Sequence[Tensors]) -> None:
    import onnx

    if external_files(read_model(model), model):
        onnx.save_model(onnx.load_model(model), made)  # inlines the external data
    else:
        shutil.copyfile(model, made)


def _to_fp16(model: Path, made: Path, _: Sequence[Tensors]) -> None:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    typed = OnnxModel(convert_float_to_float16(_float_model(model), keep_io_types=True))
    typed.topological_sort()  # the converter appends its casts, which the checker refuses
    onnx.save_model(typed.model, made)
    onnx.checker.check_model(made)


def _to_int8(model: Path, made: Path, calibration: Sequence[Tensors]) -> None:
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    if not calibration:
        raise UnsupportedError("int8 needs calibration samples; name a calibration split")
    simplified = _simplified(model, made.with_name("simplified.onnx"))
    prepared = made.with_name("prepared.onnx")
    onnx.save_model(simplified, prepared)
    quantize_static(
        prepared,
        made,
        _Batches(calibration),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=[*_QUANTIZED, "Add"],
        nodes_to_exclude=_other_additions(simplified),
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "AddQDQPairToWeight": True,
            # not Gemm: without a pair behind it ONNX Runtime does not run it in integers
            "OpTypesToExcludeOutputQuantization": ["Conv", "MatMul", "Add"],
        },
    )
    _finish(made)


def _to_int8_dynamic(model: Path, made: Path, _: Sequence[Tensors]) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    prepared = made.with_name("prepared.onnx")
    onnx.save_model(_simplified(model, made.with_name("simplified.onnx")), prepared)
    quantize_dynamic(prepared, made, weight_type=QuantType.QInt8)
    _finish(made)


_CONVERTERS: Mapping[Precision, Callable[[Path, Path, Sequence[Tensors]], None]] = {
    Precision.FP32: _as_it_is,
    Precision.TF32: _as_it_is,  # the same file; the builder may round its products
    Precision.FP16: _to_fp16,
    Precision.INT8: _to_int8,
    Precision.INT8_DYNAMIC: _to_int8_dynamic,
}


def _float_model(path: Path) -> "ModelProto":
    """Load a model with its data, refusing one that is no longer in fp32."""
    import onnx
    from onnx import TensorProto

    model = onnx.load_model(path)
    reduced = {TensorProto.FLOAT16, TensorProto.BFLOAT16}
    if any(node.op_type == "DequantizeLinear" for node in nodes(model)) or any(
        tensor.data_type in reduced for tensor in tensors(model)
    ):
        raise UnsupportedError(
            "the file is already in a reduced precision; use fp32, which runs it as it is, or "
            "name the original as the variant"
        )
    return model


def _simplified(path: Path, scratch: Path) -> "ModelProto":
    """Fold constants and batch normalizations, infer shapes and name every node."""
    import onnx
    import onnxruntime

    original = _float_model(path)
    if opset(original) < _LEAST_QDQ_OPSET:
        raise UnsupportedError(
            f"int8 needs opset {_LEAST_QDQ_OPSET}, the model has {opset(original)}; export it "
            "with a newer opset, such as 18"
        )
    if not any(node.op_type in _QUANTIZED for node in original.graph.node):
        raise UnsupportedError("the model has no Conv, MatMul or Gemm to quantize; use fp32")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(scratch)
    options.log_severity_level = _ERROR
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    model = onnx.shape_inference.infer_shapes(onnx.load_model(scratch))
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"  # the quantizer tells nodes apart by name
    drop_unused_domains(model)
    return model


def _other_additions(model: "ModelProto") -> list[str]:
    """Name the additions that do not join a convolution with another activation."""
    convolved = {
        node.output[0] for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose")
    }
    constant = {tensor.name for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Add"
        and (convolved.isdisjoint(node.input) or not constant.isdisjoint(node.input))
    ]


def _finish(made: Path) -> None:
    import onnx

    model = onnx.load_model(made)
    drop_unused_domains(model)
    onnx.save_model(model, made)
    onnx.checker.check_model(made)


class _Batches:
    """Calibration batches in the way that ONNX Runtime asks for them."""

    def __init__(self, batches: Sequence[Tensors]) -> None:
        self._rest = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._rest, None)
        return None if batch is None else dict(batch)


@contextmanager
def _explained(model: Path, precision: Precision) -> Iterator[None]:
    try:
        yield
    except UnsupportedError as error:
        raise UnsupportedError(f"{model.name}: {error}") from error
    except (TrialError, OSError):
        raise
    except MemoryError as error:
        raise MemoryLimitError(
            f"{model.name}: converting to {precision.value} needs more memory than there is"
        ) from error
    except Exception as error:  # the converters raise whatever they stumble over
        raise UnsupportedError(
            f"{model.name}: cannot be converted to {precision.value} "
            f"({type(error).__name__}: {one_line(str(error))}); leave this precision out"
        ) from error


@contextmanager
def _silenced() -> Iterator[None]:
    """Keep the converters' advice off the terminal; what matters they raise.

    They print, warn and log on the root logger, which would also install a handler on it.
    """
    import onnxruntime

    silent = logging.NullHandler()
    disabled = logging.root.manager.disable
    logging.root.addHandler(silent)
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(_ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)
        logging.disable(disabled)
        logging.root.removeHandler(silent)
