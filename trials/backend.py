"""The seam: what trifront asks of an inference engine, whatever it is.

A backend turns a model file into an engine and runs it: an ONNX file, or for ``torch`` a program
of ``torch.export``. ``ort`` (ONNX Runtime), ``torch`` and ``tensorrt`` run models,
``fake`` computes what one would do, for demos and tests. Implementations do not inherit from the
protocols; ``tests/trials/test_backend_contract.py`` holds every one of them to this text.
What some of them do besides is in ``trials.abilities``.

The life of an engine::

    capabilities() → build(model, spec, plan) → load(plan, deployment) → Engine
                     inspect(model, spec, plan)    peak_memory(plan, deployment, …)
                     once per EngineSpec           once per trial
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from numpy.typing import NDArray

from search_spaces.deployment import KEEP_LAYERS, Deployment, Precision, Scalar
from trials.inspection import BuildLog, Layer

Tensors: TypeAlias = Mapping[str, NDArray]  # type: ignore[type-arg]
"""Arrays by tensor name, each of shape ``(batch, …)``."""

Request: TypeAlias = Callable[[], None]
"""Run one pre-bound request to its end."""


class Scope(StrEnum):
    """What an option changes: the model, the engine that is built of it, or how that is served.

    What changes the model changes its digest, and stands for itself by that.
    """

    MODEL = "model"
    ENGINE = "engine"
    SERVING = "serving"


class ModelForm(StrEnum):
    """What kind of model file a backend builds from."""

    ONNX = "onnx"
    PROGRAM = "program"  # of torch.export


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A backend option that a space may use as an axis.

    Attributes:
        default: Value where the space names no such axis.
        choices: The values that it takes; empty for any integer >= ``least``.
        least: Of the integers that it takes, where there are no choices.
        refusals: (value, reason) for those of its choices that this machine does not honour.
        is_tacit: At its default it leaves no trace in an engine's identity, as is right for an
            option that came after engines were stored; so do facts of the environment that are
            called ``<option>.<fact>``.
        help: One line for people.
    """

    name: str
    scope: Scope
    default: Scalar
    choices: tuple[Scalar, ...] = ()
    least: int = 1
    refusals: tuple[tuple[Scalar, str], ...] = ()
    is_tacit: bool = False
    help: str

    @property
    def honoured(self) -> tuple[Scalar, ...]:
        """The choices that this machine honours; empty for any integer >= ``least``."""
        refused = [value for value, _ in self.refusals]
        return tuple(one for one in self.choices if one not in refused)


