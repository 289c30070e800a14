"""The seam: what trifront asks of an inference engine, whatever it is.

A backend turns a model file into an engine and runs it: an ONNX file, or for ``torch`` a program
of ``torch.export``. ``ort`` (ONNX Runtime), ``torch`` and ``tensorrt`` run models,
``fake`` computes what one would do, for demos and tests. Implementations do not inherit from the
protocols; ``tests/trials/test_backend_contract.py`` holds every one of them to this text.

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
from typing import Protocol, TypeAlias, runtime_checkable

from numpy.typing import NDArray

from search_spaces.deployment import KEEP_LAYERS, Deployment, Precision, Scalar
from trials.inspection import BuildLog, Layer
from trials.machine.gpu_source import GpuSource
from trials.measurement import Block, Seconds

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
class Workshop:
    """What a build that may take long is given besides its files.

    Attributes:
        tell: Hears what is done just now and what share of all is behind, from 0 to 1. Called
            from one thread at a time, whichever it is. What it raises ends the build, which cleans
            up and raises it again.
        shelf: Folder for what makes later builds faster; need not exist, may be gone at any time.
            An engine must be as good without it.
    """

    tell: Callable[[str, float], None]
    shelf: Path


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


@runtime_checkable
class ComputesBlocks(Protocol):
    """An engine whose time is computed, not spent (``fake``, replays); asked for blocks."""

    def computed_block(self, *, start_s: float, window_s: float, requests: int) -> Block:
        """Return the block that a closed loop would have recorded.

        Args:
            start_s: When the block begins on the virtual clock.
            window_s: Least length of the block, seconds.
            requests: Least number of requests.
        """
        ...


class RequestQueue(Protocol):
    """Requests of one execution context, which a device answers in the order of sending.

    Belongs to the thread that entered it.
    """

    @property
    def depth(self) -> int:
        """Most requests that may be in flight, >= 1."""
        ...

    def send(self, at: int) -> None:
        """Ask for the request of batch ``at`` and return at once; there is room for it.

        Raises:
            TrialError: As for ``Engine.infer``.
        """
        ...

    def is_done(self) -> bool:
        """Tell whether the oldest request in flight is answered; does not wait.

        Raises:
            FaultError: The runtime broke.
        """
        ...

    def wait(self) -> None:
        """Wait until the oldest request in flight is answered; other threads go on meanwhile.

        Raises:
            FaultError: The runtime broke.
        """
        ...

    def finish(self) -> float:
        """Take the oldest request, which is answered, out of flight.

        Returns:
            For how long the device ran it, copies not included, on the device's own clock,
            seconds.
        """
        ...


@runtime_checkable
class StatesTransfers(Protocol):
    """An engine that may run on a device, whose records say what a request there consists of."""

    @property
    def transfers(self) -> str | None:
        """Whether copies between host and device are part of a request: include, exclude.

        None where it runs on no device.
        """
        ...

    @property
    def uses_graphs(self) -> bool:
        """Whether a request is one launch of a CUDA graph."""
        ...


@runtime_checkable
class QueuesRequests(Protocol):
    """An engine on a device: its requests are sent and waited for apart."""

    def queue(self, batches: Sequence[Tensors]) -> AbstractContextManager[RequestQueue]:
        """Bind one request per batch for one execution context; as ``Engine.lane`` otherwise."""
        ...


@runtime_checkable
class ComputesServices(Protocol):
    """An engine that computes how long batches take; asked for them under open-loop load."""

    def computed_services(self, *, start_s: float, batches: int) -> Seconds:
        """Return how long each of the next batches would take, for every size.

        Args:
            start_s: When the first leaves on the virtual clock.
            batches: How many leave, >= 1.

        Returns:
            Shape ``(batches, batch_size)``, seconds > 0; column k is for k + 1 samples.
        """
        ...


@runtime_checkable
class RunsOnGpu(Protocol):
    """An engine whose requests are run by one GPU, which is watched while it is measured."""

    def gpu(self) -> AbstractContextManager[GpuSource | None]:
        """Open the meters of that GPU (``machine.nvml.meter``); None where nobody can read them.

        Entered and left in the thread that measures, once a measurement, while the engine is open.
        """
        ...


@runtime_checkable
class WaitsForDevice(Protocol):
    """An engine whose requests, or some of them, wait for a device before they end."""

    @property
    def waits_for_device(self) -> bool:
        """Whether they do, so that CPU time may be that of waiting: libraries spin meanwhile."""
        ...


@runtime_checkable
class MetersEnergy(Protocol):
    """A backend whose engines may run where energy is metered. Others tell none."""

    def why_no_energy(self, deployment: Deployment) -> str:
        """Say why the energy of a deployment cannot be told here; empty where it can."""
        ...


@runtime_checkable
class TellsSomeMemory(Protocol):
    """A backend that cannot tell the memory of every deployment. Others tell it always."""

    def why_no_peak_memory(self, deployment: Deployment) -> str:
        """Say why ``peak_memory`` tells nothing of a deployment here; empty where it does."""
        ...


@runtime_checkable
class RewritesModels(Protocol):
    """A backend that says a model otherwise before it builds, for speed and not for meaning."""

    def rewrite(self, model: Path, spec: EngineSpec, out: Path) -> bool:
        """Write the model as engines for ``spec`` are built from it.

        For whoever lets the same library build from a file, on another machine.

        Returns:
            Whether it is another model than was given; if not, nothing is written.

        Raises:
            TrialError: As for ``build``.
        """
        ...


@runtime_checkable
class BuildsForOthers(Protocol):
    """A backend that builds for devices which this machine does not have."""

    def targets(self) -> tuple[str, ...]:
        """Name them as ``trifront build --targets`` takes them, oldest first; may be none.

        Raises:
            UnsupportedError: The library is not installed.
        """
        ...


@runtime_checkable
class BuildsAtLength(Protocol):
    """A backend whose builds take long enough to be watched and broken off."""

    def build_at_length(
        self, model: Path, spec: EngineSpec, plan: Path, workshop: Workshop
    ) -> BuildLog:
        """Do what ``build`` does, telling how far it is.

        Raises:
            TrialError: As for ``build``.
            BaseException: What the workshop's ``tell`` raised.
        """
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
