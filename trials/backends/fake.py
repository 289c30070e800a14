"""A backend that computes what others measure: for demos, dry runs, replays and tests.

No model and no waiting: time is virtual wherever the load generator asks for whole blocks, and the
same content gives the same numbers. It also misbehaves on request, so that one can see what
trifront makes of a deployment that does not fit, crashes, hangs or answers nonsense.
"""

import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from search_spaces.deployment import Deployment, Precision
from search_spaces.space import FakeSource
from trials.backend import Capabilities, EngineSpec, Option, Request, Scope, Tensors, TensorSpec
from trials.backends.fake_gpu import ComputedGpu, power_w
from trials.backends.fake_model import (
    CLASSES,
    MEMORY_BYTES,
    PRECISIONS,
    FakeModel,
    Timing,
    timing,
)
from trials.errors import FaultError, MemoryLimitError, OutputError, UnsupportedError
from trials.inspection import BuildLog, Layer, LayerOutput, build_log
from trials.measurement import Block, Seconds

FAULTS = ("oom", "crash", "hang", "garbage")

_FORMAT = "trifront fake model 1"  # part of every digest: raise it when the arithmetic changes
_CORNER = 16  # batch sizes from here on meet the faults oom and crash
_BYTES_PER_GB = 1e9
_MANY_REQUESTS = 256  # of each lane, drawn at once
_CAPABILITIES = Capabilities(
    precisions=PRECISIONS,
    refusals=tuple(
        (precision, "the fake backend has no numbers for it")
        for precision in Precision
        if precision not in PRECISIONS
    ),
    options=(
        Option(
            name="threads",
            scope=Scope.SERVING,
            default=1,
            help="threads that work on one request; they contend with concurrent requests",
        ),
    ),
)


