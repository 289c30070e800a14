"""Load one deployment more and more: concurrency under closed loops, rates under open ones.

**Concurrency** doubles until two levels in a row bring less than 5 % more throughput. **Rates**
are chosen one by one: a few that show the shape of the curve, then the geometric mean of the
highest rate that is kept and the lowest that is not, until these are 5 % apart. That takes about
eight rates where a grid of the same fineness over two decades takes ninety-four.

A rate is *kept* when the whole 95 % interval of every promised latency meets its bound; where the
interval lies on both sides it is *undecided* and does not count as kept.

References:
    Reddi, V. et al. (2020), MLPerf Inference Benchmark. ISCA '20: the Server scenario, throughput
        under a bound on tail latency.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from time import monotonic

from optimizer.saturation.result import ClosedPoint, OpenPoint, Saturation, Standing, limits_of
from search_spaces.arrivals import PoissonArrivals
from search_spaces.deployment import Deployment, OpenLoad
from search_spaces.space import Constraint, MeasuringPlan
from trials.errors import FaultError, InfeasibleError, SaturatedError
from trials.measurement import Block
from trials.measuring.load import Driven
from trials.measuring.scalability import LEAST_LEVELS, Scalability, fit_scalability

_POINTS = 14  # that a time is shared by
_MOST_LEVELS = 8  # 1 to 128 requests in flight
_MOST_RATES = 14
_PAYS = 1.05  # times the throughput that a level must bring
_CLOSED_SHARE = 0.5  # of the time, at most
_SHAPE = (0.1, 0.5, 0.8)  # of what a closed loop got through, to begin with
_APART = 1.05  # between what is kept and what is not, at the end
_STEP = 1.3  # upwards, as long as everything is kept
_LEAST_SHARE = 0.01  # of what a closed loop got through; below it no rate is looked for
_DIGITS = 3  # of a rate


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOrder:
    """What is to be swept.

    Attributes:
        study: Name of the trial's study, and ``trial`` its number there.
        deployment: Its load gives the queue delay, where it has one.
        time_s: About how long the measuring may take, seconds.
    """

    study: str
    trial: int
    deployment: Deployment
    slo: tuple[Constraint, ...]
    time_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Who measures and who is told.

    Attributes:
        measure: Measures the speed of a deployment.
        keep: Told the raw blocks of each point, with a name for them.
        on_step: Told in words what comes next.
    """

    measure: Callable[[Deployment], Driven]
    keep: Callable[[str, tuple[Block, ...]], None]
    on_step: Callable[[str], None]


def plan_of_points(plan: MeasuringPlan, *, time_s: float) -> MeasuringPlan:
    """Return how each point is measured: shorter than a trial, so that all fit into the time."""
    least_s = 2 * plan.min_blocks * plan.block_s  # with the lead-in of an open loop
    return replace(
        plan,
        max_s=max(least_s, min(plan.max_s, time_s / _POINTS)),
        arrivals=plan.arrivals or PoissonArrivals(),
    )


def sweep(
    order: SweepOrder, bench: Bench, *, made_at: str, environment: tuple[tuple[str, str], ...]
) -> Saturation:
    """Measure a deployment at rising concurrency and at rates around what it can keep.

    Raises:
        TrialError: The deployment cannot be measured at all.
    """
    began = monotonic()
    levels = list(_levels(order, bench, until=began + _CLOSED_SHARE * order.time_s))
    capacity = _capacity_sps(levels, order.deployment.concurrency)
    rates: list[OpenPoint] = []
    while len(rates) < _MOST_RATES and (not rates or monotonic() - began < order.time_s):
        rate = next_rate(rates, capacity_sps=capacity)
        if rate is None:
            break
        bench.on_step(f"open loop, {rate:,g} requests/s")
        rates.append(_rate(order, bench, rate))
    points = tuple(sorted(rates, key=lambda point: point.rate_rps))
    kept, lost = limits_of(points)
    return Saturation(
        study=order.study,
        trial=order.trial,
        deployment=order.deployment,
        made_at=made_at,
        slo=order.slo,
        closed=tuple(point for point, _ in levels),
        open=points,
        scalability=_scalability(levels),
        kept_rps=kept,
        lost_rps=lost,
        environment=environment,
    )


