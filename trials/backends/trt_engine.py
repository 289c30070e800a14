"""A TensorRT engine on a GPU: a plan, and lanes with an execution context each."""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np

from search_spaces.deployment import Deployment
from trials.backend import Request, Tensors, TensorSpec
from trials.backends.trt_lane import Bound, Lane, Serving, Shapes, shapes_of
from trials.backends.trt_library import Library
from trials.backends.trt_options import refuse_idle
from trials.backends.trt_runtime import Plan, plan_from_file
from trials.devices.device import Device
from trials.errors import UnsupportedError
from trials.machine.gpu_source import GpuSource
from trials.machine.nvml import meter
from trials.measuring.ladder import powers_up_to
from trials.serving_options import transfers_of, uses_cuda_graph

_EAGER = "eager"  # kernels are made before the first request of a shape is answered


def load_engine(
    library: Library, device: Device, plan: Path, deployment: Deployment
) -> "TrtEngine":
    """Load a plan as a deployment's serving options say.

    Args:
        library: The flavour.
        device: The GPU, which the engine does not close.
        plan: What was built on it.
        deployment: How it is served.

    Raises:
        UnsupportedError: A tensor is of a type that NumPy does not have, or an option that means
            nothing to this engine or does not go with another.
        MemoryLimitError: It does not fit.
        FaultError: It cannot be read, is damaged, or was built for another version or GPU.
    """
    refuse_idle(deployment.options)
    serving = serving_of(deployment)
    with device.current():
        return TrtEngine(device, plan_from_file(library, plan), serving)


def serving_of(deployment: Deployment) -> Serving:
    """Read the serving options, with their defaults.

    Raises:
        UnsupportedError: A CUDA graph is asked for whose kernels come later, or never: TensorRT
            for RTX captures none before its kernels for the shape are made.
    """
    chosen = dict(deployment.options)
    specialization = str(chosen.get("kernel_specialization", _EAGER))
    if uses_cuda_graph(chosen) and specialization != _EAGER:
        raise UnsupportedError(
            f"cuda_graph: true goes with kernel_specialization: eager, not {specialization}: "
            "TensorRT for RTX captures no graph before the kernels for a shape are made; set "
            "cuda_graph: [false], or add the rule "
            "not cuda_graph or kernel_specialization == 'eager'"
        )
    return Serving(
        cuda_graph=uses_cuda_graph(chosen),
        transfers=transfers_of(chosen),
        specialization=specialization,
        sleeps=deployment.concurrency > _cpus(),
    )


