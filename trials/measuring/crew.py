"""A crew: threads that each hold something of one engine, such as a lane, and do jobs together.

Threads and bound buffers live as long as the crew; a job begins and ends at a barrier and starts
no thread.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Barrier, BrokenBarrierError, Thread
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

_Held = TypeVar("_Held")
_Held_contra = TypeVar("_Held_contra", contravariant=True)


class Job(Protocol[_Held_contra]):
    """What a crew does together."""

    def work(self, number: int, held: _Held_contra) -> None:
        """Do the part of one thread, 0 <= number < threads, with what it holds."""
        ...

    def cancel(self) -> None:
        """Make every thread return soon; called from any thread, more than once perhaps."""
        ...


class Crew(Generic[_Held]):
    """A context manager, used by one thread.

    Any exception of a thread ends the crew and is raised, as it was, by the call that was waiting.
    """

    def __init__(
        self, hold: Callable[[int], AbstractContextManager[_Held]], *, threads: int
    ) -> None:
        """Choose what threads hold.

        Args:
            hold: Given a thread's number; entered and left in that thread.
            threads: >= 1.

        Raises:
            ValueError: There is no thread.
        """
        if threads < 1:
            raise ValueError(f"{threads} threads make no load")
        self._hold = hold
        self._threads = tuple(
            Thread(target=self._live, args=(number,), name=f"load-{number}", daemon=True)
            for number in range(threads)
        )
        self._barrier = Barrier(threads + 1)
        self._job: Job[_Held] | None = None
        self._errors: list[BaseException] = []

    def __enter__(self) -> Self:
        """Start the threads and wait until each holds what it needs.

        Raises:
            MemoryLimitError: The buffers do not fit.
        """
        try:
            for thread in self._threads:
                thread.start()
            self._meet()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release the threads; a lane that breaks while it is left is an error too."""
        try:
            if kind is None:
                self._job = None
                self._meet()
                self._join()  # a barrier aborted now would break those still waking up
        finally:
            self._stop()
        if kind is None and self._errors:
            raise self._errors[0]

    @property
    def threads(self) -> tuple[int, ...]:
        """Native ids of the threads."""
        return tuple(thread.native_id or 0 for thread in self._threads)

    def do(self, job: Job[_Held]) -> None:
        """Let every thread do its part and wait for all; raise what one of them raised."""
        self._job = job
        self._meet()
        self._meet()

    def _live(self, number: int) -> None:
        try:
            with self._hold(number) as held:
                self._barrier.wait()
                while True:
                    self._barrier.wait()
                    if self._job is None:
                        break
                    self._job.work(number, held)
                    self._barrier.wait()
        except BrokenBarrierError:
            return  # another thread broke, or the caller did
        except BaseException as error:  # noqa: BLE001 (raised again in the caller's thread)
            self._errors.append(error)
            self._cancel()

    def _meet(self) -> None:
        try:
            self._barrier.wait()
        except BrokenBarrierError:
            raise self._errors[0] from None

    def _cancel(self) -> None:
        if self._job is not None:
            self._job.cancel()
        self._barrier.abort()

    def _stop(self) -> None:
        self._cancel()
        self._join()

    def _join(self) -> None:
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """Keep the garbage collector from running, and leave it as it was."""
    was_enabled, had_frozen = gc.isenabled(), gc.get_freeze_count() > 0
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
        if not had_frozen:
            gc.unfreeze()