KEEP_LAYERS_OPTION = Option(
    name=KEEP_LAYERS,
    scope=Scope.MODEL,
    default=0,
    least=0,
    help="how many of the layers that suffer most from the precision stay in fp32",
)
"""Of every backend whose precision lives in the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a backend honours on this machine. What is not listed is refused, never ignored.

    Attributes:
        precisions: Precisions that it builds.
        refusals: (precision, reason) for known ones that it does not.
        options: Options that change something.
        inert: (option, reason) for known ones that change nothing on this machine.
        batch_in_engine: An engine serves one batch size only.
        dynamic_batch: (option, value) at which an engine, all the same, serves every batch up to
            the largest of the space, which is then part of its identity.
        batch_bound: Precisions whose answers depend on which samples share a batch, so that the
            batch size is part of the engine's identity.
        batch_fixing: (option, value) with which an engine serves one batch size only.
        model_form: What it builds from.
    """

    precisions: tuple[Precision, ...]
    refusals: tuple[tuple[Precision, str], ...] = ()
    options: tuple[Option, ...] = ()
    inert: tuple[tuple[str, str], ...] = ()
    batch_in_engine: bool = False
    dynamic_batch: tuple[str, Scalar] | None = None
    batch_bound: tuple[Precision, ...] = ()
    batch_fixing: tuple[tuple[str, Scalar], ...] = ()
    model_form: ModelForm = ModelForm.ONNX


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """Exactly what changes the built engine: equal spec, same engine, same accuracy.

    Attributes:
        backend: Name of the backend.
        model_digest: SHA-256 of the converted model file (variant, precision and calibration).
        precision: Kept beside the digest because a backend may need to know it.
        batch_size: None where the engine serves any batch size, or all up to a largest one.
        options: Options of scope ENGINE as (name, value), sorted by name, defaults filled in,
            except those of tacit ones; among them ``min_batch_size``, ``opt_batch_size`` and
            ``max_batch_size`` where it serves all batch sizes up to a largest one and is made
            for that.
        environment: Library versions and device facts that change the engine, sorted by name.
    """

    backend: str
    model_digest: str
    precision: Precision
    batch_size: int | None
    options: tuple[tuple[str, Scalar], ...]
    environment: tuple[tuple[str, str], ...]

    @property
    def largest_batch(self) -> int | None:
        """The largest batch that the engine serves; None where any will do."""
        largest = dict(self.options).get("max_batch_size", self.batch_size)
        return None if largest is None else int(largest)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKind:
    """A backend, and the options of scope ENGINE as (name, value) that engines are built with."""

    backend: str
    options: tuple[tuple[str, Scalar], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Name, NumPy type name and shape of an input or output; None is a free dimension."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def takes(self, array: NDArray[Any]) -> bool:
        """Tell whether an array has this type and shape."""
        return (
            array.dtype.name == self.dtype
            and array.ndim == len(self.shape)
            and all(
                wanted in (None, size)
                for wanted, size in zip(self.shape, array.shape, strict=True)
            )
        )


class Engine(Protocol):
    """A loaded engine, owned by whoever called ``load``; closed exactly once.

    Thread safety: ``infer`` and ``lane`` may be called from any thread, at the same time; each
    lane belongs to the thread that entered it.
    """

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs in the model's order."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs in the model's order."""
        ...

    def infer(self, inputs: Tensors) -> Tensors:
        """Run one batch and return fresh arrays; for scoring, not for timing.

        Raises:
            OutputError: An output has another shape or type than promised.
            UnsupportedError: The engine does not take inputs of this shape.
            MemoryLimitError: The batch does not fit.
            FaultError: The runtime broke.
        """
        ...

    def lane(self, batches: Sequence[Tensors]) -> AbstractContextManager[Sequence[Request]]:
        """Bind one request per batch for one worker thread.

        Inputs are copied and output buffers allocated on entry, so that a request does nothing but
        run. Enter it in the thread that will issue the requests; requests of one lane run one at a
        time. Buffers are released on exit.

        A request raises what ``infer`` raises, except that it does not look at its outputs.

        Raises:
            UnsupportedError: The engine does not take inputs of this shape.
            MemoryLimitError: The buffers do not fit.
        """
        ...

    def close(self) -> None:
        """Release everything; later calls of other methods are undefined."""
        ...


class Backend(Protocol):
    """A kind of inference engine. Cheap to make: no device or library is touched before a call."""

    @property
    def name(self) -> str:
        """Name in space files."""
        ...

    def capabilities(self) -> Capabilities:
        """Say what is honoured here; pure and repeatable within a process.

        Raises:
            UnsupportedError: The backend cannot work on this machine; the message says what to do.
        """
        ...

    def environment(self) -> tuple[tuple[str, str], ...]:
        """Return versions and device facts that change the built engine, sorted by name."""
        ...

    def build(self, model: Path, spec: EngineSpec, plan: Path) -> BuildLog:
        """Build the engine for ``spec`` from a model file and write it to ``plan``.

        The caller gives a path in a folder of its own and keeps the file; nothing else is written.

        Returns:
            What the builder itself said meanwhile, as talkative as it can be without slowing down;
            nothing is written to this process's own output instead.

        Raises:
            UnsupportedError: An operator, opset, shape or precision that is not supported.
            MemoryLimitError: It does not fit.
            FaultError: The builder broke.
        """
        ...

    def inspect(self, model: Path, spec: EngineSpec, plan: Path) -> tuple[Layer, ...]:
        """Say what a built engine consists of, in the order of execution.

        Called once, after ``build`` with the same arguments, in the same process; the files are
        only read. Takes milliseconds, and touches no device that a measurement may be using.
        What the backend does not know for certain it leaves out: a layer table is not guessed.

        Raises:
            FaultError: The plan is not one of its engines.
        """
        ...

    def load(self, plan: Path, deployment: Deployment) -> Engine:
        """Load a built engine, set up as the deployment's serving options say.

        Raises:
            UnsupportedError: A serving option that means nothing to this engine, or hardware that
                it cannot run on as it was built.
            MemoryLimitError: It does not fit.
            FaultError: The runtime broke or the file is not one of its engines.
        """
        ...

    def peak_memory(
        self, plan: Path, deployment: Deployment, batch: Tensors, *, deadline_s: float
    ) -> int | None:
        """Say how much memory a server needs for a deployment, beyond its idle runtime.

        Of whatever the backend's engines live in: the resident memory of a process, or the memory
        of a device. With ``concurrency`` requests in flight, each with inputs and outputs like the
        batch's. The same, to 5 % and half a megabyte, whatever this process did before.

        Called when no engine is loaded and nothing is measured; it may load the engine again, in
        this process or in a fresh one.

        Args:
            plan: The built engine.
            deployment: How it is served.
            batch: Inputs of one request, by name.
            deadline_s: After which it is given up, seconds.

        Returns:
            Bytes, > 0; None where ``why_no_peak_memory`` says why, and then there is no such
            metric.

        Raises:
            UnsupportedError: The engine does not take inputs of this shape.
            MemoryLimitError: It does not fit.
            FaultError: It broke, or took longer than the deadline.
        """
        ...
