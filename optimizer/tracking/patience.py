"""When a record that was refused is tried again, and when an MLflow that fails."""

from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from optimizer.tracking.spool import label_of

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0


@dataclass(slots=True)
class Pause:
    """A pause that doubles with every failure.

    Attributes:
        until_s: Its end, on the caller's clock.
    """

    failures: int = 0
    until_s: float = 0.0

    def fail(self, now_s: float) -> None:
        """Begin the next pause."""
        self.until_s = now_s + min(_FIRST_PAUSE_S * 2**self.failures, _LONGEST_PAUSE_S)
        self.failures += 1


@dataclass(slots=True)
class Patience:
    """The pauses of one MLflow and of each record that it refused.

    Attributes:
        clock: Seconds.
    """

    clock: Callable[[], float]
    _all: Pause = field(default_factory=Pause)
    _own: dict[str, Pause] = field(default_factory=dict)

    def order(self, names: Iterable[str]) -> list[str]:
        """Order records for an attempt: those that failed least first, then by age.

        So one that makes MLflow itself fail, each time, does not keep the others waiting.
        """
        return sorted(names, key=lambda name: (self._of(name).failures, name))

    def is_due(self, name: str) -> bool:
        """Tell whether a record may be tried now."""
        return self.clock() >= self._of(name).until_s

    def is_over(self) -> bool:
        """Tell whether MLflow may be tried now."""
        return self.clock() >= self._all.until_s

    def wait_s(self, names: Collection[str]) -> float | None:
        """Return how long it is until one of these may be tried; None where there are none."""
        if not names:
            return None
        first_s = min(self._of(name).until_s for name in names)
        return max(0.0, max(first_s, self._all.until_s) - self.clock())

    def record_failed(self, name: str) -> None:
        """Leave a record alone for a while."""
        self._own.setdefault(name, Pause()).fail(self.clock())

    def all_failed(self) -> None:
        """Leave MLflow alone for a while."""
        self._all.fail(self.clock())

    def succeeded(self) -> None:
        """Take MLflow for sound again."""
        self._all = Pause()

    def forget_all_but(self, names: Collection[str]) -> None:
        """Forget records that wait no more."""
        self._own = {name: pause for name, pause in self._own.items() if name in names}

    def _of(self, name: str) -> Pause:
        return self._own.get(name, Pause())


def queues_of(names: Iterable[str]) -> dict[str, deque[str]]:
    """Sort records by run, each in order of age: only the first of a run may be tried."""
    queues: dict[str, deque[str]] = {}
    for name in names:
        queues.setdefault(uid_of(name), deque()).append(name)
    return queues


def uid_of(name: str) -> str:
    """Return the uid in a record's name."""
    return label_of(name).partition("-")[2]
