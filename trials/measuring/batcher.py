"""The dynamic batcher: which waiting requests share a batch, and when it leaves. Pure.

A server's batcher decides at every arrival and whenever an instance of the engine is free. Here
the arrivals are known beforehand, so the same decision is worked out at once: the first moment at
which a server that saw only the past would have sent a batch.

The rule is that of Triton Inference Server's dynamic batcher, requests in order of arrival:

* when the oldest has waited for ``max_delay_ns``, and that is more than 0, whatever waits leaves,
  also where it fills a preferred size;
* else, as soon as the waiting requests reach a preferred size, the largest preferred size that
  they fill leaves;
* without preferred sizes, the largest batch is the preferred one. With a delay of 0 a free
  instance takes the largest preferred size that is filled, else what there is.

References:
    NVIDIA, Triton Inference Server user guide, Batchers: dynamic batcher; its source,
        dynamic_batch_scheduler.cc, GetDynamicBatch, for the order of the first two.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Batcher:
    """The rule with its numbers.

    Attributes:
        largest: Requests in the largest batch, >= 1.
        max_delay_ns: How long the oldest request may wait for others, nanoseconds, >= 0.
        preferred: Sizes that leave at once, ascending; those above ``largest`` play no part.
    """

    largest: int
    max_delay_ns: int
    preferred: tuple[int, ...] = ()
    _goals: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        if self.largest < 1 or self.max_delay_ns < 0:
            raise ValueError(f"batches of {self.largest} after {self.max_delay_ns} ns: no rule")
        goals = tuple(size for size in self.preferred if size <= self.largest)
        object.__setattr__(self, "_goals", goals or (self.largest,))

    def next_batch(self, due_ns: Sequence[int], first: int, free_ns: int) -> tuple[int, int]:
        """Say when the next batch leaves, and with how many requests.

        Args:
            due_ns: When each request arrives, ascending, nanoseconds.
            first: Index of the oldest request that has not left.
            free_ns: From when on an instance is free.

        Returns:
            (moment, requests): the moment is >= ``free_ns`` and the due time of every request in
            the batch.
        """
        oldest_ns = due_ns[first]
        moment_ns = max(free_ns, oldest_ns)
        goal = first + self._goals[0] - 1
        full_ns = due_ns[goal] if goal < len(due_ns) else oldest_ns + self.max_delay_ns
        moment_ns = max(moment_ns, min(oldest_ns + self.max_delay_ns, full_ns))
        end = min(first + self.largest, len(due_ns))
        waiting = bisect_right(due_ns, moment_ns, first, end) - first
        if moment_ns - oldest_ns >= self.max_delay_ns > 0:
            return moment_ns, waiting
        filled = [size for size in self._goals if size <= waiting]
        return moment_ns, filled[-1] if filled else waiting