def next_rate(tried: Sequence[OpenPoint], *, capacity_sps: float) -> float | None:
    """Choose the rate to try next; None when the limit is known well enough.

    Args:
        tried: In any order.
        capacity_sps: What a closed loop got through, samples/s.
    """
    if len(tried) < len(_SHAPE):
        return _round(_SHAPE[len(tried)] * capacity_sps)
    kept, lost = limits_of(tuple(sorted(tried, key=lambda point: point.rate_rps)))
    if lost is None:
        assert kept is not None, "a rate was tried, so it is kept or lost"
        wanted = kept * _STEP
    elif kept is None:
        wanted = lost / 2
    else:
        wanted = sqrt(kept * lost) if lost / kept > _APART else 0.0
    if wanted < _LEAST_SHARE * capacity_sps:
        return None
    rate = _round(wanted)
    return None if rate in {point.rate_rps for point in tried} else rate


def _levels(
    order: SweepOrder, bench: Bench, *, until: float
) -> Iterator[tuple[ClosedPoint, tuple[Block, ...]]]:
    best_sps, vain = 0.0, 0
    for exponent in range(_MOST_LEVELS):
        concurrency = 1 << exponent
        bench.on_step(f"closed loop, {concurrency} in flight")
        try:
            driven = bench.measure(replace(order.deployment, concurrency=concurrency, load=None))
        except (InfeasibleError, FaultError):
            if exponent == 0:
                raise
            return  # so many do not fit, or break it; what was found is kept
        bench.keep(f"closed-{concurrency}", driven.blocks)
        point = ClosedPoint(concurrency=concurrency, speed=driven.speed, flags=driven.flags)
        yield point, driven.blocks
        reached_sps = driven.speed.throughput_sps.value
        vain = 0 if reached_sps > _PAYS * best_sps else vain + 1
        best_sps = max(best_sps, reached_sps)
        is_enough = exponent + 1 >= LEAST_LEVELS and (vain > 1 or monotonic() > until)
        if is_enough:
            return


def _capacity_sps(
    levels: Sequence[tuple[ClosedPoint, tuple[Block, ...]]], concurrency: int
) -> float:
    """Return what the closed loop nearest below the deployment's own concurrency got through."""
    near = [point for point, _ in levels if point.concurrency <= concurrency]
    return near[-1].speed.throughput_sps.value


def _rate(order: SweepOrder, bench: Bench, rate_rps: float) -> OpenPoint:
    load = order.deployment.load
    delay_us = 0 if load is None else load.max_queue_delay_us
    open_load = OpenLoad(rate_rps=rate_rps, max_queue_delay_us=delay_us)
    try:
        driven = bench.measure(replace(order.deployment, load=open_load))
    except SaturatedError as error:
        return _without_number(rate_rps, Standing.SATURATED, error)
    except FaultError as error:  # of tonight; what was found so far is kept
        return _without_number(rate_rps, Standing.NO_NUMBER, error)
    bench.keep(f"open-{rate_rps:g}", driven.blocks)
    point = OpenPoint(
        rate_rps=rate_rps,
        standing=Standing.UNDECIDED,
        speed=driven.speed,
        queueing=driven.queueing,
        flags=driven.flags,
        reason="",
    )
    return replace(point, standing=_standing(point, order.slo))


def _without_number(
    rate_rps: float, standing: Standing, error: FaultError | InfeasibleError
) -> OpenPoint:
    return OpenPoint(
        rate_rps=rate_rps,
        standing=standing,
        speed=None,
        queueing=None,
        flags=(),
        reason=str(error),
    )


def _standing(point: OpenPoint, slo: Sequence[Constraint]) -> Standing:
    """Judge all promised latencies by their whole intervals; the worst one decides."""
    standings = set()
    for bound in slo:
        latency = point.latency_ms(bound.metric.name)
        assert latency is not None, "a measured point has every latency"
        if latency.high is not None and bound.violation(latency.high) <= 0:
            standings.add(Standing.MEETS)
        elif latency.low is not None and bound.violation(latency.low) > 0:
            standings.add(Standing.MISSES)
        else:
            standings.add(Standing.UNDECIDED)
    return next(
        each for each in (Standing.MISSES, Standing.UNDECIDED, Standing.MEETS) if each in standings
    )


def _scalability(
    levels: Sequence[tuple[ClosedPoint, tuple[Block, ...]]],
) -> Scalability | None:
    if len(levels) < LEAST_LEVELS:
        return None
    return fit_scalability({point.concurrency: blocks for point, blocks in levels})


def _round(rate_rps: float) -> float:
    return float(f"{rate_rps:.{_DIGITS}g}")
