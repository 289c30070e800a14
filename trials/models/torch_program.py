"""Torch programs: what the ``torch`` backend takes for a model file, instead of ONNX.

A program is a module as ``torch.export`` sees it, with its weights, saved as one ``.pt2`` file:
BatchNorm folded, a free batch dimension, one input called ``inputs``, no trace of the machine that
made it. The same module gives the same bytes.

Weights lie in the file as plain numbers. What torch would unpickle (weights of foreign kinds,
example inputs) is neither written nor read here. That makes a program no toy for strangers all the
same: torch evaluates the expressions that a file has for its free dimensions.
"""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

from trials.backend import TensorSpec
from trials.errors import ModelError
from trials.models.onnx_model import one_line
from trials.models.signature import PlainSignature

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node

INPUT = "inputs"
OUTPUT = "outputs"  # outputs_0, outputs_1, … where there are several

_EXAMPLE_BATCH = 2  # the exporter takes a dimension of 1 for a constant
_WEIGHTS = ("weights_config.json", "constants_config.json")
_EXAMPLES = "/sample_inputs/"
_CHECKS = ("aten::_assert", "aten::sym_constrain")  # of what the seam checks already
_LOGGERS = ("torch", "onnxscript", "onnx_ir")  # their remarks are not our user's business
_KEPT = ("val",)  # of what is said beside a node; the rest names source files


def exported(
    module: "nn.Module", *, shape: tuple[int, ...], dtype: str, batch_size: int | None = None
) -> "ExportedProgram":
    """Export a module in evaluation mode as a program of one input and a flat tuple of outputs.

    Args:
        module: Takes one tensor and returns tensors, in whatever nest.
        shape: Of one sample, without the batch dimension.
        dtype: NumPy name of the input's type.
        batch_size: None for a free batch dimension.

    Raises:
        Exception: What torch or the module raises, as it is.
    """
    program = _exported(_flat(module), shape, dtype, batch_size)
    body = body_of(program)
    if _fold_batch_norms(body):
        program = _exported(_flat(body), shape, dtype, batch_size)
    return program


def reexported(
    program: "ExportedProgram", module: "nn.Module", *, batch_size: int | None = None
) -> "ExportedProgram":
    """Export a module that takes the inputs of a program; with one batch size if one is named.

    Raises:
        Exception: What torch raises, as it is.
    """
    given = signature_of(program).inputs[0]
    shape = tuple(size for size in given.shape[1:] if size is not None)
    return _exported(_flat(module), shape, given.dtype, batch_size)


def body_of(program: "ExportedProgram") -> "GraphModule":
    """Return a program as a module: tensors in, a tuple of tensors out, weights within.

    Without what ``ExportedProgram.module()`` does around each call: taking nested inputs apart and
    checking their shapes, which costs more than a small model.
    """
    from torch.fx import GraphModule
    from torch.fx.graph import CodeGen

    made = program.module(check_guards=False)
    for node in list(made.graph.nodes):
        if _schema_name(node).startswith(_CHECKS):
            made.graph.erase_node(node)
    made.graph.set_codegen(CodeGen())
    made.graph.eliminate_dead_code()
    return GraphModule(made, made.graph)  # leaves the hooks and unused weights behind


def signature_of(program: "ExportedProgram") -> PlainSignature:
    """Return the program's inputs and outputs, in the program's order."""
    inputs = [node for node in program.graph.nodes if node.name in _user_inputs(program)]
    answers = output_nodes(program.graph)
    names = output_names(len(answers))
    given = tuple(spec_of(node, node.name) for node in inputs)
    return PlainSignature(
        inputs=given,
        outputs=tuple(spec_of(node, name) for node, name in zip(answers, names, strict=True)),
        batch_size=given[0].shape[0],
    )


def spec_of(node: "Node", name: str) -> TensorSpec:
    """Say what kind of tensor a node of a program makes."""
    value = node.meta["val"]
    return TensorSpec(
        name=name,
        dtype=str(value.dtype).removeprefix("torch."),
        shape=tuple(size if type(size) is int else None for size in value.shape),
    )


def output_nodes(graph: Any) -> list["Node"]:
    """Return the nodes whose tensors the graph returns."""
    last = next(node for node in reversed(graph.nodes) if node.op == "output")
    answers: list[Node] = list(last.args[0])
    return answers


def output_names(count: int) -> tuple[str, ...]:
    """Name the outputs of a program by their place, for torch gives them no names."""
    return (OUTPUT,) if count == 1 else tuple(f"{OUTPUT}_{at}" for at in range(count))


def write_program(program: "ExportedProgram", out: Path) -> None:
    """Write a program; the same program gives the same bytes.

    Raises:
        OSError: The file cannot be written.
    """
    import torch

    program.example_inputs = None
    for node in program.graph.nodes:
        node.meta = {key: value for key, value in node.meta.items() if key in _KEPT}
    buffer = BytesIO()
    torch.export.save(program, buffer)
    out.write_bytes(buffer.getvalue())


