"""The made-up GPU that the fake backend runs on: its energy, by arithmetic.

Power is that of an idle card plus a share of the rest that grows with how full it is kept: larger
batches and more requests at once use a card better, so that energy per sample falls while power
rises, as on real ones. Reduced precision draws a little less. Nothing is random but a ripple.
"""

from dataclasses import dataclass

import numpy as np

from search_spaces.deployment import Precision
from trials.machine.gpu_source import GpuEnergy, GpuIdentity, GpuState, Reason

IDLE_W, FULL_W = 60.0, 350.0  # of a common inference card
_HALF_FULL = 6.0  # samples in flight that keep it half busy
_RIPPLE = 0.01  # of the power, from block to block
_DRAW = {Precision.FP32: 1.0, Precision.FP16: 0.9, Precision.INT8: 0.8}
_COOL_C, _HOT_C = 35.0, 80.0
_FULL_CLOCK_MHZ, _MEMORY_CLOCK_MHZ = 1_980, 2_619


def power_w(*, in_flight: int, precision: Precision) -> float:
    """Return the mean power with that many samples in flight, watts."""
    busy = in_flight / (in_flight + _HALF_FULL)
    return IDLE_W + (FULL_W - IDLE_W) * busy * _DRAW[precision]


@dataclass(slots=True, kw_only=True)
class ComputedGpu:
    """Meters that move as work is computed; see ``gpu_source.GpuSource``.

    Attributes:
        mean_w: Power under the load.
        memory_bytes: That the deployment takes.
        seed: Of the ripple.
    """

    mean_w: float
    memory_bytes: int
    seed: tuple[int, ...]
    _at_s: float = 0.0
    _total_j: float = 0.0
    _blocks: int = 0

    @property
    def identity(self) -> GpuIdentity:
        """Say that there is none."""
        return GpuIdentity(uuid="GPU-computed", name="computed GPU", is_mig=False)

    @property
    def update_s(self) -> float:
        """Exact at any moment."""
        return 0.0

    def work(self, window_s: float) -> None:
        """Go on as after a stretch of load of that length, seconds > 0."""
        ripple = np.random.default_rng((*self.seed, self._blocks)).normal(0.0, _RIPPLE)
        self._blocks += 1
        self._at_s += window_s
        self._total_j += self.mean_w * float(np.exp(ripple)) * window_s

    def energy(self) -> GpuEnergy:
        """Read the counter."""
        return GpuEnergy(at_s=self._at_s, total_j=self._total_j)

    def state(self) -> GpuState:
        """Read the rest."""
        warmth = (self.mean_w - IDLE_W) / (FULL_W - IDLE_W)
        return GpuState(
            sm_clock_mhz=_FULL_CLOCK_MHZ,
            memory_clock_mhz=_MEMORY_CLOCK_MHZ,
            temperature_c=round(_COOL_C + (_HOT_C - _COOL_C) * warmth),
            memory_bytes=self.memory_bytes,
            reasons=Reason(0),
            held_back=(),
            others=0,
        )
