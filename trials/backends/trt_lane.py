"""A lane: one stream, what is bound to it, and requests that are sent and waited for apart.

A request copies its inputs from pinned memory of the host, runs, and copies its outputs back, all
on the lane's stream, so that no request of a lane overtakes another. Tensors are bound once: every
request runs at the same addresses, which is also what a CUDA graph needs.

A **graph** holds the run alone, as trtexec's does. It is captured after one run without it,
because TensorRT loads things at the first, and tried before it is used: the outputs are filled
with bytes that they did not have, and after a replay none of those may be left. A graph that was
captured on another GPU, or of nothing, replays without an error and computes nothing.
"""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trials.backend import Tensors, TensorSpec
from trials.backends.trt_runtime import Context, Plan
from trials.devices.device import POISON, Device, DeviceMemory, Event, PinnedArray, Stream
from trials.errors import FaultError, UnsupportedError
from trials.serving_options import Transfers

DEPTH = 2
"""Requests of a lane in flight: one that runs, and the next one, so that the GPU never waits."""

_OTHER_POISON = 0xA5  # where an output of all POISON is the answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How requests are served: the options of scope SERVING.

    Attributes:
        cuda_graph: A request is one replay of a CUDA graph.
        specialization: When TensorRT for RTX makes kernels for the shapes that come: ``eager``,
            ``lazy`` (and swaps them in while requests run), ``none``.
        sleeps: Threads that wait for a request give their CPU away, because there are more than
            CPUs and they would keep each other from it.
    """

    cuda_graph: bool
    transfers: Transfers
    specialization: str = "eager"
    sleeps: bool = False


Shapes: TypeAlias = tuple[tuple[int, ...], ...]


def shapes_of(plan: Plan, batch: Tensors) -> Shapes:
    """Return the shapes of a batch in the order of a plan's inputs, ``()`` for one that lacks."""
    arrays = (batch.get(spec.name) for spec in plan.inputs)
    return tuple(() if array is None else array.shape for array in arrays)


