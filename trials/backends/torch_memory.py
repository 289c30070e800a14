"""How much memory a server needs for a deployment on torch: rehearsed.

On the CPU, in a fresh process: all lanes are entered, each in a thread of its own, and send their
requests one lane after the other, so that each thread has what it keeps (buffers, workspaces, the
C library's heap). What is held then is measured; then how far one request more goes beyond it and
gives back. In the worst moment all that are in flight do that at once, so

    memory = max(while loading, held + concurrency x beyond)

which is measured and the same each time, where waiting for the worst moment would be chance. On a
GPU the allocator says what it reserved, which already adds up over streams.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from mmap import PAGESIZE
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

import numpy as np

from search_spaces.deployment import Deployment
from trials.backend import Engine, Request, Tensors
from trials.backends.torch_cuda import Cuda
from trials.errors import FaultError
from trials.measuring.memory import ResidentMemory, is_told

_RUNTIME = "trials.backends.torch_memory:bring_up"
_REHEARSE = "trials.backends.torch_memory:rehearse"
_WARMING = 3  # requests of each lane
_LOOKS = 3  # at one request


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What a fresh process needs to know.

    Attributes:
        plan: An engine.
        inputs: (name, npy file) of one batch.
    """

    plan: Path
    deployment: Deployment
    inputs: tuple[tuple[str, Path], ...]


def resident_memory(
    plan: Path, deployment: Deployment, batch: Tensors, *, deadline_s: float
) -> int | None:
    """Rehearse a deployment in a fresh process; bytes, or None where the kernel does not tell.

    Raises:
        UnsupportedError: The engine does not take inputs of this shape.
        MemoryLimitError: It does not fit.
        FaultError: The fresh process died, or there is no room for temporary files.
    """
    from trials.isolation.pristine import pristine  # needs more than a bare GPU machine has

    if not is_told():
        return None
    try:
        with TemporaryDirectory(prefix="trifront-memory-") as folder:
            inputs = []
            for number, (name, array) in enumerate(batch.items()):
                path = Path(folder) / f"{number}.npy"
                np.save(path, array)
                inputs.append((name, path))
            rehearsal = Rehearsal(plan=plan, deployment=deployment, inputs=tuple(inputs))
            peak_bytes = pristine(_RUNTIME).run(_REHEARSE, rehearsal, deadline_s=deadline_s)
    except OSError as error:
        raise FaultError(
            f"memory cannot be rehearsed in {gettempdir()}: {error.strerror}; make room there, or "
            "name another folder in TMPDIR"
        ) from error
    assert isinstance(peak_bytes, int)
    return peak_bytes


def bring_up() -> None:
    """Load torch and let it serve a program that does nothing, in this one thread."""
    import torch

    from trials.models.torch_program import body_of, exported

    program = exported(torch.nn.Identity(), shape=(1,), dtype="float32")
    with torch.inference_mode():
        body_of(program)(torch.zeros(1, 1))


def rehearse(rehearsal: Rehearsal) -> int:
    """Serve as the module's text says, in this process; returns what it took, at least a page.

    Raises:
        TrialError: As for :func:`resident_memory`.
    """
    from trials.backends.torch_backend import TorchBackend

    memory = ResidentMemory()
    batch = {name: np.load(path) for name, path in rehearsal.inputs}
    engine = TorchBackend(no_card).load(rehearsal.plan, rehearsal.deployment)
    loading_bytes = memory.peak_bytes()
    with ExitStack() as lanes:
        requests = entered(lanes, engine, batch, rehearsal.deployment.concurrency)
        for request in requests:
            for _ in range(_WARMING):
                request()
        held_bytes = memory.held_bytes()
        beyond_bytes = max(_beyond(requests[0]) for _ in range(_LOOKS))
    serving_bytes = held_bytes + rehearsal.deployment.concurrency * beyond_bytes
    return max(PAGESIZE, loading_bytes, serving_bytes)


def device_memory(
    cuda: Cuda, load: Callable[[], Engine], batch: Tensors, *, concurrency: int
) -> int:
    """Serve on a GPU and return what of its memory was reserved at most, bytes.

    Raises:
        TrialError: The engine cannot be loaded or run.
    """
    cuda.release()
    before_bytes = cuda.peak_bytes()
    engine = load()
    try:
        with ExitStack() as lanes:
            for request in entered(lanes, engine, batch, concurrency):
                for _ in range(_WARMING):
                    request()
            peak_bytes = cuda.peak_bytes()
    finally:
        engine.close()
    return max(1, peak_bytes - before_bytes)


def entered(lanes: ExitStack, engine: Engine, batch: Tensors, concurrency: int) -> list[Request]:
    """Enter lanes of one request, each in a thread of its own; left with ``lanes``.

    Returns:
        What sends each request in its thread and waits for its end.
    """
    requests: list[Request] = []
    for _ in range(concurrency):
        thread = lanes.enter_context(ThreadPoolExecutor(1))
        lane = engine.lane([batch])
        bound = thread.submit(lane.__enter__).result()
        lanes.callback(_left, thread, lane.__exit__)
        requests.append(partial(_sent, thread, bound[0]))
    return requests


def no_card() -> None:
    """Say that there is no GPU, whatever there is."""


def _sent(thread: ThreadPoolExecutor, request: Request) -> None:
    thread.submit(request).result()


def _left(thread: ThreadPoolExecutor, leave: Callable[..., object]) -> None:
    thread.submit(leave, None, None, None).result()


def _beyond(request: Request) -> int:
    """Return how far a request goes beyond what is held before it, bytes."""
    memory = ResidentMemory()
    request()
    return max(0, memory.peak_bytes())