def _cpus() -> int:
    """Return how many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def needed_bytes(library: Library, device: Device, plan: Path, deployment: Deployment) -> int:
    """Say how much memory of the GPU serving needs: weights, contexts and their tensors.

    Under an open load an engine of many batch sizes has a context for each that is bound, and
    each holds what the largest batch of its profile takes.

    Computed, not watched: other processes' memory comes and goes, and CUDA hands it out in pieces
    of two megabytes. The kernels' own code, some megabytes, is left out.

    Raises:
        TrialError: As for :func:`load_engine`.
    """
    with device.current():
        loaded = plan_from_file(library, plan)
        try:
            each_bytes = sum(
                loaded.context_bytes
                + sum(_bytes_of(spec, size) for spec in (*loaded.inputs, *loaded.outputs))
                for size in _bound_sizes(loaded, deployment)
            )
            return loaded.weights_bytes + deployment.concurrency * each_bytes
        finally:
            loaded.close()


class TrtEngine:
    """A plan on a GPU; see ``trials.backend.Engine`` and ``trials.abilities.QueuesRequests``.

    ``infer`` has a lane of its own, made when it is first asked and used by one thread at a time.
    """

    def __init__(self, device: Device, plan: Plan, serving: Serving) -> None:
        self._device = device
        self._plan = plan
        self._serving = serving
        self._lock = Lock()
        self._scoring: _Scoring | None = None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs in the plan's order."""
        return self._plan.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs in the plan's order."""
        return self._plan.outputs

    def gpu(self) -> AbstractContextManager[GpuSource | None]:
        """Open the meters of the GPU; None where nobody can read them."""
        return meter(uuid=self._device.facts.uuid)

    @property
    def transfers(self) -> str:
        """Whether copies between host and GPU are part of a request: ``include``, ``exclude``."""
        return self._serving.transfers.value

    @property
    def uses_graphs(self) -> bool:
        """Whether a request is one launch of a CUDA graph."""
        return self._serving.cuda_graph

    def infer(self, inputs: Tensors) -> Tensors:
        """Run one batch and return fresh arrays; copies are part of it whatever is served.

        Raises:
            UnsupportedError: The plan does not take inputs of this shape or type.
            MemoryLimitError: The batch does not fit.
            FaultError: The runtime broke.
        """
        with self._lock, self._device.current():
            if self._scoring is None:
                self._scoring = _Scoring(self._device, self._plan, self._serving)
            return self._scoring.answers(inputs)

    @contextmanager
    def queue(self, batches: Sequence[Tensors]) -> Iterator[Lane]:
        """Bind one request per batch, to be sent and waited for apart.

        With CUDA graphs the run is made, captured and tried here, so the first request is no
        longer a cold one.

        Raises:
            UnsupportedError: The plan does not take inputs of this shape or type.
            MemoryLimitError: The buffers do not fit.
            FaultError: The runtime broke, or a graph computes nothing.
        """
        with (
            self._device.current(),
            closing(Lane(self._device, self._plan, batches, self._serving)) as lane,
        ):
            yield lane

    @contextmanager
    def lane(self, batches: Sequence[Tensors]) -> Iterator[Sequence[Request]]:
        """Bind one request per batch, each of which runs to its end.

        Raises:
            TrialError: As for :meth:`queue`.
        """
        with self.queue(batches) as lane:
            yield tuple(partial(lane.run, at) for at in range(len(batches)))

    def close(self) -> None:
        """Give everything back, the GPU's memory first; lanes were left."""
        with self._lock, self._device.current(), closing(self._plan):
            if self._scoring is not None:
                self._scoring.close()


class _Scoring:
    """Answers batches of any shape that the plan takes, one at a time."""

    def __init__(self, device: Device, plan: Plan, serving: Serving) -> None:
        self._device = device
        self._plan = plan
        self._serving = serving
        self._parts = ExitStack()
        self._stream = self._parts.enter_context(closing(device.stream()))
        self._bound: dict[Shapes, Bound] = {}

    def answers(self, batch: Tensors) -> Tensors:
        """Run a batch as it is served, copies included."""
        bound = self._bound_for(batch)
        with ExitStack() as parts:
            bound.copy_in(bound.pinned_inputs(batch, parts))
            bound.run()
            pinned = bound.pinned_outputs(parts)
            bound.copy_out(pinned)
            self._stream.synchronize()
            return {name: each.array.copy() for name, each in pinned.items()}

    def close(self) -> None:
        self._parts.close()

    def _bound_for(self, batch: Tensors) -> Bound:
        shapes = shapes_of(self._plan, batch)
        if shapes not in self._bound:
            made = Bound(self._device, self._plan, self._stream, batch, serving=self._serving)
            self._bound[shapes] = self._parts.enter_context(closing(made))
        return self._bound[shapes]


def _bound_sizes(plan: Plan, deployment: Deployment) -> tuple[int, ...]:
    """Return the batch sizes that a lane holds a context for; see ``measuring.ladder``."""
    is_fixed = any(spec.shape[:1] != (None,) for spec in plan.inputs)
    if deployment.load is None or is_fixed:
        return (deployment.batch_size,)
    return powers_up_to(deployment.batch_size)


def _bytes_of(spec: TensorSpec, batch_size: int) -> int:
    """Return the bytes of a tensor; a free dimension is the batch's."""
    shape = [batch_size if size is None else size for size in spec.shape]
    return int(np.prod(shape)) * np.dtype(spec.dtype).itemsize
