"""Compute every statistic of a trial again from what it rests on, and hold it to the last digit.

A record names the version of the formulas that made its numbers, and every version stays callable
(``trials.measuring.spread``). So a difference has one of three causes: the record was changed, the
raw blocks were, or a formula was changed that should not have been.

Numbers of version 1 may differ behind the twelfth digit, and count as the same: they were summed
in an order that depended on the processor.

What rests on no samples that are kept cannot be computed again: costs, memory, the engine's size,
words of caution on others' work and on the GPU's clocks, and scores beyond the main one.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from typing import TypeAlias

from optimizer.errors import StudyError
from optimizer.study.records import TrialRecord
from search_spaces.space import MeasuringPlan
from trials.measurement import Block, Estimate, Speed
from trials.measuring.device_loop import ENQUEUE_BOUND, is_enqueue_bound, timing_of
from trials.measuring.energy import energy_per_sample
from trials.measuring.gpu_watch import mean_power_w
from trials.measuring.load import LEVEL_SHIFT
from trials.measuring.open_drive import open_targets_met, summarize_open
from trials.measuring.spread import METHODS
from trials.measuring.statistics import mean_score, summarize
from trials.measuring.steadiness import has_level_shift
from trials.measuring.stopping import targets_met
from trials.outcome import Completed
from trials.scoring.sample_scores import unpacked

Statistic: TypeAlias = Estimate | float | bool | None

STATISTICS = tuple(one.name for one in fields(Speed) if one.name != "method")
"""What a record says of its blocks, as :class:`Speed` has it: in seconds and samples/s."""

ENERGY, POWER = "energy_per_sample_j", "power_w"

_ROUNDING = 1e-12  # of sums in another order


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """One statistic of a trial, as recorded and as computed again.

    Attributes:
        is_same: To the last digit; to the twelfth where version 1 computed a record.
    """

    name: str
    recorded: Statistic
    computed: Statistic
    is_same: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Recomputed:
    """A trial whose statistics were computed again.

    Attributes:
        trial: Its number.
        method: Version of the formulas.
    """

    trial: int
    method: int
    statistics: tuple[Again, ...]

    @property
    def last_digit(self) -> str:
        """Say in words down to which digit the statistics were compared."""
        return "the last digit" if self.method > 1 else "the twelfth digit"

    @property
    def differing(self) -> tuple[str, ...]:
        """Names of the statistics that came out otherwise."""
        return tuple(one.name for one in self.statistics if not one.is_same)


def recompute(
    record: TrialRecord, blocks: Sequence[Block] | None, plan: MeasuringPlan
) -> Recomputed:
    """Compute a trial's statistics again, by the formulas of its time.

    Args:
        record: The trial.
        blocks: Its raw blocks; None where they are not to be had.
        plan: How the trial was measured.

    Raises:
        StudyError: The trial was not measured, its blocks are not here, or this version does not
            know its formulas.
    """
    outcome = record.outcome
    if not isinstance(outcome, Completed):
        raise StudyError(
            f"trial {record.number} is {outcome.state}, it has no numbers: {outcome.reason}",
            hint="`trifront front` lists the trials that were measured",
        )
    if blocks is None:
        raise StudyError(
            f"the raw blocks of trial {record.number} are not in this workspace",
            hint="recompute it in the workspace of the machine that measured it",
        )
    method = outcome.speed.method
    if method not in METHODS:
        known = ", ".join(map(str, METHODS))
        raise StudyError(
            f"trial {record.number} was computed by version {method} of the formulas, "
            f"this trifront knows {known}",
            hint="recompute it with a newer trifront",
        )
    return Recomputed(
        trial=record.number,
        method=method,
        statistics=(*_speeds(outcome, blocks, plan), *_scores(outcome)),
    )


def _speeds(outcome: Completed, blocks: Sequence[Block], plan: MeasuringPlan) -> Iterator[Again]:
    recorded, method = outcome.speed, outcome.speed.method
    load = outcome.deployment.load
    if load is None:
        is_met = targets_met(blocks, plan, method=method)
        computed = summarize(blocks, target_met=is_met, method=method)
    else:
        is_met = open_targets_met(blocks, plan, method=method)
        computed = summarize_open(blocks, rate_rps=load.rate_rps, target_met=is_met, method=method)
    for name in STATISTICS:
        was, now = getattr(recorded, name), getattr(computed, name)
        yield Again(name=name, recorded=was, computed=now, is_same=_is_same(was, now, method))
    if outcome.gpu is not None and outcome.gpu.energy_per_sample_j is not None:
        was = outcome.gpu.energy_per_sample_j
        energy = energy_per_sample(blocks, update_s=outcome.gpu.update_s, method=method)
        yield _compared(ENERGY, was, energy)
        told = [one.gpu for one in blocks if one.gpu is not None]
        yield _compared(POWER, outcome.gpu.power_w, mean_power_w(energy, told) if told else None)
    yield from _device_times(outcome, blocks)
    if method > 1 and load is None:  # nobody looked before; an open load jumps by its pattern
        flagged, jumped = LEVEL_SHIFT in outcome.flags, has_level_shift(blocks)
        yield Again(name=LEVEL_SHIFT, recorded=flagged, computed=jumped, is_same=flagged == jumped)


def _device_times(outcome: Completed, blocks: Sequence[Block]) -> Iterator[Again]:
    """Yield where the time of requests went on a device, and the caution that rests on it."""
    timing = None if outcome.on_device is None else outcome.on_device.timing
    if timing is None:
        return
    if any(one.device is None for one in blocks):
        raise StudyError(
            f"the raw blocks of '{outcome.deployment}' lack the times on the device that its "
            "record tells of",
            hint="put back the file of blocks that was written with the record",
        )
    found = timing_of(blocks, depth=timing.depth, threads=timing.threads)
    for name in (one.name for one in fields(timing) if one.name not in ("depth", "threads")):
        yield _compared(name, getattr(timing, name), getattr(found, name))
    flagged = ENQUEUE_BOUND in outcome.flags
    yield _compared(ENQUEUE_BOUND, flagged, is_enqueue_bound(found))


def _compared(name: str, recorded: Statistic, computed: Statistic) -> Again:
    return Again(name=name, recorded=recorded, computed=computed, is_same=recorded == computed)


def _scores(outcome: Completed) -> Iterator[Again]:
    """Yield the main score where hits and misses of all samples are kept."""
    quality = outcome.quality
    if quality is None or quality.per_sample is None or quality.per_sample.kind != "bits":
        return  # float32 has fewer digits than the scores had
    name, recorded = quality.scores[0]
    computed = mean_score(unpacked(quality.per_sample))
    yield Again(name=name, recorded=recorded, computed=computed, is_same=recorded == computed)


def _is_same(recorded: Statistic, computed: Statistic, method: int) -> bool:
    if method > 1 or not (isinstance(recorded, Estimate) and isinstance(computed, Estimate)):
        return recorded == computed
    pairs = zip(astuple(recorded), astuple(computed), strict=True)
    return all(
        was == now if was is None or now is None else math.isclose(was, now, rel_tol=_ROUNDING)
        for was, now in pairs
    )
