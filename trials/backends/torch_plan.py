"""Plans of the ``torch`` backend: how they are built, read and described.

``eager`` and ``compile``
    The program itself. ``compile`` fixes its batch size; what ``torch.compile`` makes of it is
    made when it is loaded, in the process that serves, for torch keeps no file of it.
``aot``
    A package of AOTInductor: machine code with the weights in it. Its batch size is fixed too.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

from search_spaces.deployment import Scalar
from trials.backend import EngineSpec, TensorSpec
from trials.backends.torch_errors import mapped
from trials.errors import FaultError, ModelError, UnsupportedError
from trials.inspection import BuildLog, Layer, LayerOutput, build_log
from trials.models.onnx_model import one_line
from trials.models.signature import PlainSignature
from trials.models.torch_program import (
    body_of,
    output_names,
    output_nodes,
    quiet,
    read_program,
    reexported,
    signature_of,
    spec_of,
    write_program,
)

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node

_METADATA = "trifront"  # where a package keeps the program's signature
_PACKAGED = "data/aotinductor/"
# loops are cut for as many; how many threads run them is said when the engine is served
_MOST_THREADS = 8


# operators of which a model has many, with the same arguments under both names
_COMMON = frozenset(
    (
        *("conv1d", "conv2d", "conv3d"),
        *("linear", "matmul", "bmm", "scaled_dot_product_attention", "embedding"),
        *("add", "sub", "mul", "div", "mean"),
        *("relu", "gelu", "silu", "sigmoid", "tanh", "hardtanh", "softmax"),
        *("batch_norm", "layer_norm", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"),
        *("cat", "flatten", "permute", "transpose"),
    )
)


class Mode(StrEnum):
    """How a program is run."""

    EAGER = "eager"
    COMPILE = "compile"
    AOT = "aot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A loaded package of AOTInductor."""

    loader: Any
    signature: PlainSignature

    def run(self, *inputs: "Tensor") -> "list[Tensor]":
        """Run it; several threads may, as many at once as it was loaded for."""
        answers: list[Tensor] = self.loader.boxed_run(list(inputs))
        return answers


def mode_of(options: tuple[tuple[str, Scalar], ...]) -> Mode:
    """Read the mode from a spec's or a deployment's options."""
    return Mode(str(dict(options).get("mode", Mode.EAGER)))


def build_plan(model: Path, spec: EngineSpec, plan: Path, *, device: str) -> BuildLog:
    """Build a plan from a program.

    Args:
        model: A program, on the CPU.
        spec: Its batch size is fixed in every mode but ``eager``.
        plan: Where to.
        device: ``cpu`` or ``cuda``.

    Raises:
        ModelError: The file is no program.
        UnsupportedError: An operator that the compiler lacks, or a program that fixes its batch.
        MemoryLimitError: It does not fit.
        FaultError: torch broke.
    """
    program = read_program(model)
    mode = mode_of(spec.options)
    lines = [f"torch program {model.name} for {device}, mode {mode}"]
    lines += [f"{node.name} = {_operator(node)}" for node in _operators(body_of(program))]
    with quiet(), mapped(f"building {model.name} for {spec.precision}"):
        if mode is Mode.EAGER:
            shutil.copyfile(model, plan)
        else:
            assert spec.batch_size is not None, "the batch size is in the engine"
            fixed = _fixed(program, spec.batch_size)
            if mode is Mode.COMPILE:
                write_program(fixed, plan)
            else:
                _package(_moved(fixed, device), plan)
                lines += _members(plan)
    return build_log(lines)


def read_body(plan: Path, *, device: str, is_eager: bool) -> "tuple[GraphModule, PlainSignature]":
    """Read the plan of mode ``eager`` or ``compile``, onto a device.

    Raises:
        FaultError: It is none.
        MemoryLimitError: It does not fit.
    """
    program = _program(plan)
    with mapped(f"loading {plan.name}"):
        body = body_of(_moved(program, device))
        return _called_directly(body) if is_eager else body, signature_of(program)


def read_package(plan: Path, *, runners: int, is_single: bool) -> Package:
    """Load the plan of mode ``aot``.

    Args:
        plan: The package.
        runners: How many requests may be in flight at once.
        is_single: Only one thread runs it at a time, and may capture a CUDA graph of it.

    Raises:
        FaultError: It is none.
        MemoryLimitError: It does not fit.
    """
    from torch._inductor.package import load_package

    _members(plan)
    with TemporaryDirectory(prefix="trifront-aot-") as folder, quiet():
        named = Path(folder) / "engine.pt2"  # torch loads nothing of another name
        named.symlink_to(plan.resolve())
        with mapped(f"loading {plan.name}"):
            model = load_package(str(named), run_single_threaded=is_single, num_runners=runners)
            told = model.get_metadata().get(_METADATA)
    if told is None:
        raise FaultError(f"{plan.name} is no engine of mode aot: it does not say its inputs")
    return Package(loader=model.loader, signature=_signature_from_json(told))


