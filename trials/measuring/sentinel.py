"""The sentinel: one deployment, measured again and again, to see whether the machine drifts.

Trials of a search are measured one after the other, so what changes about the machine meanwhile
(a clock, a neighbour, the heat) looks like a difference between deployments. The sentinel itself
does not change: where it does, the machine did. A sighting is short, a dozen blocks, and every
trial keeps the one that came before it.

A level is the median over the blocks of a sighting, with the limits of its order statistics, so
that one disturbed block moves nothing. Two levels differ *for certain* where every ratio of a
level within the limits of the one to a level within the limits of the other lies beyond 5 %: less
differs between two loads of the same engine anyway. Pure.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from search_spaces.deployment import Deployment
from search_spaces.space import MeasuringPlan
from trials.measurement import Block, Estimate, Seconds

BLOCKS = 12
_LEFT_OUT = 2  # of twelve at either end: covers the median with 96.1 %
_LEAST = math.log(1.05)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """The sentinel as it was measured once.

    Attributes:
        deployment: Under a closed loop of one worker.
        at_s: When, seconds since the epoch.
        levels_s: Mean latency of each block in order, seconds; at least one.
    """

    deployment: Deployment
    at_s: float
    levels_s: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """How far the machine moved between two sightings.

    Attributes:
        since: The earlier one's place in the order of time, likewise ``until`` the later one's.
        ratio: Latency then / latency before; above one the machine became slower.
    """

    since: int
    until: int
    ratio: Estimate

    @property
    def is_certain(self) -> bool:
        """Whether it moved by more than 5 %, whichever levels within the limits are the true."""
        low, high = self.ratio.low, self.ratio.high
        return (low is not None and math.log(low) > _LEAST) or (
            high is not None and math.log(high) < -_LEAST
        )


def sentinel_of(deployment: Deployment) -> Deployment:
    """Make a sentinel of a deployment: the same engine, driven by one worker without a pause."""
    return replace(deployment, concurrency=1, load=None)


def plan_of_sighting(plan: MeasuringPlan) -> MeasuringPlan:
    """Plan a sighting in a space that measures by ``plan``: half a second or so."""
    return MeasuringPlan(
        target_p50=1.0,  # the first look, after so many blocks, is the last
        target_p99=1.0,
        target_throughput=1.0,
        min_blocks=BLOCKS,
        block_s=min(plan.block_s, 0.04),
        block_requests=1,
        warmup_s=min(plan.warmup_s, 0.1),
        max_s=min(plan.max_s, 1.0),
        deadline_s=plan.deadline_s,
        max_memory_mb=plan.max_memory_mb,
        seed=plan.seed,
    )


def sighting_of(deployment: Deployment, blocks: Sequence[Block], *, at_s: float) -> Sighting:
    """Keep of a measurement what tells how fast the machine is."""
    levels_s = tuple(float(block.latencies_s.mean()) for block in blocks)
    return Sighting(deployment=deployment, at_s=at_s, levels_s=levels_s)


def level_of(sighting: Sighting) -> Estimate:
    """Return the median level, seconds; without limits where there are fewer than six blocks."""
    ordered: Seconds = np.sort(np.asarray(sighting.levels_s))
    value = float(np.median(ordered))
    left_out = min(_LEFT_OUT, (ordered.size - 6) // 3)  # six blocks cover with 96.9 %, nine 96.1
    if left_out < 0:
        return Estimate(value=value, low=None, high=None)
    return Estimate(value=value, low=float(ordered[left_out]), high=float(ordered[-1 - left_out]))


def drift_between(sightings: Sequence[Sighting], since: int, until: int) -> Drift:
    """Compare two of several sightings of one sentinel."""
    before, after = level_of(sightings[since]), level_of(sightings[until])
    return Drift(
        since=since,
        until=until,
        ratio=Estimate(
            value=after.value / before.value,
            low=None if after.low is None or before.high is None else after.low / before.high,
            high=None if after.high is None or before.low is None else after.high / before.low,
        ),
    )


def steps_of(sightings: Sequence[Sighting]) -> tuple[Drift, ...]:
    """Compare each of several sightings, in order of time, with the one before it."""
    return tuple(drift_between(sightings, at - 1, at) for at in range(1, len(sightings)))


def displaced(sightings: Sequence[Sighting]) -> tuple[bool, ...]:
    """Tell behind which sightings the machine was for certain not as it was at the first.

    A trial lies between two: it is doubtful where either is displaced, or where the machine
    jumped from one to the other.

    Args:
        sightings: Of one sentinel on one machine, in order of time; at least one.

    Returns:
        For each sighting whether a trial behind it, and before the next, is doubtful.
    """
    later = range(1, len(sightings))
    away = [False, *(drift_between(sightings, 0, at).is_certain for at in later)]
    jumps = [*(step.is_certain for step in steps_of(sightings)), False]
    following = [*away[1:], False]
    return tuple(map(any, zip(away, following, jumps, strict=True)))
