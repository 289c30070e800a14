"""How much memory a server needs for a deployment on ONNX Runtime: rehearsed in a fresh process.

The definition: the resident memory of a process that serves nothing else, beyond what it has when
the runtime is up and idle, at the moment when ``concurrency`` requests are in flight after a first
one that warmed the session; or while loading, should that take more.

ONNX Runtime never gives back what its arena took, so what counts is how many requests are ever in
flight *at once*. That is chance: of two threads that send requests of 1 ms, it takes seconds until
both were seen at their largest together. So here it is made to happen. The saved graph gets three
more operators, of which the last makes an output of another shape than it declares. ONNX Runtime
warns of that, in the thread and in the middle of the request, and the listener of its log keeps
the request there until all the others have come as far, one after the other.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from mmap import PAGESIZE
from operator import methodcaller
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from threading import Event, Semaphore
from typing import IO, TYPE_CHECKING

import numpy as np

from search_spaces.deployment import Deployment, Precision
from trials.backend import Request, Tensors
from trials.backends.ort_engine import OrtEngine
from trials.backends.ort_errors import mapped
from trials.backends.ort_log import WARNING, listening
from trials.backends.ort_session import opened, serving_options
from trials.errors import FaultError
from trials.isolation.pristine import pristine
from trials.measuring.memory import ResidentMemory, is_told

if TYPE_CHECKING:
    from onnx import ModelProto

_RUNTIME = "trials.backends.ort_memory:bring_up"
_REHEARSE = "trials.backends.ort_memory:rehearse"
_PAUSE = "trifront.pause"
_NO_LENGTH = 1 << 40  # elements; nobody makes so many
_WARMING = 2  # requests: the second takes memory by the plan that the first one left
_LOOK_PERIOD_S = 0.05
_LONGEST_PAUSE_S = 3600.0  # the owner's deadline comes first


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What a fresh process needs to know.

    Attributes:
        plan: A saved graph with the pause.
        inputs: (name, npy file) of one batch; mapped and not read, so that it takes no memory.
    """

    plan: Path
    deployment: Deployment
    inputs: tuple[tuple[str, Path], ...]


def peak_memory(
    plan: Path, deployment: Deployment, batch: Tensors, *, deadline_s: float
) -> int | None:
    """Rehearse a deployment in a fresh process; bytes, or None where the kernel does not tell.

    Raises:
        UnsupportedError: The engine does not take inputs of this shape.
        MemoryLimitError: It does not fit.
        FaultError: The fresh process died, or there is no room for temporary files.
    """
    import onnx

    if not is_told():
        return None
    with ExitStack() as files:
        model = onnx.load_model(plan, load_external_data=False)
        try:
            rehearsal = _rehearsal(files, model, deployment, batch)
        except OSError as error:
            raise FaultError(
                f"memory cannot be rehearsed in {gettempdir()}: {error.strerror}; make "
                "room there, or name another folder in TMPDIR"
            ) from error
        peak_bytes = pristine(_RUNTIME).run(_REHEARSE, rehearsal, deadline_s=deadline_s)
    assert isinstance(peak_bytes, int)
    return peak_bytes


