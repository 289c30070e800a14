"""Meters of a GPU that a test moves as it likes."""

from collections.abc import Callable
from dataclasses import dataclass, field

from trials.machine.gpu_source import GpuEnergy, GpuIdentity, GpuState, Reason

STATE = GpuState(
    sm_clock_mhz=1_980,
    memory_clock_mhz=2_619,
    temperature_c=60,
    memory_bytes=5_000,
    reasons=Reason(0),
    held_back=(),
    others=0,
)


@dataclass
class ScriptedGpu:
    """Meters that a script moves: watts, and what else is told of the so-manieth block."""

    watts: float = 200.0
    script: Callable[[int], GpuState] = lambda _: STATE
    update_s: float = 0.0
    at_s: float = 0.0
    total_j: float | None = 0.0
    blocks: int = 0
    is_open: bool = False
    asked_inside: list[str] = field(default_factory=list)
    is_inside: bool = False

    @property
    def identity(self) -> GpuIdentity:
        return GpuIdentity(uuid="GPU-1", name="scripted", is_mig=False)

    def work(self, window_s: float) -> None:
        self.at_s += window_s
        if self.total_j is not None:
            self.total_j += self.watts * window_s
        self.blocks += 1

    def energy(self) -> GpuEnergy:
        self._note("energy")
        return GpuEnergy(at_s=self.at_s, total_j=self.total_j)

    def state(self) -> GpuState:
        self._note("state")
        return self.script(self.blocks)

    def _note(self, what: str) -> None:
        if self.is_inside:
            self.asked_inside.append(what)
