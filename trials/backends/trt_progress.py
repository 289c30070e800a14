"""How far a build is, from what TensorRT's progress monitor is told.

TensorRT reports phases within phases, each of a known number of steps. The share of the whole is
that of the outermost phase, in which the running step counts by the share of the phase inside it.
Phases may be reported from several threads.

References:
    NVIDIA, TensorRT documentation, IProgressMonitor: ``step_complete`` returns False to cancel.
"""

from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import Any

from trials.abilities import Workshop

_PERIOD_S = 0.25  # a word to the owner takes a round trip of about 0.1 ms


class Phases:
    """What phases are open, and how far each is. Pure."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[str | None, int, int]] = {}
        self._share = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Open a phase of so many steps."""
        self._open[name] = (parent, steps, 0)

    def step(self, name: str, step: int) -> None:
        """Hear that a step, counted from 0, is complete."""
        parent, steps, _ = self._open.get(name, (None, 1, 0))
        self._open[name] = (parent, steps, step + 1)

    def finish(self, name: str) -> None:
        """Close a phase."""
        self._open.pop(name, None)

    @property
    def name(self) -> str:
        """The phase that was opened last."""
        return next(reversed(self._open), "building")

    @property
    def share(self) -> float:
        """What is behind, from 0 to 1; never less than before."""
        inner = 0.0
        name: str | None = self.name
        while name in self._open:
            parent, steps, done = self._open[name]
            inner = min(1.0, (done + inner) / max(1, steps))
            name = parent
        self._share = max(self._share, inner)
        return self._share


class Watch:
    """Tells a workshop how far a build is; what it raises cancels the build.

    Attributes:
        raised: What ``tell`` raised, to be raised again when the builder has returned, for no
            exception may pass through it.
    """

    def __init__(self, workshop: Workshop, *, clock: Callable[[], float] = monotonic) -> None:
        self.raised: BaseException | None = None
        self._tell = workshop.tell
        self._clock = clock
        self._next_s = 0.0
        self._phases = Phases()
        self._lock = Lock()

    def monitor(self, module: Any) -> Any:
        """Make a monitor of the library's own class, which exists only once it is loaded."""
        watch = self

        class Monitor(module.IProgressMonitor):  # type: ignore[misc] # its base has no types
            def __init__(self) -> None:
                module.IProgressMonitor.__init__(self)

            def phase_start(self, name: str, parent: str | None, steps: int) -> None:
                with watch._lock:
                    watch._phases.start(name, parent, steps)

            def step_complete(self, name: str, step: int) -> bool:
                with watch._lock:
                    watch._phases.step(name, step)
                    return watch._goes_on()

            def phase_finish(self, name: str) -> None:
                with watch._lock:
                    watch._phases.finish(name)

        return Monitor()

    def _goes_on(self) -> bool:
        if self.raised is None and self._clock() >= self._next_s:
            try:
                self._tell(f"building: {self._phases.name}", self._phases.share)
            except BaseException as error:  # noqa: BLE001 -- raised again by whoever builds
                self.raised = error
            self._next_s = self._clock() + _PERIOD_S
        return self.raised is None
