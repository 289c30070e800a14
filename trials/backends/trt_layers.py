"""Layers of a plan, from the JSON of TensorRT's engine inspector.

What it tells depends on the version and on how talkative the plan was built: a plain name, or an
object with ``Name``, ``LayerType``, ``Outputs``, ``Weights``, ``Bias`` and more. What is not
there, or in another form, is left out: a layer table is not guessed.

References:
    NVIDIA TensorRT documentation, Engine Inspector (read, not run by us).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from trials.errors import FaultError
from trials.inspection import Layer, LayerOutput

# as the inspector names types, alone or inside the name of a format
_TYPES = (
    (re.compile(r"\b(FP32|Float)\b"), "float32", 4),
    (re.compile(r"\b(FP16|Half)\b"), "float16", 2),
    (re.compile(r"\b(BF16|BFloat16)\b"), "bfloat16", 2),
    (re.compile(r"\bFP8\b"), "float8_e4m3fn", 1),
    (re.compile(r"\bInt8\b", re.IGNORECASE), "int8", 1),
    (re.compile(r"\bInt32\b", re.IGNORECASE), "int32", 4),
    (re.compile(r"\bInt64\b", re.IGNORECASE), "int64", 8),
    (re.compile(r"\bBool\b", re.IGNORECASE), "bool", 1),
    (re.compile(r"\bUInt8\b", re.IGNORECASE), "uint8", 1),
)
_PARAMETERS = ("Weights", "Bias")
_ORIGIN = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_FACTS = (("TacticName", "tactic"), ("StreamId", "stream"))


def layers_from_inspector(document: Any) -> tuple[Layer, ...]:
    """Read the layers, in the order of execution.

    Args:
        document: What the inspector tells of an engine, parsed.

    Raises:
        FaultError: It has no list of layers.
    """
    found = document.get("Layers") if isinstance(document, Mapping) else None
    if not isinstance(found, list):
        raise FaultError("TensorRT's engine inspector tells of no layers")
    return tuple(_layer(each) for each in found if isinstance(each, Mapping) and each.get("Name"))


def _layer(told: Mapping[str, Any]) -> Layer:
    origins = _ORIGIN.findall(str(told.get("Metadata", "")))
    return Layer(
        name=str(told["Name"]),
        operator=str(told.get("ParameterType") or told.get("LayerType") or "unknown"),
        outputs=tuple(_outputs(told)),
        parameter_bytes=sum(_parameter_bytes(told.get(name)) for name in _PARAMETERS),
        fused_from=tuple(origins) if len(origins) > 1 else (),
        facts=tuple((name, str(told[key])) for key, name in _FACTS if told.get(key)),
    )


def _outputs(told: Mapping[str, Any]) -> Iterator[LayerOutput]:
    for output in told.get("Outputs", ()):
        shape = output.get("Dimensions")
        kind = _type_in(str(output.get("Format/Datatype", "")))
        yield LayerOutput(
            name=str(output.get("Name", "")),
            dtype=None if kind is None else kind[0],
            shape=None if shape is None else tuple(size if size >= 0 else None for size in shape),
        )


def _parameter_bytes(told: Any) -> int:
    if not isinstance(told, Mapping):
        return 0
    kind = _type_in(str(told.get("Type", "")))
    return 0 if kind is None else kind[1] * int(told.get("Count", 0))


def _type_in(text: str) -> tuple[str, int] | None:
    """Find a type's NumPy name, or ONNX's where NumPy has none, and its bytes."""
    for pattern, name, size in _TYPES:
        if pattern.search(text):
            return name, size
    return None