def layers_of(spec: EngineSpec, model: Path, plan: Path) -> tuple[Layer, ...]:
    """Say what a plan consists of: operators, or one function where they were compiled.

    Raises:
        FaultError: The plan is not one of ours.
    """
    if mode_of(spec.options) is Mode.AOT:
        _members(plan)
        return (_compiled(read_program(model)),)
    program = _program(plan)
    body = body_of(program)
    answers = output_nodes(body.graph)
    names = dict(zip(answers, output_names(len(answers)), strict=True))
    return tuple(
        Layer(
            name=node.name,
            operator=_operator(node),
            outputs=tuple(_outputs(node, names.get(node, node.name))),
            parameter_bytes=sum(map(_constant_bytes, node.all_input_nodes)),
        )
        for node in _operators(body)
    )


def _program(plan: Path) -> "ExportedProgram":
    try:
        return read_program(plan)
    except ModelError as error:
        raise FaultError(f"{plan.name} is no engine of torch: {error}") from error


def _fixed(program: "ExportedProgram", batch_size: int) -> "ExportedProgram":
    try:
        return reexported(program, body_of(program), batch_size=batch_size)
    except Exception as error:  # torch raises whatever it stumbles over
        raise UnsupportedError(
            f"torch cannot export this for batches of {batch_size} "
            f"({type(error).__name__}: {one_line(str(error))}); use mode: eager"
        ) from error


def _moved(program: "ExportedProgram", device: str) -> "ExportedProgram":
    if device == "cpu":
        return program
    from torch.export.passes import move_to_device_pass

    return move_to_device_pass(program, device)


def _package(program: "ExportedProgram", plan: Path) -> None:
    from torch._inductor import aoti_compile_and_package

    signature = json.dumps(asdict(signature_of(program)))
    with TemporaryDirectory(prefix="trifront-aot-") as folder:
        made = Path(folder) / "engine.pt2"
        aoti_compile_and_package(
            program,
            package_path=str(made),
            inductor_configs={
                "aot_inductor.metadata": {_METADATA: signature},
                "cpp.dynamic_threads": True,
                "cpp.threads": _MOST_THREADS,
            },
        )
        shutil.move(made, plan)


def _members(plan: Path) -> list[str]:
    """List what is in a package.

    Raises:
        FaultError: It is none.
    """
    try:
        with ZipFile(plan) as archive:
            found = [
                f"{Path(entry.filename).name}: {entry.file_size} bytes"
                for entry in archive.infolist()
                if f"/{_PACKAGED}" in entry.filename
            ]
    except (OSError, BadZipFile) as error:
        raise FaultError(f"{plan.name} is no engine of torch: {error}") from error
    if not found:
        raise FaultError(f"{plan.name} holds no compiled code, so it is no engine of mode aot")
    return found


def _signature_from_json(text: str) -> PlainSignature:
    raw = json.loads(text)

    def specs(entries: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(name=one["name"], dtype=one["dtype"], shape=tuple(one["shape"]))
            for one in entries
        )

    return PlainSignature(
        inputs=specs(raw["inputs"]), outputs=specs(raw["outputs"]), batch_size=raw["batch_size"]
    )


def _compiled(program: "ExportedProgram") -> Layer:
    """Describe all of a program as one function; which kernels do what the compiler keeps."""
    body = body_of(program)
    return Layer(
        name="program",
        operator="AOTInductor",
        outputs=tuple(
            LayerOutput(name=one.name, dtype=one.dtype, shape=one.shape)
            for one in signature_of(program).outputs
        ),
        parameter_bytes=sum(map(_constant_bytes, body.graph.nodes)),
        fused_from=tuple(node.name for node in _operators(body)),
    )


def _called_directly(body: "GraphModule") -> "GraphModule":
    """Call the common operators by the functions that a module's own code calls.

    They take the same arguments. By the names that a program has for them, torch looks each call
    up in a slower way: a residual network of 20 operators took 1.11 times as long.
    """
    from torch import _C

    for node in _operators(body):
        namespace, _, name = str(getattr(node.target, "_schema", node.target)).partition("::")
        name = name.partition("(")[0].partition(".")[0]
        if namespace == "aten" and name in _COMMON:
            direct = getattr(_C._VariableFunctions, name, None)  # noqa: SLF001 - torch.conv2d, …
            node.target = direct or getattr(_C._nn, name)  # noqa: SLF001 - those of functional
    body.recompile()
    return body


def _operators(body: "GraphModule") -> "Iterator[Node]":
    return (node for node in body.graph.nodes if node.op == "call_function")


def _operator(node: "Node") -> str:
    return str(node.target)


def _outputs(node: "Node", name: str) -> Iterator[LayerOutput]:
    """Yield what a node makes; an operator of several tensors names them by their place."""
    made = node.meta["val"]
    if hasattr(made, "shape"):
        spec = spec_of(node, name)
        yield LayerOutput(name=name, dtype=spec.dtype, shape=spec.shape)
    else:
        yield LayerOutput(name=name, dtype=None, shape=None)


def _constant_bytes(node: "Node") -> int:
    if node.op != "get_attr":
        return 0
    value = attrgetter(node.target)(node.graph.owning_module)
    return int(value.nbytes)
