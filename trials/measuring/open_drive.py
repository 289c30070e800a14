"""Drive one engine under open-loop load and measure it: cold call, warm-up, stretches, verdict.

The order and its reasons::

    cold call    timed apart, as under a closed loop
    warming      every bound batch size once on every lane
    stretches    uninterrupted load, each cut into blocks by when requests were due. A lead-in is
                 dropped, for the queue to become what it is in the long run; behind the last block
                 requests go on coming until all that count are answered, so that the last ones
                 meet the same load as the others. Between stretches the intervals are looked at,
                 because arithmetic beside a running load would be measured with it.

**Saturation** is decided by a rule. Over the counted part of a stretch, the queue must not end
longer than it began by more than what the lanes hold twice over *and* 5 % of the requests that
came, and it must not have been growing still in the second half; nor may a counted request be left
unanswered. A stretch that breaks the rule is dropped and repeated once, so that a hiccup is no
verdict; broken again, the deployment is infeasible, because its latencies would say no more than
how long was measured.

**Lateness.** If the generator was late by a median of more than 2 us *and* 5 % of the median
latency, there are no numbers (``LateError``). Above 1 %, or where the p99 of the lateness exceeds
a tenth of the latency's, the flag ``late_arrivals`` warns.

The targets for p50 and p99 decide when to stop. That for throughput does not, and throughput is no
estimate: it is the rate, which is given, and is kept up with or the deployment is infeasible. How
the arrivals of a measurement happened to vary says nothing of the engine.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Protocol

import numpy as np

from search_spaces.arrivals import Arrivals, PoissonArrivals, cycle_s
from search_spaces.deployment import OpenLoad
from search_spaces.space import MeasuringPlan
from trials.errors import DisturbedError, LateError, SaturatedError
from trials.measurement import Block, Queueing, Quiet, Seconds, Speed, exact
from trials.measuring import contention
from trials.measuring.load import CONTENDED, CONTENDED_SHARE, TARGET_NOT_MET, Driven
from trials.measuring.schedules import Stretch, due_times
from trials.measuring.served import (
    NS_PER_S,
    Served,
    Timetable,
    blocks_of,
    check_served,
    queueing_of,
)
from trials.measuring.spread import METHOD
from trials.measuring.statistics import summarize
from trials.measuring.stopping import P99_BLOCKS, quarter_more, targets_met

LATE = "late_arrivals"

_LEAD_SHARE = 0.1  # of max_s, at most, for the lead-in of a stretch
_WARM_SHARE = 0.2  # of max_s, at most, the cold call included
_GRACE_CALLS = 20  # largest batches that a stretch may take to be finished after its last block
_LEAST_GRACE_CALLS = 3  # of an engine so slow that these are more than its share of max_s
_GRACE_SHARE = 0.25  # of max_s, at most, for a stretch to be finished
_GROWTH = 0.05  # of the requests that came
_PUNCTUAL_S = 2e-6
_NOTED_SHARE, _REFUSED_SHARE = 0.01, 0.05  # of the median latency
_NOTED_TAIL = 0.1  # of the p99 latency
_ANY = 1.0  # a target that is always met


class Loop(Protocol):
    """What measuring needs of an open loop, whether its time is spent or computed."""

    @property
    def threads(self) -> tuple[int, ...]:
        """Native ids of the lanes' threads."""
        ...

    def now_s(self) -> float:
        """Read the loop's clock."""
        ...

    def cold_call(self) -> float:
        """Send the largest batch alone."""
        ...

    def warm(self, until_s: float) -> None:
        """Send every size once."""
        ...

    def serve(self, timetable: Timetable) -> Served:
        """Serve a timetable."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """One stretch of load, as it is planned and as it went.

    Attributes:
        edges_ns: Of its blocks, on the loop's clock.
    """

    served: Served
    counted: int
    edges_ns: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How a deployment serves an open load.

    Attributes:
        lanes: Batches in flight at once.
        largest: Requests in the largest batch.
    """

    load: OpenLoad
    lanes: int
    largest: int


def drive_open(
    loop: Loop,
    serving: Serving,
    plan: MeasuringPlan,
    progress: Callable[[int], None] | None = None,
) -> Driven:
    """Let requests come and measure until the plan is content.

    Args:
        loop: Entered, used by nobody else meanwhile.
        serving: What it serves.
        plan: How long and how well, and the pattern of the arrivals.
        progress: Told the number of blocks after each stretch.

    Raises:
        SaturatedError: The deployment cannot keep up with the rate.
        DisturbedError: Others may have taken what it would need to keep up.
        LateError: The generator could not keep its times.
        StampsError: Recorded times contradict one another.
        TrialError: Whatever the engine raises, as it was; so does any other exception.
    """
    return _OpenMeasuring(loop, serving, plan).run(progress or (lambda _: None))


