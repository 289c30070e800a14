"""What came of one trial: exactly one of Completed, Infeasible, Failed.

*Infeasible* is a fact about the deployment (it does not fit, it is not supported) and is told to
the sampler as a constraint. *Failed* is a fact about tonight (a crash, a hang) and may be retried.
There are no made-up scores.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from search_spaces.deployment import Deployment
from trials.measurement import (
    Block,
    Costs,
    EngineRecord,
    Estimate,
    GpuUse,
    OnDevice,
    Quality,
    Queueing,
    Quiet,
    Speed,
    exact,
)
from trials.measuring.sentinel import Sighting

MEMORY = "peak_memory_mb"
ENERGY = "energy_per_sample_mj"
_MS_PER_S = 1e3
_MJ_PER_J = 1e3
_BYTES_PER_MB = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Where and with what something was measured, as (name, value), sorted by name."""

    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A deployment that was measured.

    Attributes:
        peak_memory_bytes: What serving needs beyond the idle runtime, > 0; see
            :meth:`trials.backend.Backend.peak_memory`. None where the backend cannot tell.
        flags: Words of caution: ``target_not_met``, ``no_steady_state``, ``level_shift``,
            ``decided``, ``contended``, ``power_capped``, ``enqueue_bound``.
        blocks: Raw samples behind ``speed``; empty in a record read back from a study.
        queueing: Where latency went under an open loop; None under a closed one.
        quiet: How quiet the machine was; None in a record of an earlier version.
        gpu: What the GPU did; None where none ran it, or none could be read.
        on_device: How requests went to a device; None where there is none.
        sentinel: How the sentinel last was before this trial; None where there was none yet.
    """

    deployment: Deployment
    engine: EngineRecord
    speed: Speed
    quality: Quality | None
    peak_memory_bytes: int | None
    costs: Costs
    environment: Environment
    flags: tuple[str, ...] = ()
    blocks: tuple[Block, ...] = ()
    queueing: Queueing | None = None
    quiet: Quiet | None = None
    on_device: OnDevice | None = None
    sentinel: Sighting | None = None
    gpu: GpuUse | None = None
    state: Literal["completed"] = "completed"

    def metric(self, name: str) -> Estimate:
        """Return one metric by the name and in the unit that space files use.

        Raises:
            KeyError: It was not measured.
        """
        if name in _LATENCIES:
            latency: Estimate = getattr(self.speed, _LATENCIES[name])
            return latency.scaled(_MS_PER_S)
        if name in _COUNTED:
            return exact(_COUNTED[name](self))
        if name == MEMORY and self.peak_memory_bytes is not None:
            return exact(self.peak_memory_bytes / _BYTES_PER_MB)
        if name == ENERGY and self._energy is not None:
            return self._energy.scaled(_MJ_PER_J)
        if name == "throughput_sps":
            return self.speed.throughput_sps
        return self._scores()[name]

    def metrics(self) -> dict[str, Estimate]:
        """Return every metric that was measured."""
        names = [*_LATENCIES, "throughput_sps", *_COUNTED]
        if self.peak_memory_bytes is not None:
            names.append(MEMORY)
        if self._energy is not None:
            names.append(ENERGY)
        return {name: self.metric(name) for name in names} | self._scores()

    @property
    def _energy(self) -> Estimate | None:
        return None if self.gpu is None else self.gpu.energy_per_sample_j

    def _scores(self) -> dict[str, Estimate]:
        return {} if self.quality is None else self.quality.metrics()


_LATENCIES = {
    "latency_mean_ms": "latency_mean_s",
    "latency_p50_ms": "latency_p50_s",
    "latency_p90_ms": "latency_p90_s",
    "latency_p99_ms": "latency_p99_s",
    "latency_p999_ms": "latency_p999_s",
}
_COUNTED: dict[str, Callable[[Completed], float]] = {
    "engine_size_mb": lambda outcome: outcome.engine.size_bytes / _BYTES_PER_MB,
    "load_ms": lambda outcome: outcome.costs.load_s * _MS_PER_S,
    "cold_call_ms": lambda outcome: outcome.costs.cold_call_s * _MS_PER_S,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Infeasible:
    """A deployment that cannot run.

    Attributes:
        reason: One line for people.
    """

    deployment: Deployment
    kind: Literal["unsupported", "memory", "output", "saturated"]
    reason: str
    environment: Environment
    state: Literal["infeasible"] = "infeasible"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A trial that broke tonight.

    Attributes:
        reason: One line for people.
    """

    deployment: Deployment
    kind: Literal["crash", "deadline", "interrupted", "fault"]
    reason: str
    environment: Environment
    state: Literal["failed"] = "failed"


Outcome: TypeAlias = Completed | Infeasible | Failed
