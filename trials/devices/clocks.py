"""The clock of a computed device: real time, unless a test brings another."""

from time import perf_counter_ns, sleep
from typing import Protocol

_NS_PER_S = 1_000_000_000


class Clock(Protocol):
    """Time as the host sees it."""

    def now_ns(self) -> int:
        """Read it."""
        ...

    def spend(self, duration_ns: int) -> None:
        """Let the calling thread be busy for a while."""
        ...

    def wait_until(self, moment_ns: int) -> None:
        """Let the calling thread rest until then."""
        ...


class RealClock:
    """The load generator's clock; time is spent."""

    def now_ns(self) -> int:
        """Read the processor's clock."""
        return perf_counter_ns()

    def spend(self, duration_ns: int) -> None:
        """Be busy, as a driver is that takes a request."""
        until = perf_counter_ns() + duration_ns
        while perf_counter_ns() < until:
            pass

    def wait_until(self, moment_ns: int) -> None:
        """Sleep, as a thread does that waits for a device."""
        while (left_ns := moment_ns - perf_counter_ns()) > 0:
            sleep(left_ns / _NS_PER_S)
