"""A clock of a computed device that moves only by what is done in it."""


class VirtualClock:
    """Time for one thread, in which a test takes no time and always the same."""

    def __init__(self) -> None:
        self._now_ns = 0

    def now_ns(self) -> int:
        """Read it; no time passes."""
        return self._now_ns

    def spend(self, duration_ns: int) -> None:
        """Move it on."""
        self._now_ns += duration_ns

    def wait_until(self, moment_ns: int) -> None:
        """Move it there, never back."""
        self._now_ns = max(self._now_ns, moment_ns)
