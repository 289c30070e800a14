"""When requests are due: pure functions from a pattern and a seed to arrival times. No clock.

A schedule is drawn before anything runs and is the same for the same arguments, so that two
deployments meet the same users. Time-varying rates are drawn by thinning: candidates come as a
Poisson process of the highest rate and are kept with the probability rate / highest rate, which is
exact for any rate function.

References:
    Lewis, P. and Shedler, G. (1979), Simulation of nonhomogeneous Poisson processes by thinning.
        Naval Research Logistics Quarterly 26, 403-413.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces.arrivals import (
    Arrivals,
    ConstantArrivals,
    DayArrivals,
    GammaArrivals,
    PoissonArrivals,
    StepArrivals,
    TraceArrivals,
)
from search_spaces.errors import SpaceError
from search_spaces.traces import trace_from_csv
from trials.errors import DataError, InputChangedError
from trials.measurement import Seconds

_SPARE = 5.0  # standard deviations of a count, drawn at once so that one draw mostly suffices


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """One uninterrupted piece of a pattern.

    Attributes:
        begin_s: Where in the pattern it begins, seconds; patterns that repeat go on there.
        length_s: Its length, seconds, > 0.
        number: Tells the random draws of one stretch from those of the next.
    """

    begin_s: float
    length_s: float
    number: int


def due_times(arrivals: Arrivals, stretch: Stretch, *, rate_rps: float) -> Seconds:
    """Draw the arrivals of a stretch.

    Args:
        arrivals: The pattern.
        stretch: Which piece of it.
        rate_rps: The pattern's mean rate, requests/s, > 0.

    Returns:
        Shape ``(requests,)``, ascending, seconds after the stretch's begin, in [0, length).

    Raises:
        ValueError: A rate or length that is not above 0.
        DataError: A trace that can no longer be read.
        InputChangedError: A trace that has changed.
    """
    if rate_rps <= 0 or stretch.length_s <= 0:
        raise ValueError(f"{rate_rps} requests/s over {stretch.length_s} s make no schedule")
    match arrivals:
        case PoissonArrivals():
            return _renewals(_exponential, arrivals.seed, stretch, rate_rps)
        case GammaArrivals():
            return _renewals(_gamma(arrivals.burstiness), arrivals.seed, stretch, rate_rps)
        case ConstantArrivals():
            return _constant(stretch, rate_rps)
        case StepArrivals() | DayArrivals():
            return _thinned(arrivals, stretch, rate_rps)
        case TraceArrivals():
            return _replayed(trace_of(arrivals), stretch, rate_rps)


_Gaps = Callable[[np.random.Generator, int], Seconds]  # of mean 1


def _exponential(generator: np.random.Generator, count: int) -> Seconds:
    return generator.exponential(size=count)


def _gamma(burstiness: float) -> _Gaps:
    shape = 1 / burstiness**2  # a gamma's coefficient of variation is 1 / sqrt(shape)
    return lambda generator, count: generator.gamma(shape, 1 / shape, size=count)


def _renewals(gaps: _Gaps, seed: int, stretch: Stretch, rate_rps: float) -> Seconds:
    generator = np.random.default_rng((seed, stretch.number))
    expected = rate_rps * stretch.length_s
    count = math.ceil(expected + _SPARE * math.sqrt(expected + 1))
    drawn = gaps(generator, count) / rate_rps
    while drawn.sum() < stretch.length_s:
        drawn = np.concatenate([drawn, gaps(generator, count) / rate_rps])
    times_s = np.cumsum(drawn)
    return times_s[times_s < stretch.length_s]


def _constant(stretch: Stretch, rate_rps: float) -> Seconds:
    first = math.ceil(stretch.begin_s * rate_rps)
    last = math.ceil((stretch.begin_s + stretch.length_s) * rate_rps)
    times_s = np.arange(first, last) / rate_rps - stretch.begin_s
    # rounding may push either end over its border by a last digit
    return times_s[(times_s >= 0) & (times_s < stretch.length_s)]


def _thinned(arrivals: StepArrivals | DayArrivals, stretch: Stretch, rate_rps: float) -> Seconds:
    relative, highest = _relative_rate(arrivals)
    candidates_s = _renewals(_exponential, arrivals.seed, stretch, rate_rps * highest)
    # another stream than the candidates' own
    generator = np.random.default_rng((arrivals.seed, stretch.number, 1))
    kept = generator.random(candidates_s.size) * highest < relative(stretch.begin_s + candidates_s)
    return candidates_s[kept]


def _relative_rate(
    arrivals: StepArrivals | DayArrivals,
) -> tuple[Callable[[Seconds], Seconds], float]:
    """Return the rate over time with mean 1, and its highest value."""
    if isinstance(arrivals, DayArrivals):
        turn, swing = 2 * math.pi / arrivals.period_s, arrivals.swing
        return (lambda times_s: 1 + swing * np.sin(turn * times_s)), 1 + swing
    lengths_s, rates = (np.array(column) for column in zip(*arrivals.steps, strict=True))
    rates = rates * lengths_s.sum() / (rates @ lengths_s)
    ends_s = np.cumsum(lengths_s)

    def stepped(times_s: Seconds) -> Seconds:
        at = np.searchsorted(ends_s, times_s % ends_s[-1], side="right")
        return np.asarray(rates[np.minimum(at, rates.size - 1)], dtype=np.float64)

    return stepped, float(rates.max())


def trace_of(arrivals: TraceArrivals) -> Seconds:
    """Read the arrival times of a trace again, shape ``(arrivals,)``, seconds, ascending from 0.

    Raises:
        DataError: It can no longer be read.
        InputChangedError: It has changed.
    """
    try:
        trace = trace_from_csv(arrivals.path, key="measure.arrivals.path")
    except SpaceError as error:
        raise DataError(str(error)) from error
    if trace.digest != arrivals.digest:
        raise InputChangedError(
            f"{arrivals.path}: the trace has changed since the search began; put the old file "
            "back and go on, or search the new one under another --study name"
        )
    return np.array(trace.times_s)


def _replayed(trace_s: Seconds, stretch: Stretch, rate_rps: float) -> Seconds:
    """Stretch a trace to the rate and lay it end to end, a mean gap between two rounds."""
    round_s = trace_s.size / rate_rps
    scaled_s = trace_s * (trace_s.size - 1) / trace_s.size * round_s / trace_s[-1]
    first = math.floor(stretch.begin_s / round_s)
    last = math.ceil((stretch.begin_s + stretch.length_s) / round_s)
    rounds: Sequence[Seconds] = [scaled_s + at * round_s for at in range(first, last)]
    times_s = np.concatenate(rounds) - stretch.begin_s
    return times_s[(times_s >= 0) & (times_s < stretch.length_s)]
