"""Energy per sample from a counter that moves in steps, with limits that allow for all it hides.

A card's counter shows what had been used when it last moved, up to 0.1 s ago, which is a whole
block. So blocks that follow each other closely make a *run*, of which only both ends are read
wrongly; a run is cut into *units* of ten steps or more, whose log rates give the interval, as
those of blocks do for throughput.

Two things cannot be read from such a counter. Between the blocks of a run the card rests for the
milliseconds in which it is read, and uses anything from nothing to what it uses under load. And
before a run it may have rested, so that a step at the begin holds less than the load used. The
energy that a run shows therefore belongs to between T + g and T - u seconds of load: T is the
time under load, g the pauses, u one step. The value takes the middle, the limits both ends.

How often the limits hold is simulated in ``scripts/simulate_energy.py``. Pure.

References:
    Yang, Z. et al. (2024), Part-time power measurements: nvidia-smi's lack of attention. SC24.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from trials.measurement import Block, BlockOnGpu, Estimate
from trials.measuring.spread import METHOD
from trials.measuring.statistics import CONFIDENCE, ratio

STEPS_PER_UNIT = 10  # so that one at either end is a tenth; what noise is left is in the spread

_APART = 1.0  # of a block's length: a longer pause held something else, such as a repeated block


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Successive blocks whose energy the counter can tell together.

    Attributes:
        joules: That it showed from their begin to their end.
        busy_s: Sum of the times between the readings around each.
        load_s: Of these, how long the load lasted that answered ``samples``.
        pause_s: Between the blocks, and between them and the next unit of the run.
    """

    joules: float
    busy_s: float
    load_s: float
    pause_s: float
    samples: int


def energy_per_sample(
    blocks: Sequence[Block],
    *,
    update_s: float,
    confidence: float = CONFIDENCE,
    method: int = METHOD,
) -> Estimate | None:
    """Estimate the energy that a GPU uses for one sample under the load, in joules.

    It is the mean power while the load lasted, idle power included, for as long as one sample
    takes: requests that workers send while they wait for each other do not count.

    Args:
        blocks: In order of time; those without a reading are passed over.
        update_s: How often the counter moves, seconds; 0 where it is exact at any moment.
        confidence: Of the interval, in (0, 1).
        method: Version of the formulas of the spread, out of ``spread.METHODS``.

    Returns:
        Without limits where there are fewer than three units. None where the GPU did not tell, or
        its counter stood still.
    """
    runs = _runs(blocks, update_s)
    units = _units(runs, update_s)
    if not units or any(one.joules <= 0 for one in units):
        return None
    busy_s = sum(one.busy_s for one in units)
    pause_s = sum(one.pause_s for one in units)
    longest_s = busy_s + pause_s
    shortest_s = max(busy_s - len(runs) * update_s, busy_s / 2)
    middle_s = (longest_s + shortest_s) / 2
    found = ratio(
        blocks,
        np.array([one.joules * one.load_s / one.busy_s for one in units]),
        np.array([float(one.samples) for one in units]),
        confidence=confidence,
        method=method,
    )
    value = found.value * busy_s / middle_s
    return Estimate(
        value=value,
        low=None if found.low is None else min(value, found.low * busy_s / longest_s),
        high=None if found.high is None else max(value, found.high * busy_s / shortest_s),
    )


def energy_units(blocks: Sequence[Block], *, update_s: float) -> list[Unit]:
    """Take blocks together until the counter can tell what they used.

    Args:
        blocks: In order of time.
        update_s: How often it moves, seconds; 0 where it is exact at any moment.

    Returns:
        Blocks at the end of a run that make no whole unit belong to the one before them, where
        there is one. Empty where a block was not told.
    """
    return _units(_runs(blocks, update_s), update_s)


def _runs(blocks: Sequence[Block], update_s: float) -> list[list[BlockOnGpu]]:
    """Split where something else lay between two blocks; everywhere if the counter is exact.

    A run too short for a unit is left out where another is not: a block between two that were
    measured again may end before the counter moves, and shows no energy then.
    """
    runs: list[list[BlockOnGpu]] = []
    for one in (block.gpu for block in blocks if block.gpu is not None):
        last = runs[-1][-1] if runs else None
        if last is None or not update_s or one.begin_s - last.end_s > _APART * last.wall_s:
            runs.append([])
        runs[-1].append(one)
    least_s = STEPS_PER_UNIT * update_s
    return [run for run in runs if _is_long(sum(one.wall_s for one in run), least_s)] or runs


def _units(runs: Sequence[Sequence[BlockOnGpu]], update_s: float) -> list[Unit]:
    """Cut runs into units; empty where a reading is missing or the counter went back."""
    units = [unit for run in runs for unit in _units_of(run, STEPS_PER_UNIT * update_s)]
    whole = [one for one in units if one is not None]
    return whole if len(whole) == len(units) else []


def _units_of(run: Sequence[BlockOnGpu], least_s: float) -> Iterator[Unit | None]:
    """Cut a run into units of that length; what is left over belongs to the last one.

    A unit ends where the next one begins: a step that falls into the pause between must not be
    lost, for where steps and blocks keep pace it would be lost again and again.
    """
    cuts, busy_s = [0], 0.0
    for at, one in enumerate(run, start=1):
        busy_s += one.wall_s
        if _is_long(busy_s, least_s):
            cuts.append(at)
            busy_s = 0.0
    cuts[max(1, len(cuts) - 1) :] = [len(run)]
    for first, last in pairwise(cuts):
        is_end = last == len(run)
        end_s, end_j = (
            (run[-1].end_s, run[-1].end_j) if is_end else (run[last].begin_s, run[last].begin_j)
        )
        yield _unit(run[first:last], end_s=end_s, end_j=end_j)


def _is_long(busy_s: float, least_s: float) -> bool:
    return busy_s >= least_s * (1 - 1e-9)  # sums of tenths fall short


def _unit(blocks: Sequence[BlockOnGpu], *, end_s: float, end_j: float | None) -> Unit | None:
    begin_j = blocks[0].begin_j
    if begin_j is None or end_j is None or end_j < begin_j:
        return None  # not told, or the driver was loaded anew
    busy_s = sum(one.wall_s for one in blocks)
    return Unit(
        joules=end_j - begin_j,
        busy_s=busy_s,
        load_s=sum(one.load_s for one in blocks),
        pause_s=max(0.0, end_s - blocks[0].begin_s - busy_s),
        samples=sum(one.samples for one in blocks),
    )