def fake_model_bytes(source: FakeSource) -> bytes:
    """Write a variant's numbers as a model file: canonical JSON, without the variant's name."""
    content = {
        "format": _FORMAT,
        "work_ms": source.work_ms,
        "accuracy": source.accuracy,
        "size_mb": source.size_mb,
        "fault": source.fault,
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Content:
    """What a model file says, and at which precision it is to be run in a plan."""

    work_ms: float
    accuracy: float
    size_mb: float
    fault: str | None
    format: str
    precision: str = Precision.FP32.value

    def model(self) -> FakeModel:
        digest = hashlib.sha256(repr((self.work_ms, self.accuracy, self.size_mb)).encode())
        return FakeModel(
            work_s=self.work_ms / 1e3,
            accuracy=self.accuracy,
            size_mb=self.size_mb,
            seed=int.from_bytes(digest.digest()[:6], "big"),
            precision=Precision(self.precision),
        )


class FakeBackend:
    """Computes instead of running.

    Faults that a variant may carry:

    - ``oom``: does not fit from a batch size of 16 on;
    - ``crash``: aborts its process when loaded for a batch size of 16 or more;
    - ``hang``: sleeps for ever in the first inference, request or block;
    - ``garbage``: answers NaN.
    """

    @property
    def name(self) -> str:
        """Name in space files."""
        return "fake"

    def capabilities(self) -> Capabilities:
        """Say what is honoured; the same on every machine."""
        return _CAPABILITIES

    def environment(self) -> tuple[tuple[str, str], ...]:
        """Return the version of the arithmetic; the machine plays no part."""
        return (("fake", _FORMAT.rpartition(" ")[2]),)

    def build(self, model: Path, spec: EngineSpec, plan: Path) -> BuildLog:
        """Check the numbers and write them down with the precision.

        Raises:
            UnsupportedError: There are no numbers for the precision, or the file is no fake model.
            MemoryLimitError: The weights alone do not fit.
            FaultError: The file cannot be read.
        """
        if spec.precision not in PRECISIONS:
            reason = dict(_CAPABILITIES.refusals)[spec.precision]
            raise UnsupportedError(f"fake does not build {spec.precision}: {reason}; use fp32")
        try:
            content = asdict(_read(model)) | {"precision": spec.precision.value}
        except OSError as error:
            raise FaultError(f"{model.name} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise UnsupportedError(
                f"{model.name} is not a fake model ({error}); the fake backend takes fake variants"
            ) from error
        _check_memory(_Content(**content).model(), batch_size=0, concurrency=0)
        plan.write_text(json.dumps(content, sort_keys=True), encoding="utf-8")
        return build_log([f"{name}: {value}" for name, value in sorted(content.items())])

    def inspect(self, model: Path, spec: EngineSpec, plan: Path) -> tuple[Layer, ...]:
        """Show the one step that there is.

        Raises:
            FaultError: The file is not a plan of this backend.
        """
        del model, spec  # the plan says it all
        content = _read_plan(plan)
        shape = (None, CLASSES)
        return (
            Layer(
                name="arithmetic",
                operator="fake.Classify",
                outputs=(LayerOutput(name="logits", dtype="float32", shape=shape),),
                parameter_bytes=round(content.model().weight_bytes),
                facts=(("precision", content.precision), ("work_ms", f"{content.work_ms:g}")),
            ),
        )

    def load(self, plan: Path, deployment: Deployment) -> "FakeEngine":
        """Set up the arithmetic for a deployment.

        Raises:
            MemoryLimitError: It does not fit.
            FaultError: The file is not a plan of this backend.
        """
        content = _read_plan(plan)
        model = content.model()
        is_in_corner = deployment.batch_size >= _CORNER
        if content.fault == "crash" and is_in_corner:
            os.abort()
        if content.fault == "oom" and is_in_corner:
            raise MemoryLimitError(
                f"a batch of {deployment.batch_size} does not fit (fault oom of the variant); "
                f"lower batch_size below {_CORNER}"
            )
        _check_memory(model, batch_size=deployment.batch_size, concurrency=deployment.concurrency)
        return FakeEngine(model, deployment, fault=content.fault)

    def peak_memory(
        self, plan: Path, deployment: Deployment, batch: Tensors, *, deadline_s: float
    ) -> int:
        """Compute what serving takes on the made-up device, bytes.

        Raises:
            FaultError: The file is not a plan of this backend.
        """
        del batch, deadline_s
        model = _read_plan(plan).model()
        return round(
            model.memory_bytes(
                batch_size=deployment.batch_size, concurrency=deployment.concurrency
            )
        )

    def why_no_energy(self, deployment: Deployment) -> str:
        """Say that the energy of closed loops alone is computed."""
        return "" if deployment.load is None else "the fake backend computes none of open loads"


class FakeEngine:
    """The arithmetic of one deployment; see :class:`trials.backend.Engine`."""

    def __init__(self, model: FakeModel, deployment: Deployment, *, fault: str | None) -> None:
        self._model = model
        self._deployment = deployment
        self._fault = fault
        self._timing = self._timing_of(deployment.batch_size)
        self._gpu = self._made_up_gpu()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The samples: id and true label of each."""
        return (TensorSpec(name="samples", dtype="float32", shape=(None, 2)),)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The logits."""
        return (TensorSpec(name="logits", dtype="float32", shape=(None, CLASSES)),)

    def infer(self, inputs: Tensors) -> Tensors:
        """Answer one batch; takes no time unless the variant hangs.

        Raises:
            OutputError: The batch does not hold pairs of id and label.
        """
        self._hang_if_asked()
        samples = inputs["samples"]
        if samples.ndim != 2 or samples.shape[1] != 2:  # noqa: PLR2004 - id and label
            raise OutputError(f"samples have shape {samples.shape}; the fake backend takes (n, 2)")
        ids, labels = samples.astype(np.int64).T
        logits = self._model.answers(ids, labels)
        return {"logits": np.full_like(logits, np.nan) if self._fault == "garbage" else logits}

    @contextmanager
    def lane(self, batches: Sequence[Tensors]) -> Iterator[Sequence[Request]]:
        """Yield requests that sleep for the computed time, one per batch."""
        drawn = self._timing.latencies(start_s=0.0, requests=_MANY_REQUESTS, lanes=1)
        delays_s = itertools.cycle(drawn[0].tolist())

        def request() -> None:
            self._hang_if_asked()
            time.sleep(next(delays_s))

        yield (request,) * len(batches)

    def computed_block(self, *, start_s: float, window_s: float, requests: int) -> Block:
        """Compute the block that a closed loop would have recorded.

        Every lane issues equally many requests. The window is the mean time that a lane was busy,
        so that Little's law holds exactly.
        """
        self._hang_if_asked()
        lanes = self._deployment.concurrency
        count = max(1, -(-requests // lanes), int(window_s / self._timing.mean_s))
        drawn = self._timing.latencies(start_s=start_s, requests=count, lanes=lanes)
        while drawn.sum(axis=1).mean() < window_s:
            count += max(1, count // 10)
            drawn = self._timing.latencies(start_s=start_s, requests=count, lanes=lanes)
        order = np.argsort(drawn.cumsum(axis=1), axis=None)
        busy_s = float(drawn.sum(axis=1).mean())
        self._gpu.work(busy_s)
        return Block(
            start_s=start_s,
            window_s=busy_s,
            latencies_s=drawn.ravel()[order],
            batch_size=self._deployment.batch_size,
        )

    def computed_services(self, *, start_s: float, batches: int) -> Seconds:
        """Compute how long batches of every size take on lanes that are all busy.

        Returns:
            Shape ``(batches, batch_size)``, seconds; column k is for k + 1 samples.
        """
        self._hang_if_asked()
        largest = self._timing_of(self._deployment.batch_size)
        full_s = largest.latencies(start_s=start_s, requests=batches, lanes=1)[0]
        sizes = range(1, self._deployment.batch_size + 1)
        shares = np.array([self._timing_of(size).mean_s for size in sizes]) / largest.mean_s
        return np.asarray(full_s[:, None] * shares, dtype=np.float64)

    @contextmanager
    def gpu(self) -> Iterator[ComputedGpu]:
        """Open the meters of the made-up GPU, which move with every computed block."""
        yield self._gpu

    def close(self) -> None:
        """Release nothing: there is nothing."""

    def _made_up_gpu(self) -> ComputedGpu:
        deployment, model = self._deployment, self._model
        size, lanes = deployment.batch_size, deployment.concurrency
        return ComputedGpu(
            mean_w=power_w(in_flight=size * lanes, precision=model.precision),
            memory_bytes=round(model.memory_bytes(batch_size=size, concurrency=lanes)),
            seed=self._timing.seed,
        )

    def _timing_of(self, batch_size: int) -> Timing:
        return timing(
            self._model,
            batch_size=batch_size,
            concurrency=self._deployment.concurrency,
            threads=int(dict(self._deployment.options).get("threads", 1)),
        )

    def _hang_if_asked(self) -> None:
        while self._fault == "hang":
            time.sleep(3600)


def _read_plan(plan: Path) -> _Content:
    """Read what ``build`` wrote.

    Raises:
        FaultError: It is something else.
    """
    try:
        return _read(plan)
    except (OSError, ValueError) as error:
        raise FaultError(f"{plan.name} is no engine of the fake backend: {error}") from error


def _read(path: Path) -> _Content:
    """Read a model or plan.

    Raises:
        ValueError: It is neither; the message says why.
    """
    try:
        content = _Content(**json.loads(path.read_bytes()))
        for field, is_valid in _VALID.items():
            if not is_valid(getattr(content, field)):
                raise ValueError(f"{field} cannot be {getattr(content, field)!r}")
    except TypeError as error:
        raise ValueError(f"it has other fields ({error})") from error
    return content


_VALID: Mapping[str, Callable[[Any], bool]] = {
    "format": lambda value: value == _FORMAT,
    "work_ms": lambda value: value > 0,
    "accuracy": lambda value: 0 <= value <= 1,
    "size_mb": lambda value: value > 0,
    "fault": lambda value: value is None or value in FAULTS,
    "precision": lambda value: value in PRECISIONS,
}


def _check_memory(model: FakeModel, *, batch_size: int, concurrency: int) -> None:
    needed = model.memory_bytes(batch_size=batch_size, concurrency=concurrency)
    if needed > MEMORY_BYTES:
        raise MemoryLimitError(
            f"{batch_size} samples × {concurrency} requests need {needed / _BYTES_PER_GB:.1f} of "
            f"{MEMORY_BYTES / _BYTES_PER_GB:.0f} GB; lower batch_size or concurrency"
        )