def read_program(path: Path) -> "ExportedProgram":
    """Read a program.

    Raises:
        ModelError: There is none, or it holds what would have to be unpickled.
    """
    import torch

    try:
        content = path.read_bytes()
        _refuse_pickles(content)
        with quiet():
            return torch.export.load(BytesIO(content))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    except (BadZipFile, RuntimeError, ValueError, LookupError, AssertionError) as error:
        raise ModelError(
            f"{path}: is no torch program, or is cut short ({one_line(str(error))}); export it "
            "again"
        ) from error


def program_signature(path: Path) -> PlainSignature:
    """Look into a program's file.

    Raises:
        ModelError: It cannot be read.
    """
    return signature_of(read_program(path))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep torch's and its exporters' warnings and log lines to themselves."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _exported(
    module: "nn.Module", shape: tuple[int, ...], dtype: str, batch_size: int | None
) -> "ExportedProgram":
    import torch

    example = torch.zeros((batch_size or _EXAMPLE_BATCH, *shape), dtype=getattr(torch, dtype))
    free = {0: torch.export.Dim("batch", min=1)} if batch_size is None else {}
    with torch.no_grad():
        return torch.export.export(module.eval(), (example,), dynamic_shapes=(free,))


def _flat(module: "nn.Module") -> "nn.Module":
    """Wrap a module so that its input has our name and its outputs are a flat tuple."""
    from torch import nn
    from torch.utils._pytree import tree_leaves

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = module

        def forward(self, inputs: "Tensor") -> tuple["Tensor", ...]:
            return tuple(tree_leaves(self.body(inputs)))

    return Flat()


def _user_inputs(program: "ExportedProgram") -> tuple[str, ...]:
    return tuple(str(name) for name in program.graph_signature.user_inputs)


def _schema_name(node: "Node") -> str:
    schema = getattr(node.target, "_schema", None)
    return "" if schema is None else str(schema.name)


def _fold_batch_norms(body: "GraphModule") -> bool:
    """Put each BatchNorm behind a convolution into its weights, in the module's own precision.

    Returns:
        Whether there was any.

    References:
        Jacob et al. (2018), Quantization and Training of Neural Networks, section 3.2.
    """
    found = list(_normed_convolutions(body))
    for number, (convolution, norm) in enumerate(found):
        _fold(body, convolution, norm, name=f"folded_{number}")
    body.graph.eliminate_dead_code()
    body.recompile()
    return bool(found)


def _normed_convolutions(body: "GraphModule") -> Iterator[tuple["Node", "Node"]]:
    from torch.fx import Node

    for norm in body.graph.nodes:
        if _schema_name(norm) != "aten::batch_norm" or norm.args[5]:  # training
            continue
        before = norm.args[0]
        is_convolution = _schema_name(before) in ("aten::conv1d", "aten::conv2d", "aten::conv3d")
        constants = (*before.args[1:3], *norm.args[1:5])
        are_known = all(
            one is None or (isinstance(one, Node) and one.op == "get_attr") for one in constants
        )
        if is_convolution and are_known and len(before.users) == 1:
            yield before, norm


def _fold(body: "GraphModule", convolution: "Node", norm: "Node", *, name: str) -> None:
    from torch import no_grad
    from torch.nn.utils import fuse_conv_bn_weights

    def value(node: Any) -> Any:
        return None if node is None else attrgetter(node.target)(body)

    given, weight, *rest = convolution.args
    bias = rest.pop(0) if rest else None
    scale, shift, mean, variance = map(value, norm.args[1:5])
    with no_grad():
        folded = fuse_conv_bn_weights(
            value(weight), value(bias), mean, variance, norm.args[7], scale, shift
        )
    made = []
    for part, parameter in zip(("weight", "bias"), folded, strict=True):
        body.register_parameter(f"{name}_{part}", parameter)
        with body.graph.inserting_before(convolution):
            made.append(body.graph.get_attr(f"{name}_{part}"))
    convolution.args = (given, *made, *rest)
    norm.replace_all_uses_with(convolution)
    body.graph.erase_node(norm)


def _refuse_pickles(content: bytes) -> None:
    """See that reading the file unpickles nothing.

    Raises:
        ValueError: It would.
        BadZipFile: It is none of ours.
    """
    with ZipFile(BytesIO(content)) as archive:
        for entry in archive.infolist():
            if _EXAMPLES in entry.filename and entry.file_size:
                raise ValueError("it has example inputs, which would be unpickled")
            if entry.filename.endswith(_WEIGHTS):
                config = json.loads(archive.read(entry))["config"]
                if any(one.get("use_pickle", True) for one in config.values()):
                    raise ValueError("it has weights that would be unpickled")
