"""The sentinel: one deployment, measured again and again, to see whether the machine drifts.

Trials of a search are measured one after the other, so what changes about the machine meanwhile
(a clock, a neighbour, the heat) looks like a difference between deployments. The sentinel itself
does not change: where it does, the machine did. A sighting is short, a dozen blocks, and every
trial keeps the one that came before it.

A level is the median over the blocks of a sighting, with the limits of its order statistics, so
that one disturbed block moves nothing. Levels wander a little from sighting to sighting on any
machine, which is no news. So a sighting is *displaced* where its whole interval lies further from
the median of all levels than 5 %, and than four times the spread with which neighbouring levels
of this machine differ anyway. Pure.
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
_LEAST = math.log(1.05)  # so much differs between two loads of the same engine anyway
_FEWEST_STEPS = 4  # between sightings, to know how levels wander
_MAD = 1.4826  # by which the median of absolute values is below the spread of normal ones
_MOST_WANDER = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """The sentinel as it was measured once.

    Attributes:
        deployment: Under a closed loop of one worker.
        at_s: When, seconds since the epoch.
        session: Equal for the sightings of one session of a search.
        levels_s: Mean latency of each block in order, seconds; at least one.
    """

    deployment: Deployment
    at_s: float
    session: str
    levels_s: tuple[float, ...]


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
        max_s=plan.max_s,  # slow engines need it for their dozen blocks
        deadline_s=plan.deadline_s,
        max_memory_mb=plan.max_memory_mb,
        seed=plan.seed,
    )


def sighting_of(
    deployment: Deployment, blocks: Sequence[Block], *, at_s: float, session: str
) -> Sighting:
    """Keep of a measurement what tells how fast the machine is."""
    levels_s = tuple(float(block.latencies_s.mean()) for block in blocks)
    return Sighting(deployment=deployment, at_s=at_s, session=session, levels_s=levels_s)


def level_of(sighting: Sighting) -> Estimate:
    """Return the median level, seconds; without limits where there are fewer than six blocks."""
    ordered: Seconds = np.sort(np.asarray(sighting.levels_s))
    value = float(np.median(ordered))
    left_out = min(_LEFT_OUT, (ordered.size - 6) // 3)  # six blocks cover with 96.9 %, nine 96.1
    if left_out < 0:
        return Estimate(value=value, low=None, high=None)
    return Estimate(value=value, low=float(ordered[left_out]), high=float(ordered[-1 - left_out]))


def ratios_of(sightings: Sequence[Sighting]) -> tuple[Estimate, ...]:
    """Return each level over the median of all of them; above one the machine was slower.

    Args:
        sightings: Of one sentinel on one machine, at least one.
    """
    levels = [level_of(each) for each in sightings]
    usual_s = float(np.median([level.value for level in levels]))
    return tuple(level.scaled(1 / usual_s) for level in levels)


def displaced(sightings: Sequence[Sighting]) -> tuple[bool, ...]:
    """Tell at which sightings the machine was for certain not as it was most of the time.

    Args:
        sightings: Of one sentinel on one machine, in order of time; at least one.
    """
    ratios = ratios_of(sightings)
    steps = np.abs(np.diff([math.log(ratio.value) for ratio in ratios]))
    # of two levels that wander alike, the difference spreads by the root of two more than either
    wander = _MAD * float(np.median(steps)) / math.sqrt(2) if steps.size >= _FEWEST_STEPS else 0.0
    least = max(_LEAST, _MOST_WANDER * wander)
    return tuple(
        (ratio.low is not None and math.log(ratio.low) > least)
        or (ratio.high is not None and math.log(ratio.high) < -least)
        for ratio in ratios
    )


def doubtful(sightings: Sequence[Sighting]) -> tuple[bool, ...]:
    """Tell behind which sightings trials are doubtful.

    A trial behind a sighting is, where that one is displaced, or the next one of the same session.
    Behind the last of a session nothing is known.

    Args:
        sightings: As for :func:`displaced`.
    """
    moved = displaced(sightings)
    following = [
        after and then.session == now.session
        for now, then, after in zip(sightings, sightings[1:], moved[1:], strict=False)
    ]
    return tuple(here or there for here, there in zip(moved, [*following, False], strict=True))
