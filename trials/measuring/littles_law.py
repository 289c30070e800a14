"""Little's law on every block: L = λW, or the stamps are wrong.

The number of requests in the system, averaged over time, is their rate times their mean time in
it. The left side is counted here from the raw stamps, by walking through every begin and end in
order of time; the right side is taken from the block as it is published. They can only differ by a
mistake of ours: stamps of another block, or arrays in another order. A wrong window would be wrong
on both sides, so the window of a closed loop, whose workers are busy or at its end, is held
against the stamps by itself. Neither can more requests be in the system than there is room for.

References:
    Little, J. (1961), A proof for the queuing formula L = λW. Operations Research 9, 383-387.
"""

import numpy as np
from numpy.typing import NDArray

from trials.errors import StampsError
from trials.measurement import Block

TOLERANCE = 0.02
_MEND = "please report this, the measurement is not used"


def check_littles_law(
    block: Block, *, begins_ns: NDArray[np.int64], ends_ns: NDArray[np.int64], window_ns: float
) -> None:
    """Hold a block against the stamps that it was made from.

    Args:
        block: As it is published.
        begins_ns: Shape ``(requests,)``; when each came into the system, in any order.
        ends_ns: Shape ``(requests,)``; when each left it, in any order.
        window_ns: Time over which the block's requests came, nanoseconds, > 0.

    Raises:
        StampsError: L and λW differ by more than 2 %, or a request ends before any begins.
    """
    times_ns, present = _present(begins_ns, ends_ns)
    counted = float(np.diff(times_ns) @ present[:-1]) / window_ns
    requests = block.latencies_s.size
    published = requests / block.window_s * float(block.latencies_s.mean())
    if requests != begins_ns.size or abs(counted - published) > TOLERANCE * counted:
        raise StampsError(
            f"the stamps contradict the block: {counted:.4g} requests were in the system on "
            f"average, rate times latency gives {published:.4g} (Little's law); {_MEND}"
        )


def check_window(
    begins_ns: NDArray[np.int64],
    ends_ns: NDArray[np.int64],
    *,
    from_ns: int,
    window_ns: float,
    room: int,
) -> None:
    """Hold the window of a closed loop against its stamps.

    It is no longer than from the begin of the load to the last end, and long enough for ``room``
    workers to have done all that they did.

    Args:
        begins_ns: Shape ``(requests,)``, in any order.
        ends_ns: Likewise.
        from_ns: When the first worker began.
        window_ns: What the rate of the block is taken over.
        room: Number of workers.

    Raises:
        StampsError: It is more than 2 % beside that.
    """
    span_ns = float(ends_ns.max() - from_ns)
    busy_ns = float((ends_ns - begins_ns).sum())
    if window_ns > span_ns * (1 + TOLERANCE):
        raise StampsError(
            f"a block of {window_ns:.0f} ns is longer than all of its load ({span_ns:.0f} ns); "
            f"{_MEND}"
        )
    if busy_ns > room * window_ns * (1 + TOLERANCE):
        raise StampsError(
            f"{room} workers cannot be busy for {busy_ns:.0f} ns in {window_ns:.0f} ns; {_MEND}"
        )


def check_room(begins_ns: NDArray[np.int64], ends_ns: NDArray[np.int64], *, room: int) -> None:
    """See that never more were in a place than it has room for.

    Args:
        begins_ns: Shape ``(visits,)``; when each came, in any order.
        ends_ns: Shape ``(visits,)``; when each left, in any order.
        room: The most at a time.

    Raises:
        StampsError: There were more, or one left before any came.
    """
    most = int(_present(begins_ns, ends_ns)[1].max(initial=0))
    if most > room:
        raise StampsError(f"{most} were served at once where {room} can be; {_MEND}")


def _present(
    begins_ns: NDArray[np.int64], ends_ns: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return distinct times, ascending, and how many are present from each on."""
    changes = np.repeat(np.array([1, -1]), (begins_ns.size, ends_ns.size))
    times_ns, at = np.unique(np.concatenate([begins_ns, ends_ns]), return_inverse=True)
    net = np.bincount(at, weights=changes, minlength=times_ns.size)
    present = np.cumsum(net.astype(np.int64))
    if present.min(initial=0) < 0:
        raise StampsError(f"a request ends before any begins; {_MEND}")
    return times_ns, present
