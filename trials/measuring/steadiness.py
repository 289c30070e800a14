"""Whether an engine is in its steady state. Pure.

A transient at the beginning is cut off (MSER-5, on the first block). A lasting change later on,
say of a clock or a neighbour, is a result that its reader should know of: the blocks before and
after it are two deployments, of which the intervals describe neither.

**A jump is told from wandering** by a test that normalizes itself: the scatter that a jump must
stand out from is read on either side of it, with whatever autocorrelation it has, so that blocks
that remember each other raise no false alarms. It looks at the whole measurement and at its first
and last two thirds, where a level that came and went shows too. A jump below 5 % is none: so much
differs between two sessions anyway. Simulated, flagged at 20 / 40 blocks of 250 requests:

    iid 0.0 / 0.0 %, AR(1) 0.3 / 0.3 %, bursts 4.5 / 2.7 %, levels that wander by 5 % 3.6 / 1.8 %
    10 % in the middle 99 / 100 %, in the last fifth 86 / 99 %, for three tenths only 92 / 100 %

References:
    Shao, X. and Zhang, X. (2010), Testing for change points in time series. JASA 105, 1228-1240:
        the statistic and its critical values (table 1).
    White, K., Cobb, M. and Spratt, S. (2000), A comparison of five steady-state truncation
        heuristics for simulation. Proc. Winter Simulation Conference, 755-760: MSER-5.
"""

import math
from collections.abc import Sequence

import numpy as np

from trials.measurement import Block, Seconds

_MSER_BATCH = 5
_MSER_MIN_BATCHES = 4  # fewer means cannot show a transient

_SHIFT_BLOCKS = 20  # with ten, one in fourteen levels that wander looks like a jump
_LEAST_SHIFT = math.log(1.05)
_CRITICAL = 121.9  # one false alarm in a thousand, per window
_LEAST_SIDE = 2  # blocks on either side of a jump


def has_level_shift(blocks: Sequence[Block]) -> bool:
    """Tell whether the mean latency jumped, by 5 % or more, in the middle of a measurement.

    Args:
        blocks: In order of time; with fewer than 20 nothing is told.
    """
    if len(blocks) < _SHIFT_BLOCKS:
        return False
    levels = np.array([math.log(one.latencies_s.mean()) for one in blocks])
    part = -(-2 * levels.size // 3)
    return any(_jumps(window) for window in (levels, levels[:part], levels[-part:]))


def _jumps(values: Seconds) -> bool:
    """Test a window of log levels, at the place where it jumps most clearly."""
    count = values.size
    centred = values - values.mean()
    sums = np.cumsum(centred)
    clearest, place = 0.0, _LEAST_SIDE
    for at in range(_LEAST_SIDE, count - _LEAST_SIDE + 1):
        before, after = np.cumsum(centred[:at]), np.cumsum(centred[at:][::-1])
        scatter = _bridge(before) + _bridge(after)
        # levels that do not vary on either side jump for certain, however little
        clearness = math.inf if scatter == 0 else count * float(sums[at - 1]) ** 2 / scatter
        if clearness > clearest:
            clearest, place = clearness, at
    shift = abs(float(values[place:].mean() - values[:place].mean()))
    return clearest > _CRITICAL and shift >= _LEAST_SHIFT


def _bridge(sums: Seconds) -> float:
    """Return the squared distance of running sums from the line that they would follow alike."""
    distance = sums - np.arange(1, sums.size + 1) / sums.size * sums[-1]
    return float((distance * distance).sum())


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
