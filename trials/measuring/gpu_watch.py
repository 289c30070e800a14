"""What a GPU did while blocks were measured: told from readings around each, judged, summed up.

Nothing is read inside a block (``surroundings``), and how long reading takes is recorded. Pure,
but for opening the meters.

A block is *disturbed* where heat, a power brake or the hardware slowed the GPU, or where it worked
for a process of somebody else: it is measured again like one that lost the processor to others
(``load``). A process that only holds a context, like a notebook that rests, is told and disturbs
nothing. A power cap is the state in which a card runs under full load, so a block in which it
held the clocks back is as good as any, and is only counted.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from trials.abilities import RunsOnGpu
from trials.backend import Engine
from trials.machine.gpu_source import THROTTLED, GpuEnergy, GpuSource, GpuState, Reason
from trials.measurement import Block, BlockOnGpu, Estimate, GpuUse
from trials.measuring.energy import energy_per_sample, energy_units

POWER_CAPPED = "power_capped"

_CAPPED_SHARE = 0.05  # of the blocks, as of contended ones
_UNITS = 6  # of energy, of which an interval can be made that says something


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All meters at one end of a block.

    Attributes:
        took_s: How long reading took, seconds, the energy counter before a block not counted.
    """

    energy: GpuEnergy
    state: GpuState
    took_s: float


@contextmanager
def watched(engine: Engine) -> Iterator[GpuSource | None]:
    """Open the meters of the GPU that an engine runs on; None where there are none."""
    if not isinstance(engine, RunsOnGpu):
        yield None
        return
    with engine.gpu() as source:
        yield source


def on_gpu(before: Reading, after: Reading, *, load_s: float, samples: int) -> BlockOnGpu:
    """Say what a GPU did between two readings.

    Args:
        before: Right before the load; likewise ``after``.
        after: Right after it.
        load_s: How long the load lasted that answered ``samples``, seconds.
        samples: That were answered.
    """
    first, last = before.state, after.state
    grown = Reason(0)
    counted = dict(first.held_back)
    for reason, count in last.held_back:
        if count > counted.get(reason, count):
            grown |= reason
    return BlockOnGpu(
        begin_s=before.energy.at_s,
        end_s=after.energy.at_s,
        begin_j=before.energy.total_j,
        end_j=after.energy.total_j,
        load_s=load_s,
        samples=samples,
        sm_mhz=(first.sm_clock_mhz, last.sm_clock_mhz),
        memory_mhz=(first.memory_clock_mhz, last.memory_clock_mhz),
        temperature_c=_most(first.temperature_c, last.temperature_c),
        memory_bytes=_most(first.memory_bytes, last.memory_bytes),
        reasons=int(first.reasons | last.reasons | grown),
        others=max(first.others, last.others),
        busy_others=max(first.busy_others, last.busy_others),
        reading_s=before.took_s + after.took_s,
    )


def was_disturbed(gpu: BlockOnGpu) -> bool:
    """Tell whether a block is to be measured again for what happened on its GPU."""
    return is_throttled(gpu) or gpu.busy_others > 0


def is_throttled(gpu: BlockOnGpu) -> bool:
    """Tell whether heat, a brake or the hardware slowed the GPU."""
    return bool(Reason(gpu.reasons) & THROTTLED)


def is_capped(gpu: BlockOnGpu) -> bool:
    """Tell whether the GPU's own power limit held its clocks back."""
    return bool(Reason(gpu.reasons) & Reason.POWER_CAP)


def knows_energy(source: GpuSource, blocks: Sequence[Block]) -> bool:
    """Tell whether the energy of blocks is known well enough to compare deployments by it."""
    return len(energy_units(blocks, update_s=source.update_s)) >= _UNITS


def is_often_capped(blocks: Sequence[Block]) -> bool:
    """Tell whether the power limit held the clocks back in more than 5 % of the blocks read."""
    told = [block.gpu for block in blocks if block.gpu is not None]
    return sum(map(is_capped, told)) > _CAPPED_SHARE * len(told)


def use_of(source: GpuSource | None, blocks: Sequence[Block]) -> GpuUse | None:
    """Sum up what a GPU did in the blocks that count; None where none of them was read."""
    told = [block.gpu for block in blocks if block.gpu is not None]
    if source is None or not told:
        return None
    identity = source.identity
    reasons = Reason(0)
    for one in told:
        reasons |= Reason(one.reasons)
    energy = energy_per_sample(blocks, update_s=source.update_s)
    return GpuUse(
        uuid=identity.uuid,
        name=identity.name,
        is_mig=identity.is_mig,
        update_s=source.update_s,
        energy_per_sample_j=energy,
        power_w=mean_power_w(energy, told),
        sm_mhz=_range([clock for one in told for clock in one.sm_mhz]),
        memory_mhz=_range([clock for one in told for clock in one.memory_mhz]),
        temperature_c=_most(*(one.temperature_c for one in told)),
        memory_bytes=_most(*(one.memory_bytes for one in told)),
        reasons=tuple(str(one.name).lower() for one in reasons & ~Reason.IDLE),
        throttled_blocks=sum(map(is_throttled, told)),
        capped_blocks=sum(map(is_capped, told)),
        shared_blocks=sum(one.others > 0 for one in told),
        reading_s=float(np.median([one.reading_s for one in told])),
    )


def mean_power_w(energy: Estimate | None, told: Sequence[BlockOnGpu]) -> float | None:
    """Return the mean power under the load, watts; None where the energy is not known.

    Args:
        energy: Of a sample, joules.
        told: What the GPU did in the blocks that the energy is of, at least one.
    """
    rate = sum(one.samples for one in told) / sum(one.load_s for one in told)
    return None if energy is None else energy.value * rate


def _most(*values: int | None) -> int | None:
    return max((one for one in values if one is not None), default=None)


def _range(values: Sequence[int | None]) -> tuple[int, int] | None:
    told = [one for one in values if one is not None]
    return (min(told), max(told)) if told else None
