"""What an engine or a backend may do besides the seam's own: asked for with ``isinstance``.

Whoever has none of these is complete; see :mod:`trials.backend`.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from search_spaces.deployment import Deployment
from trials.backend import EngineSpec, Tensors
from trials.inspection import BuildLog
from trials.machine.gpu_source import GpuSource
from trials.measurement import Block, Seconds


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
class QueuesRequests(Protocol):
    """An engine on a device: its requests are sent and waited for apart."""

    def queue(self, batches: Sequence[Tensors]) -> AbstractContextManager[RequestQueue]:
        """Bind one request per batch for one execution context; as ``Engine.lane`` otherwise."""
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
class RunsOnGpu(Protocol):
    """An engine whose requests are run by one GPU, which is watched while it is measured."""

    def gpu(self) -> AbstractContextManager[GpuSource | None]:
        """Open the meters of that GPU (``machine.nvml.meter``); None where nobody can read them.

        Entered and left in the thread that measures, once a measurement, while the engine is open.
        """
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
