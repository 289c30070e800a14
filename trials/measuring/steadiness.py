"""Whether an engine is in its steady state. Pure.

References:
    White, K., Cobb, M. and Spratt, S. (2000), A comparison of five steady-state truncation
        heuristics for simulation. Proc. Winter Simulation Conference, 755-760: MSER-5.
"""

import numpy as np

from trials.measurement import Seconds

_MSER_BATCH = 5
_MSER_MIN_BATCHES = 4  # fewer means cannot show a transient


def truncate_warmup(latencies: Seconds) -> int:
    """Say how many of the first requests belong to a transient (MSER-5).

    The cut is the one that makes the standard error of what remains smallest, over means of five;
    it is sought in the first half only, so half of the requests or more means "still drifting".

    Args:
        latencies: Shape ``(requests,)`` in order of time; fewer than 20 cannot tell and give 0.
    """
    batches = latencies.size // _MSER_BATCH
    if batches < _MSER_MIN_BATCHES:
        return 0
    means = latencies[: batches * _MSER_BATCH].reshape(batches, _MSER_BATCH).mean(axis=1)
    cuts = np.arange(batches // 2 + 1)
    left = batches - cuts
    # sums over what remains after each cut; centred first, or large latencies would cancel
    centred = means - means.mean()
    sums = np.cumsum(centred[::-1])[::-1][cuts]
    squares = np.cumsum(centred[::-1] ** 2)[::-1][cuts]
    scores = (squares - sums**2 / left) / left.astype(np.float64) ** 2
    cut = int(np.argmin(scores))
    if 2 * cut >= batches - 1:  # the last cut on offer, rounding included
        return -(-latencies.size // 2)
    return cut * _MSER_BATCH