class Bound:
    """An execution context whose tensors lie at fixed addresses, for batches of one shape."""

    def __init__(
        self, device: Device, plan: Plan, stream: Stream, batch: Tensors, *, serving: Serving
    ) -> None:
        """Bind; the device is current.

        Raises:
            UnsupportedError: The plan does not take such batches.
            MemoryLimitError: It does not fit.
            FaultError: The runtime broke, or a graph computes nothing.
        """
        self._stream = stream
        self._device = device
        self._parts = ExitStack()
        try:
            self._context = self._held(self._made_context(plan, serving))
            self.inputs = {spec.name: self._input(spec, batch) for spec in plan.inputs}
            self.outputs = {spec.name: self._output(spec) for spec in plan.outputs}
            self.run: Callable[[], None] = self._enqueue
            if serving.cuda_graph:
                self._prepare_graph(batch, captures=not plan.captures_itself)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give everything back, after what was still sent: it reads and writes these."""
        try:
            self._stream.synchronize()
        finally:
            self._parts.close()

    def pinned_outputs(self, parts: ExitStack) -> dict[str, PinnedArray]:
        """Make arrays that outputs are copied to, by name, and leave closing them to ``parts``.

        They are closed after what was sent on the stream, whatever breaks meanwhile.
        """
        found = {
            name: parts.enter_context(closing(self._device.pinned(shape, dtype)))
            for name, (_, shape, dtype) in self.outputs.items()
        }
        parts.callback(self._stream.synchronize)
        return found

    def pinned_inputs(self, batch: Tensors, parts: ExitStack) -> dict[str, PinnedArray]:
        """Make arrays that hold a batch, likewise."""
        found = {}
        for name in self.inputs:
            array = batch[name]
            pinned = parts.enter_context(closing(self._device.pinned(array.shape, array.dtype)))
            pinned.array[...] = array
            found[name] = pinned
        parts.callback(self._stream.synchronize)
        return found

    def copy_in(self, sources: dict[str, PinnedArray]) -> None:
        """Ask for copies of all inputs."""
        for name, source in sources.items():
            self._stream.copy_in(self.inputs[name], source)

    def copy_out(self, targets: dict[str, PinnedArray]) -> None:
        """Ask for copies of all outputs."""
        for name, target in targets.items():
            self._stream.copy_out(target, self.outputs[name][0])

    @staticmethod
    def _made_context(plan: Plan, serving: Serving) -> Context:
        return plan.context(cuda_graph=serving.cuda_graph, specialization=serving.specialization)

    def _enqueue(self) -> None:
        self._context.enqueue(self._stream.handle)

    def _held(self, part: Any) -> Any:
        return self._parts.enter_context(closing(part))

    def _memory(self, size_bytes: int) -> DeviceMemory:
        memory: DeviceMemory = self._held(self._device.memory(max(1, size_bytes)))
        return memory

    def _input(self, spec: TensorSpec, batch: Tensors) -> DeviceMemory:
        array = batch.get(spec.name)
        if array is None:
            raise UnsupportedError(f"the batch has no {spec.name!r}, which the engine takes")
        if not spec.takes(array):
            raise UnsupportedError(
                f"the engine takes {spec.name!r} as {spec.dtype} of shape {_written(spec.shape)}, "
                f"not {array.dtype.name} {array.shape}"
            )
        memory = self._memory(array.nbytes)
        self._context.set_shape(spec.name, array.shape)
        self._context.set_address(spec.name, memory.address)
        return memory

    def _output(self, spec: TensorSpec) -> tuple[DeviceMemory, tuple[int, ...], str]:
        shape = self._context.shape(spec.name)
        memory = self._memory(int(np.prod(shape)) * np.dtype(spec.dtype).itemsize)
        self._context.set_address(spec.name, memory.address)
        return memory, shape, spec.dtype

    def _prepare_graph(self, batch: Tensors, *, captures: bool) -> None:
        """Capture a run, if nobody else does, and see that replaying it computes something."""
        with ExitStack() as parts:
            self.copy_in(self.pinned_inputs(batch, parts))
            self._enqueue()
            expected = self._outputs_now(parts)
            if captures:
                graph = self._held(self._stream.capture(self._enqueue))
                self.run = lambda: self._stream.launch(graph)
            for byte in (POISON, _OTHER_POISON):
                for memory, _, _ in self.outputs.values():
                    self._stream.fill(memory, byte)
                self.run()
                _check_replay(expected, self._outputs_now(parts), byte)

    def _outputs_now(self, parts: ExitStack) -> dict[str, NDArray[Any]]:
        pinned = self.pinned_outputs(parts)
        self.copy_out(pinned)
        self._stream.synchronize()
        return {name: each.array for name, each in pinned.items()}


def _check_replay(
    expected: dict[str, NDArray[Any]], found: dict[str, NDArray[Any]], byte: int
) -> None:
    """See that a replay wrote every element of every output.

    Args:
        expected: Outputs of a run without a graph.
        found: Outputs after memory was filled with a byte and the graph was replayed.
        byte: Which.

    Raises:
        FaultError: Elements still hold the byte that the run without a graph had not made so.
    """
    for name, array in found.items():
        left = _is_all(array, byte) & ~_is_all(expected[name], byte)
        if left.any():
            raise FaultError(
                f"a CUDA graph computes nothing: after its replay {int(left.sum())} of "
                f"{left.size} elements of {name!r} are as they were before; set cuda_graph: "
                "[false]"
            )


def _is_all(array: NDArray[Any], byte: int) -> NDArray[np.bool_]:
    """Tell for each element whether all of its bytes are ``byte``, shape ``(elements,)``."""
    octets = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return np.asarray((octets.reshape(-1, array.itemsize) == byte).all(axis=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slot:
    """Events of a request in flight: its run begins, ends, and its last copy is there."""

    begin: Event
    end: Event
    done: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sendable:
    """One batch, ready to be sent."""

    bound: Bound
    inputs: dict[str, PinnedArray]


class Lane:
    """Requests of one stream; see :class:`trials.backend.RequestQueue`."""

    def __init__(
        self, device: Device, plan: Plan, batches: Sequence[Tensors], serving: Serving
    ) -> None:
        """Bind one request per batch; the device is current.

        Raises:
            TrialError: As for :class:`Bound`.
        """
        self._parts = ExitStack()
        self._copies = serving.transfers is Transfers.INCLUDE
        self._stream = self._parts.enter_context(closing(device.stream()))
        self._bound: dict[Shapes, Bound] = {}
        self._requests: list[_Sendable] = []
        try:
            for batch in batches:
                self._requests.append(self._request(device, plan, batch, serving))
            self._outputs = [
                {id(each): each.pinned_outputs(self._parts) for each in self._bound.values()}
                for _ in range(DEPTH)
            ]
            self._slots = [self._slot(device, serving) for _ in range(DEPTH)]
        except BaseException:
            self.close()
            raise
        self._sent: deque[int] = deque()  # slots in flight, the oldest first
        self._next = 0

    @property
    def depth(self) -> int:
        """Most requests in flight."""
        return DEPTH

    def send(self, at: int) -> None:
        """Ask for the request of batch ``at`` and return at once."""
        assert len(self._sent) < DEPTH, "no more are sent than may be in flight"
        request, slot = self._requests[at], self._slots[self._next]
        stream, bound = self._stream, request.bound
        if self._copies:
            bound.copy_in(request.inputs)
        stream.record(slot.begin)
        bound.run()
        stream.record(slot.end)
        if self._copies:
            bound.copy_out(self._outputs[self._next][id(bound)])
            stream.record(slot.done)
        self._sent.append(self._next)
        self._next = (self._next + 1) % DEPTH

    def is_done(self) -> bool:
        """Tell whether the oldest request in flight is answered."""
        return self._last_event().is_done()

    def wait(self) -> None:
        """Wait until the oldest request in flight is answered."""
        self._last_event().wait()

    def finish(self) -> float:
        """Take the oldest request, which is answered, out of flight; return its GPU seconds."""
        slot = self._slots[self._sent.popleft()]
        return slot.end.elapsed_s(slot.begin)

    def run(self, at: int) -> None:
        """Send a request and wait for its end."""
        self.send(at)
        self.wait()
        self.finish()

    def close(self) -> None:
        """Wait for what is in flight and give everything back."""
        with self._parts:
            self._stream.synchronize()

    def _last_event(self) -> Event:
        slot = self._slots[self._sent[0]]
        return slot.done if self._copies else slot.end

    def _slot(self, device: Device, serving: Serving) -> _Slot:
        begin, end, done = (
            self._parts.enter_context(closing(device.event(sleeps=serving.sleeps)))
            for _ in range(3)
        )
        return _Slot(begin=begin, end=end, done=done)

    def _request(self, device: Device, plan: Plan, batch: Tensors, serving: Serving) -> _Sendable:
        shapes = shapes_of(plan, batch)
        bound = self._bound.get(shapes)
        is_new = bound is None
        if bound is None:
            made = Bound(device, plan, self._stream, batch, serving=serving)
            bound = self._bound[shapes] = self._parts.enter_context(closing(made))
        if not self._copies and not is_new:
            return _Sendable(bound=bound, inputs={})
        inputs = bound.pinned_inputs(batch, self._parts)
        if not self._copies:  # they are there for all requests of this shape
            bound.copy_in(inputs)
            self._stream.synchronize()
        return _Sendable(bound=bound, inputs=inputs)


def _written(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('any' if size is None else str(size) for size in shape)})"
