"""What can be read of a GPU while it works, and the seam that it is read through.

Two sources ship: ``nvml.NvmlGpu`` reads a card, ``backends.fake_gpu.ComputedGpu`` computes one.
Whoever measures reads a source before and after each block and never in between.
"""

from dataclasses import dataclass
from enum import IntFlag
from typing import Protocol


class Reason(IntFlag):
    """What held a GPU's clocks back; the bits are those of NVML's clocks event reasons.

    References:
        nvml.h, ``nvmlClocksEventReason*``.
    """

    IDLE = 0x1
    CHOSEN_CLOCKS = 0x2
    POWER_CAP = 0x4
    HW_SLOWDOWN = 0x8
    SYNC_BOOST = 0x10
    THERMAL = 0x20
    HW_THERMAL = 0x40
    POWER_BRAKE = 0x80
    DISPLAY_CLOCKS = 0x100


THROTTLED = Reason.HW_SLOWDOWN | Reason.THERMAL | Reason.HW_THERMAL | Reason.POWER_BRAKE
"""Reasons that pass: heat, a brake, a slowdown by the hardware. A power cap is the card's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuIdentity:
    """Which GPU is read.

    Attributes:
        uuid: ``GPU-…``, or ``MIG-…`` of a part of one.
        is_mig: Whether it is a part of a card, or a card that is cut into parts.
    """

    uuid: str
    name: str
    is_mig: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuEnergy:
    """The energy counter at one moment.

    Attributes:
        at_s: On the clock of the source, seconds; of use as a difference alone.
        total_j: Used by the whole GPU since some moment of its past, joules; None where it is
            not told.
    """

    at_s: float
    total_j: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuState:
    """Everything else at one moment; None is what the GPU does not tell.

    Attributes:
        temperature_c: Of the chip, degrees Celsius.
        memory_bytes: Used by everybody.
        reasons: What holds the clocks back now.
        held_back: (reason, count) of counters that grow while it holds them back.
        others: Processes of others that compute on it.
    """

    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    temperature_c: int | None
    memory_bytes: int | None
    reasons: Reason
    held_back: tuple[tuple[Reason, int], ...]
    others: int


class GpuSource(Protocol):
    """Meters of one GPU, owned by one thread. Reading changes nothing and raises nothing."""

    @property
    def identity(self) -> GpuIdentity:
        """Which GPU it is."""
        ...

    @property
    def update_s(self) -> float:
        """How often the energy counter moves, seconds; 0 where it is exact at any moment."""
        ...

    def energy(self) -> GpuEnergy:
        """Read the energy counter; the cheapest reading, to stand next to a block."""
        ...

    def state(self) -> GpuState:
        """Read everything else."""
        ...
