"""What became of a stretch of open-loop load: which batch took which requests, and when.

Pure. Times are nanoseconds on the loop's clock, so that differences are exact.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trials.measurement import Block, Queueing, Seconds, Stamps
from trials.measuring.littles_law import check_littles_law, check_room

NS_PER_S = 1_000_000_000

Nanoseconds = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timetable:
    """What a loop is to serve, in one uninterrupted stretch.

    Attributes:
        due_s: Shape ``(requests,)``, ascending; arrivals after the begin of the stretch, seconds.
        counted: Requests that must be answered; those behind them only keep the load up.
        patience_s: When a stretch is given up, from its begin, seconds.
    """

    due_s: Seconds
    counted: int
    patience_s: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Served:
    """The batches of one stretch, in the order in which their requests came.

    Attributes:
        begin_ns: Begin of the stretch.
        due_ns: Shape ``(requests,)``; all that were on the timetable.
        sizes: Shape ``(batches,)``; requests in each batch, which took them in order. The sum
            falls short of the requests where some were not reached.
        filled: Shape ``(batches,)``; samples that the engine ran, filling included.
        moments_ns: Shape ``(batches,)``; when the batcher wanted each to leave.
        starts_ns: Shape ``(batches,)``; when it left.
        ends_ns: Shape ``(batches,)``; when it was answered.
    """

    begin_ns: int
    due_ns: Nanoseconds
    sizes: NDArray[np.int32]
    filled: NDArray[np.int32]
    moments_ns: Nanoseconds
    starts_ns: Nanoseconds
    ends_ns: Nanoseconds

    @property
    def answered(self) -> int:
        """Number of requests that were answered, the first ones of the timetable."""
        return int(self.sizes.sum())

    def waiting_at(self, moment_ns: int) -> int:
        """Count the requests that had come and not been sent."""
        came = int(np.searchsorted(self.due_ns, moment_ns, side="right"))
        return came - int(self.sizes[self.starts_ns <= moment_ns].sum())

    def answered_between(self, begin_ns: int, end_ns: int) -> int:
        """Count the requests that were answered in [begin, end)."""
        inside = (self.ends_ns >= begin_ns) & (self.ends_ns < end_ns)
        return int(self.sizes[inside].sum())


def check_served(served: Served, *, lanes: int) -> None:
    """See that the stamps can be true.

    Raises:
        StampsError: More batches were served at once than there are lanes, or one was answered
            before it left.
    """
    check_room(served.starts_ns, served.ends_ns, room=lanes)


def blocks_of(served: Served, edges_ns: Sequence[int]) -> Iterator[Block]:
    """Cut a stretch into blocks, by when requests were due.

    Args:
        served: All requests before the last edge were answered.
        edges_ns: Ascending; one block between each two, except that a block without a request
            is joined to the next.

    Raises:
        StampsError: The stamps contradict a block (Little's law).
    """
    batch = np.repeat(np.arange(served.sizes.size), served.sizes)
    starts_ns, ends_ns = served.starts_ns[batch], served.ends_ns[batch]
    due_ns = served.due_ns[: batch.size]
    cuts = np.searchsorted(served.due_ns, np.array(edges_ns), side="left")
    begin = 0
    for at in range(1, len(edges_ns)):
        first, last = int(cuts[begin]), int(cuts[at])
        if first == last:
            continue
        order = first + np.argsort(ends_ns[first:last], kind="stable")
        window_ns = edges_ns[at] - edges_ns[begin]
        block = Block(
            start_s=edges_ns[begin] / NS_PER_S,
            window_s=window_ns / NS_PER_S,
            latencies_s=(ends_ns - due_ns)[order] / NS_PER_S,
            batch_size=1,
            stamps=Stamps(
                due_s=due_ns[order] / NS_PER_S,
                start_s=starts_ns[order] / NS_PER_S,
                end_s=ends_ns[order] / NS_PER_S,
                batch=served.sizes[batch[order]],
            ),
        )
        inside = slice(first, last)
        check_littles_law(
            block, begins_ns=due_ns[inside], ends_ns=ends_ns[inside], window_ns=window_ns
        )
        yield block
        begin = at


def queueing_of(stretches: Sequence[Served], blocks: Sequence[Block]) -> Queueing:
    """Say where the latencies of blocks went, and how punctual their stretches were.

    Args:
        stretches: Those that the blocks were cut from, at least one, with a batch.
        blocks: At least one, each with stamps.
    """
    stamps = [block.stamps for block in blocks if block.stamps is not None]
    waits_s = np.concatenate([one.start_s - one.due_s for one in stamps])
    services_s = np.concatenate([one.end_s - one.start_s for one in stamps])
    sizes = np.concatenate([one.sizes for one in stretches])
    filled = np.concatenate([one.filled for one in stretches])
    late_s = np.concatenate([one.starts_ns - one.moments_ns for one in stretches]) / NS_PER_S
    return Queueing(
        wait_mean_s=float(waits_s.mean()),
        wait_p99_s=float(np.quantile(waits_s, 0.99)),
        service_mean_s=float(services_s.mean()),
        service_p99_s=float(np.quantile(services_s, 0.99)),
        batch_mean=float(sizes.mean()),
        padded_share=float(1 - sizes.sum() / filled.sum()),
        late_p50_s=float(np.quantile(late_s, 0.5)),
        late_p99_s=float(np.quantile(late_s, 0.99)),
    )
