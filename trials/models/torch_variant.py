"""Variants that a torch factory makes: identified by code and weights, exported when first used.

The factory is the user's own code and runs in this process. Its weights come from a safetensors
file, which holds numbers only, so that nothing is unpickled. Exported once, a variant is a model
file like any other: BatchNorm folded, a free batch dimension, no trace of the machine that made
it; ONNX for most backends, a program of ``torch.export`` for the one that takes that. The same
source gives the same bytes.
"""

import hashlib
import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_spaces.space import TorchSource
from trials.backend import ModelForm
from trials.disk import write_new
from trials.errors import ModelError
from trials.models.onnx_model import one_line
from trials.models.torch_program import exported, quiet, write_program
from trials.models.users_code import code_digest, function_from_name, reason_of, users_code

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto
    from torch import nn

OPSET = 18  # the first that the exporter writes without converting; every runtime of ours reads it

_NEEDED = {
    ModelForm.ONNX: ("torch", "onnxscript", "safetensors"),
    ModelForm.PROGRAM: ("torch", "safetensors"),
}
_EXPORTERS = {
    ModelForm.ONNX: ("torch", "onnxscript", "onnx"),
    ModelForm.PROGRAM: ("torch",),
}
_PROGRAM_RECIPE = "1"  # to be raised when the same source gives another program
_EXAMPLE_BATCH = 2  # the exporter takes a dimension of 1 for a constant
_MOST_NAMED = 5


def torch_identity(source: TorchSource, form: ModelForm = ModelForm.ONNX) -> str:
    """Identify what an export would give, without exporting: SHA-256, hexadecimal.

    It covers the weights, the factory's name, all of the user's code that importing it loads, the
    input, and the exporter's versions.

    Raises:
        ModelError: The weights, the factory or torch are missing, or the factory's import breaks.
    """
    _require_torch(form)
    _factory(source)  # importing it loads the code that is identified
    parts: dict[str, object] = {
        "weights": _file_digest(source.weights, f"weights of variant {source.name!r}"),
        "factory": source.factory,
        "code": code_digest(),
        "input": [list(source.input_shape), source.input_dtype],
        "versions": {name: version(name) for name in _EXPORTERS[form]},
    }
    parts |= {"opset": OPSET} if form is ModelForm.ONNX else {"program": _PROGRAM_RECIPE}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def export_torch(source: TorchSource, out: Path) -> None:
    """Write the variant as one ONNX file with a free batch dimension, called ``batch``.

    Its sole input is called ``inputs``. The file appears whole or not at all.

    Raises:
        ModelError: torch is missing, the factory breaks, the weights do not fit, or the module
            cannot be exported.
        OSError: The file cannot be written.
    """
    with _exporting(source, ModelForm.ONNX) as module:
        content = _onnx_bytes(module, source)
    _write_whole(content, out)


def export_program(source: TorchSource, out: Path) -> None:
    """Write the variant as a program; see ``torch_program``.

    Raises:
        ModelError: As for :func:`export_torch`.
        OSError: The file cannot be written.
    """
    with _exporting(source, ModelForm.PROGRAM) as module:
        program = exported(module, shape=source.input_shape, dtype=source.input_dtype)
    write_program(program, out)


@contextmanager
def _exporting(source: TorchSource, form: ModelForm) -> Iterator["nn.Module"]:
    """Give the filled module to whoever exports it, and explain what breaks there."""
    _require_torch(form)
    factory = _factory(source)
    with quiet():
        module = _filled(_made(factory, source), source)
        what = f"exporting {source.factory} for samples of shape {source.input_shape}"
        with users_code(what, refusal=ModelError):
            yield module


def _factory(source: TorchSource) -> Callable[..., Any]:
    key = f"variants.{source.name}.torch.factory"
    return function_from_name(source.factory, key=key, refusal=ModelError)


def _require_torch(form: ModelForm) -> None:
    missing = [name for name in _NEEDED[form] if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelError(
            f"a torch variant needs {', '.join(missing)}; install trifront[torch], or export the "
            "model to ONNX on a machine that has torch"
        )


def _file_digest(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: {what} cannot be read ({error.strerror})") from error


def _made(factory: Callable[..., Any], source: TorchSource) -> "nn.Module":
    from torch import nn

    with users_code(source.factory, refusal=ModelError):
        module = factory()
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"variants.{source.name}.torch.factory: {source.factory} returned a "
            f"{type(module).__name__}; return a torch.nn.Module"
        )
    return module


def _filled(module: "nn.Module", source: TorchSource) -> "nn.Module":
    """Load the weights: every one that the module has, and no other."""
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    try:
        missing, unexpected = load_model(module, source.weights, strict=False)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{source.weights}: is no readable safetensors file ({reason_of(error)}); write it "
            "with safetensors.torch.save_model"
        ) from error
    except RuntimeError as error:  # torch's word for shapes that differ
        shapes = one_line(str(error).partition("\n")[2])
        raise ModelError(f"{source.weights}: does not fit {source.factory}: {shapes}") from error
    if missing or unexpected:
        found = (("misses", sorted(missing)), ("has too many", sorted(unexpected)))
        problems = " and ".join(f"{verb} {_some(keys)}" for verb, keys in found if keys)
        raise ModelError(
            f"{source.weights}: {problems}; save the state of the module that {source.factory} "
            "makes"
        )
    return module.eval()


def _onnx_bytes(module: "nn.Module", source: TorchSource) -> bytes:
    import onnx
    import torch

    example = torch.zeros(
        (_EXAMPLE_BATCH, *source.input_shape), dtype=getattr(torch, source.input_dtype)
    )
    with torch.no_grad():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            external_data=False,
            input_names=["inputs"],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None  # the old exporter writes a file and returns nothing
    model = program.model_proto
    first = model.graph.input[0].type.tensor_type.shape.dim[0]
    if not first.dim_param:  # the exporter falls back to the example's size without a word
        raise ModelError(
            f"variants.{source.name}.torch.factory: {source.factory}'s module fixes the batch; in "
            "its forward, use x.shape[0] and not len(x) or a number"
        )
    _strip(model)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _strip(model: "ModelProto") -> None:
    """Drop stack traces and source paths, which the exporter leaves everywhere."""
    del model.metadata_props[:]
    _strip_graph(model.graph)
    for function in model.functions:
        del function.metadata_props[:], function.value_info[:]
        for node in function.node:
            del node.metadata_props[:]
            node.doc_string = ""


def _strip_graph(graph: "GraphProto") -> None:
    del graph.metadata_props[:], graph.value_info[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):  # a branch or a loop
                _strip_graph(attribute.g)


def _write_whole(content: bytes, out: Path) -> None:
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        partial.unlink(missing_ok=True)  # of a process that was killed and had this number
        write_new(partial, content)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMED])
    surplus = len(names) - _MOST_NAMED
    return f"{shown} and {surplus} more" if surplus > 0 else shown