def summarize_open(
    blocks: Sequence[Block], *, rate_rps: float, target_met: bool, method: int = METHOD
) -> Speed:
    """Reduce blocks of an open load to the numbers that are optimized.

    Args:
        blocks: In order of time.
        rate_rps: At which requests came, of one sample each.
        target_met: Whether the intervals became as narrow as was asked for.
        method: Version of the formulas.

    Raises:
        ValueError: As for :func:`trials.measuring.statistics.summarize`.
    """
    speed = summarize(blocks, target_met=target_met, method=method)
    return replace(speed, throughput_sps=exact(rate_rps))


def open_targets_met(
    blocks: Sequence[Block], plan: MeasuringPlan, *, method: int = METHOD
) -> bool:
    """Tell whether the latencies of an open load are known as narrowly as the plan asks."""
    return targets_met(blocks, replace(plan, target_throughput=_ANY), method=method)


class _OpenMeasuring:
    """One measurement under way."""

    def __init__(self, loop: Loop, serving: Serving, plan: MeasuringPlan) -> None:
        self._loop = loop
        self._serving = serving
        self._plan = plan
        self._arrivals: Arrivals = plan.arrivals or PoissonArrivals()
        self._blocks: list[Block] = []
        self._kept: list[Served] = []
        self._cap_s = 0.0
        self._cold_s = 0.0
        self._pattern_s = 0.0
        self._stretches = 0
        self._contended = 0  # blocks of stretches in which others were in the way
        self._is_suspect = False
        # at the first look a p99 may already be believed; every look costs a lead-in, so there
        # are fewer than of a closed loop
        self._look = max(plan.min_blocks, P99_BLOCKS)
        self._length_s, self._step = self._block_length()

    def run(self, progress: Callable[[int], None]) -> Driven:
        loop, plan = self._loop, self._plan
        self._cold_s = loop.cold_call()
        ready_s = loop.now_s()
        self._cap_s = ready_s + plan.max_s
        loop.warm(ready_s - self._cold_s + _WARM_SHARE * plan.max_s)
        is_met = self._measure(progress)
        queueing = queueing_of(self._kept, self._blocks)
        rate_rps = self._serving.load.rate_rps
        speed = summarize_open(self._blocks, rate_rps=rate_rps, target_met=is_met)
        flags = {
            TARGET_NOT_MET: not is_met,
            CONTENDED: self._contended > CONTENDED_SHARE * len(self._blocks),
            LATE: _is_late(queueing, speed.latency_p50_s.value, speed.latency_p99_s.value),
        }
        return Driven(
            blocks=tuple(self._blocks),
            cold_call_s=self._cold_s,
            warmup_s=max(0.0, self._blocks[0].start_s - ready_s),
            speed=speed,
            flags=tuple(flag for flag, is_raised in flags.items() if is_raised),
            # a stretch is as long as the time allows, and is not repeated; the generator's own
            # waiting is CPU time too, so that of a request is not told
            quiet=Quiet(
                contended_blocks=self._contended, repeated_blocks=0, cpu_s_per_request=None
            ),
            queueing=queueing,
        )

    def _measure(self, progress: Callable[[int], None]) -> bool:
        """Add stretches until the targets are met or the time is over; tell which."""
        plan = self._plan
        while True:
            count = self._affordable()
            if count < 1:
                return open_targets_met(self._blocks, plan)
            before = contention.read()
            piece = self._stretch(count)
            after = contention.read()
            is_contended = bool(self._loop.threads) and contention.was_contended(before, after)
            if self._is_saturated(piece, contention.taken_share(before, after) * is_contended):
                continue
            blocks = list(blocks_of(piece.served, piece.edges_ns))
            self._blocks += blocks
            self._contended += len(blocks) * is_contended
            self._kept.append(piece.served)
            progress(len(self._blocks))
            if len(self._blocks) >= self._look:
                if open_targets_met(self._blocks, plan):
                    return True
                self._look = quarter_more(len(self._blocks))

    def _block_length(self) -> tuple[float, int]:
        """Return the length of a block, seconds, and in which multiples blocks come.

        Where the pattern repeats, a whole number of blocks makes one cycle and a stretch takes
        whole cycles, so that its end is not compared with another time of day than its begin.
        """
        plan = self._plan
        wanted_s = max(plan.block_s, plan.block_requests / self._serving.load.rate_rps)
        usable_s = plan.max_s * (1 - _LEAD_SHARE - _WARM_SHARE)
        length_s = min(wanted_s, usable_s / plan.min_blocks)
        cycle = cycle_s(self._arrivals)
        if cycle is None:
            return length_s, 1
        step = max(1, round(cycle / length_s))
        return cycle / step, step

    def _affordable(self) -> int:
        """Return the number of blocks until the next look, as many as there is time for.

        As long as nothing is kept, half of the time is left for a stretch that has to be repeated:
        the rule for saturation wants more than a block to decide on.
        """
        is_first = not self._blocks and not self._is_suspect
        left_s = self._cap_s - self._loop.now_s()
        left_s = (left_s / 2 if is_first else left_s) - self._lead_s()
        wanted = self._look - len(self._blocks)
        count = min(ceil(wanted / self._step), int(left_s / self._length_s / self._step + 1e-9))
        if count < 1 and not self._blocks:
            count = 1  # a slow cold call must not leave us without a number
        return count * self._step

    def _lead_s(self) -> float:
        wanted_s = max(self._plan.warmup_s, self._length_s, _GRACE_CALLS * self._cold_s)
        return min(wanted_s, _LEAD_SHARE * self._plan.max_s)

    def _grace_s(self) -> float:
        """Return how long a stretch may go on after its last block, for its requests to end."""
        wanted_s = min(_GRACE_CALLS * self._cold_s, _GRACE_SHARE * self._plan.max_s)
        return max(self._length_s, wanted_s, _LEAST_GRACE_CALLS * self._cold_s)

    def _stretch(self, count: int) -> _Piece:
        """Serve a lead-in, ``count`` blocks and what comes behind them."""
        lead_s, last_s = self._lead_s(), self._lead_s() + count * self._length_s
        grace_s = self._grace_s()
        due_s = self._due(last_s + grace_s)
        counted = int(np.searchsorted(due_s, last_s, side="left"))
        served = self._loop.serve(
            Timetable(due_s=due_s, counted=counted, patience_s=last_s + grace_s)
        )
        check_served(served, lanes=self._serving.lanes)
        self._pattern_s += last_s
        edges_s = lead_s + self._length_s * np.arange(count + 1)
        edges = (served.begin_ns + np.round(edges_s * NS_PER_S).astype(np.int64)).tolist()
        return _Piece(served=served, counted=counted, edges_ns=tuple(edges))

    def _due(self, length_s: float) -> Seconds:
        self._stretches += 1
        stretch = Stretch(begin_s=self._pattern_s, length_s=length_s, number=self._stretches)
        return due_times(self._arrivals, stretch, rate_rps=self._serving.load.rate_rps)

    def _is_saturated(self, piece: _Piece, taken: float) -> bool:
        """Apply the rule of this module; True means that the stretch is to be repeated.

        Args:
            piece: What was served.
            taken: Share of the processor that others took meanwhile, at most.

        Raises:
            SaturatedError: It was broken a second time running.
            DisturbedError: Likewise, but what others took may be all that was missing.
        """
        served = piece.served
        begin_ns, end_ns = piece.edges_ns[0], piece.edges_ns[-1]
        came = int(
            np.searchsorted(served.due_ns, end_ns) - np.searchsorted(served.due_ns, begin_ns)
        )
        first, middle, last = (
            served.waiting_at(at) for at in (begin_ns, (begin_ns + end_ns) // 2, end_ns)
        )
        room = max(2 * self._serving.lanes * self._serving.largest, _GROWTH * came)
        is_growing = last - first > room and last > middle
        if not is_growing and served.answered >= piece.counted:
            self._is_suspect = came == 0
            return came == 0
        if self._is_suspect:
            answered = served.answered_between(begin_ns, end_ns) / (end_ns - begin_ns)
            self._refuse(answered * NS_PER_S, taken)
        self._is_suspect = True
        return True

    def _refuse(self, answered_rps: float, taken: float) -> None:
        serving = self._serving
        if answered_rps >= (1 - taken) * serving.load.rate_rps and taken:
            raise DisturbedError(
                f"{serving.load.rate_rps:,.12g} requests/s come and {answered_rps:,.0f} are "
                f"answered while other work takes up to {taken:.0%} of the processor: whether the "
                "deployment keeps up cannot be told; let the machine rest from it"
            )
        raise SaturatedError(
            f"{serving.load.rate_rps:,.12g} requests/s come and {answered_rps:,.0f} are answered, "
            f"in batches of up to {serving.largest}, {serving.lanes} at a time: the queue grows "
            "without limit; lower rate_rps, or raise batch_size or concurrency"
        )


def _is_late(queueing: Queueing, p50_s: float, p99_s: float) -> bool:
    """Judge the generator's lateness by the rule of this module.

    Raises:
        LateError: It spoils the latencies.
    """
    late_s = queueing.late_p50_s
    if late_s > max(_PUNCTUAL_S, _REFUSED_SHARE * p50_s):
        raise LateError(
            f"requests were sent {late_s * 1e6:.1f} us late (median) where the median latency is "
            f"{p50_s * 1e6:.1f} us; let the machine rest from other work, or lower concurrency "
            "below its processors"
        )
    is_noted = late_s > max(_PUNCTUAL_S, _NOTED_SHARE * p50_s)
    return is_noted or queueing.late_p99_s > _NOTED_TAIL * p99_s