def bring_up() -> None:
    """Let the runtime serve a graph that does nothing, so that all that it keeps is there."""
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "idle",
        [value("x", TensorProto.FLOAT, ["batch", 1])],
        [value("y", TensorProto.FLOAT, ["batch", 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    point = Deployment(variant="idle", precision=Precision.FP32, batch_size=1, concurrency=2)
    with ExitStack() as files:
        rehearse(_rehearsal(files, model, point, {"x": np.zeros((1, 1), np.float32)}))


def rehearse(rehearsal: Rehearsal) -> int:
    """Serve as the module's text says, in this process; returns what it took, at least a page.

    Raises:
        TrialError: As for :func:`peak_memory`.
    """
    deployment = rehearsal.deployment
    memory = ResidentMemory()
    batch = {name: np.load(path, mmap_mode="r") for name, path in rehearsal.inputs}
    gate = _Gate()
    with listening(gate.hear), mapped(f"rehearsing {deployment}"):
        options = serving_options(deployment, log_severity=WARNING)
        session = opened(str(rehearsal.plan), options)
        loading_bytes = memory.peak_bytes()
        engine = OrtEngine(session, hidden=_PAUSE)
        requests = [_request(engine, batch) for _ in range(deployment.concurrency)]
        with ThreadPoolExecutor(deployment.concurrency) as lanes:
            for _ in range(_WARMING):
                lanes.submit(requests[0]).result()
            with gate.shut():
                in_flight = gate.gathered(requests, lanes)
                serving_bytes = memory.held_bytes()
            for sent in in_flight:
                sent.result()
    return max(PAGESIZE, loading_bytes, serving_bytes)


class _Gate:
    """Keeps requests in flight that came to the pause, while it is shut."""

    def __init__(self) -> None:
        self._is_shut = False
        self._arrived = Semaphore(0)
        self._opened = Event()

    def hear(self, severity: int, place: str, message: str) -> None:
        """Hear a message of ONNX Runtime, in the thread of the request that it is about."""
        del severity, place
        if self._is_shut and _PAUSE in message:
            self._arrived.release()
            self._opened.wait(_LONGEST_PAUSE_S)

    @contextmanager
    def shut(self) -> Iterator[None]:
        """Keep what comes until the block is left."""
        self._is_shut = True
        try:
            yield
        finally:
            self._opened.set()

    def gathered(
        self, requests: Sequence[Request], lanes: ThreadPoolExecutor
    ) -> list[Future[None]]:
        """Send each request when the one before it has come to the pause."""
        in_flight = []
        for request in requests:
            in_flight.append(lanes.submit(request))
            self._wait_for(in_flight[-1])
        return in_flight

    def _wait_for(self, sent: Future[None]) -> None:
        while not self._arrived.acquire(timeout=_LOOK_PERIOD_S):
            if sent.done():
                sent.result()
                raise FaultError(
                    "ONNX Runtime did not warn of an output's shape, by which requests are held "
                    "in flight; report its version to trifront"
                )


def _request(engine: OrtEngine, batch: Tensors) -> Request:
    binding = engine.binding(batch)

    def request() -> None:
        binding.bind_output(_PAUSE)  # anew: of the last request it has a shape
        engine.run(binding)

    return request


def _rehearsal(
    files: ExitStack, model: "ModelProto", deployment: Deployment, batch: Tensors
) -> Rehearsal:
    """Write down what a fresh process is to load; the files are gone when ``files`` is left.

    Raises:
        OSError: There is no room.
    """
    _add_pause(model)
    inputs = []
    for name, array in batch.items():
        content = partial(np.save, arr=np.ascontiguousarray(array))
        inputs.append((name, _written(files, content)))
    plan = _written(files, methodcaller("write", model.SerializeToString()))
    return Rehearsal(plan=plan, deployment=deployment, inputs=tuple(inputs))


def _written(files: ExitStack, content: Callable[[IO[bytes]], object]) -> Path:
    """Write a file without a name, of which nothing is left however we end; returns its path."""
    file: IO[bytes] = files.enter_context(TemporaryFile())  # noqa: SIM115 -- the stack closes it
    content(file)
    file.flush()
    return Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")


def _add_pause(model: "ModelProto") -> None:
    """Add an output whose shape is known only when all else is done, and is declared wrong."""
    from onnx import TensorProto, helper

    kinds = "shape", "numbers", "places", "counts"
    shape, numbers, places, counts = (f"{_PAUSE}.{kind}" for kind in kinds)
    node = helper.make_node
    model.graph.node.extend(
        [
            node("Shape", [model.graph.output[0].name], [shape]),
            node("Cast", [shape], [numbers], to=TensorProto.FLOAT),
            # of all opsets; the number of distinct ones is no use of shape inference
            node("Unique", [numbers], [_PAUSE, places, counts], domain="com.microsoft"),
        ]
    )
    value = helper.make_tensor_value_info(_PAUSE, TensorProto.FLOAT, [_NO_LENGTH])
    model.graph.output.append(value)
    if all(one.domain != "com.microsoft" for one in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
