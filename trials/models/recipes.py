"""The recipes: how each precision is made of a model in fp32, all but the layers that are kept.

A recipe looks at the model once (and, where it calibrates, at the samples) and then makes the
lowered model as often as it is asked, each time with other layers kept in fp32.

int8 in particular: symmetric signed quantize/dequantize pairs, weights per channel, bias in
floating point (TensorRT refuses zero points and int32 biases). The pairs stand before the inputs
of convolutions, matrix products and residual additions and not behind convolutions, so that an
activation function follows its convolution at once and both are fused. Quantizing behind them as
well, which is ONNX Runtime's default, made a ResNet 1.5 times slower and no better.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from search_spaces.deployment import Precision
from trials.backend import Tensors
from trials.errors import UnsupportedError
from trials.models.bfloat16 import BF16_OPSET, use_bfloat16
from trials.models.kept_pairs import keep_in_fp32
from trials.models.layers import PRODUCTS, Product, name_nodes, products_of, weighted
from trials.models.narrow_pairs import (
    FP8_OPSET,
    INT4_OPSET,
    add_fp8_pairs,
    add_int4_weights,
    blocked,
    largest_activations,
)
from trials.models.onnx_graph import drop_unused_domains
from trials.models.simplified import float_model, simplified_model

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowering:
    """A model that is about to be lowered.

    Attributes:
        layers: Those that the precision lowers, in the order of execution.
        keeping: Makes the lowered model with the named ones of these layers kept in fp32.
    """

    layers: tuple[Product, ...]
    keeping: "Callable[[Collection[str]], ModelProto]"


Recipe = Callable[[Path, Path, Sequence[Tensors]], Lowering]
"""Look at a model, with a folder for files until it returns, and the calibration batches."""


def _fp16(model: Path, scratch: Path, _: Sequence[Tensors]) -> Lowering:
    del scratch
    named = float_model(model)
    name_nodes(named)

    def keeping(kept: Collection[str]) -> "ModelProto":
        from onnxruntime.transformers.float16 import convert_float_to_float16
        from onnxruntime.transformers.onnx_model import OnnxModel

        given = float_model(model)
        if kept:
            name_nodes(given)
        typed = OnnxModel(
            convert_float_to_float16(
                given, keep_io_types=True, node_block_list=sorted(kept) or None
            )
        )
        typed.topological_sort()  # the converter appends its casts, which the checker refuses
        lowered: ModelProto = typed.model
        if kept:
            del lowered.graph.value_info[:]  # it calls what kept nodes make fp16
        return lowered

    return Lowering(layers=products_of(named), keeping=keeping)


def _bf16(model: Path, scratch: Path, _: Sequence[Tensors]) -> Lowering:
    simplified = simplified_model(model, scratch, "bf16", least_opset=BF16_OPSET)

    def keeping(kept: Collection[str]) -> "ModelProto":
        lowered = _copied(simplified)
        use_bfloat16(lowered, kept)
        return lowered

    return Lowering(layers=products_of(simplified), keeping=keeping)


def _int8(model: Path, scratch: Path, calibration: Sequence[Tensors]) -> Lowering:
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    _refuse_uncalibrated("int8", calibration)
    simplified = simplified_model(model, scratch, "int8")
    prepared, made = scratch / "prepared.onnx", scratch / "quantized.onnx"
    onnx.save_model(simplified, prepared)
    quantize_static(
        prepared,
        made,
        _Batches(calibration),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=[*PRODUCTS, "Add"],
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
    quantized = onnx.load_model(made)
    drop_unused_domains(quantized)

    def keeping(kept: Collection[str]) -> "ModelProto":
        lowered = _copied(quantized)
        if kept:
            keep_in_fp32(lowered, kept)
        return lowered

    return Lowering(layers=products_of(simplified), keeping=keeping)


def _int8_dynamic(model: Path, scratch: Path, _: Sequence[Tensors]) -> Lowering:
    simplified = simplified_model(model, scratch, "int8-dynamic")

    def keeping(kept: Collection[str]) -> "ModelProto":
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        # it looks at a Gemm when it has become a MatMul of such a name
        excluded = sorted({*kept, *(f"{name}_MatMul" for name in kept)})
        with TemporaryDirectory(prefix="trifront-lower-") as folder:
            prepared, made = Path(folder) / "prepared.onnx", Path(folder) / "quantized.onnx"
            onnx.save_model(simplified, prepared)
            quantize_dynamic(
                prepared, made, weight_type=QuantType.QInt8, nodes_to_exclude=excluded
            )
            lowered = onnx.load_model(made)
        drop_unused_domains(lowered)
        return lowered

    untouched = {node.name for node in simplified.graph.node if _is_scaled_gemm(node)}
    layers = [one for one in weighted(products_of(simplified)) if one.name not in untouched]
    return Lowering(layers=tuple(layers), keeping=keeping)


def _fp8(model: Path, scratch: Path, calibration: Sequence[Tensors]) -> Lowering:
    _refuse_uncalibrated("fp8", calibration)
    simplified = simplified_model(model, scratch, "fp8", least_opset=FP8_OPSET)
    layers = _some(weighted(products_of(simplified)), "has no constant weights to store in fp8")
    largest = largest_activations(simplified, [one.name for one in layers], calibration)

    def keeping(kept: Collection[str]) -> "ModelProto":
        lowered = _copied(simplified)
        add_fp8_pairs(lowered, _but(layers, kept), largest)
        return lowered

    return Lowering(layers=layers, keeping=keeping)


def _int4(model: Path, scratch: Path, _: Sequence[Tensors]) -> Lowering:
    simplified = simplified_model(model, scratch, "int4", least_opset=INT4_OPSET)
    layers = _some(
        blocked(simplified, products_of(simplified)),
        "has no MatMul or Gemm whose weights can be cut into blocks of 16 or more for int4",
    )

    def keeping(kept: Collection[str]) -> "ModelProto":
        lowered = _copied(simplified)
        add_int4_weights(lowered, _but(layers, kept))
        return lowered

    return Lowering(layers=layers, keeping=keeping)


RECIPES: Mapping[Precision, Recipe] = {
    Precision.FP16: _fp16,
    Precision.BF16: _bf16,
    Precision.INT8: _int8,
    Precision.INT8_DYNAMIC: _int8_dynamic,
    Precision.FP8: _fp8,
    Precision.INT4: _int4,
}
"""Of every precision that changes the file."""

CALIBRATED = (Precision.INT8, Precision.FP8)
"""Those whose activations have scales that samples set."""


def _is_scaled_gemm(node: "NodeProto") -> bool:
    """Tell whether a node is a Gemm that is no MatMul and an Add; ONNX Runtime leaves those."""
    from onnx import helper

    if node.op_type != "Gemm":
        return False
    given = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    plain = {"alpha": 1.0, "beta": 1.0, "transA": 0}
    return any(given.get(name, value) != value for name, value in plain.items())


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


def _copied(model: "ModelProto") -> "ModelProto":
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _refuse_uncalibrated(precision: str, calibration: Sequence[Tensors]) -> None:
    if not calibration:
        raise UnsupportedError(f"{precision} needs calibration samples; name a calibration split")


def _some(layers: Sequence[Product], lack: str) -> tuple[Product, ...]:
    if not layers:
        raise UnsupportedError(f"the model {lack}; use another precision")
    return tuple(layers)


def _but(layers: Sequence[Product], kept: Collection[str]) -> frozenset[str]:
    return frozenset(one.name for one in layers) - frozenset(kept)


class _Batches:
    """Calibration batches in the way that ONNX Runtime asks for them."""

    def __init__(self, batches: Sequence[Tensors]) -> None:
        self._rest = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._rest, None)
        return None if batch is None else dict(batch)
