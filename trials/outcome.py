"""What came of one trial: exactly one of Completed, Infeasible, Failed.

*Infeasible* is a fact about the deployment (it does not fit, it is not supported) and is told to the
sampler as a constraint. *Failed* is a fact about tonight (a crash, a hang) and may be retried. There
are no sentinel scores.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from search_spaces.deployment import Deployment
from trials.measurement import Block, Costs, EngineRecord, Estimate, Quality, Speed, exact

_MS_PER_S = 1e3
_BYTES_PER_MB = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Where and with what something was measured, as (name, value), sorted by name."""

    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A deployment that was measured.

    Attributes:
        flags: Words of caution: ``target_not_met``, ``no_steady_state``, ``contended``.
        blocks: Raw samples behind ``speed``; empty in a record read back from a study.
    """

    deployment: Deployment
    engine: EngineRecord
    speed: Speed
    quality: Quality | None
    peak_memory_bytes: int
    costs: Costs
    environment: Environment
    flags: tuple[str, ...] = ()
    blocks: tuple[Block, ...] = ()
    state: Literal["completed"] = "completed"

    def metrics(self) -> dict[str, Estimate]:
        """Return every metric by the name and in the unit that space files use."""
        speed = self.speed
        found = {
            "latency_mean_ms": speed.latency_mean_s.scaled(_MS_PER_S),
            "latency_p50_ms": speed.latency_p50_s.scaled(_MS_PER_S),
            "latency_p90_ms": speed.latency_p90_s.scaled(_MS_PER_S),
            "latency_p99_ms": speed.latency_p99_s.scaled(_MS_PER_S),
            "latency_p999_ms": speed.latency_p999_s.scaled(_MS_PER_S),
            "throughput_sps": speed.throughput_sps,
            "peak_memory_mb": exact(self.peak_memory_bytes / _BYTES_PER_MB),
            "engine_size_mb": exact(self.engine.size_bytes / _BYTES_PER_MB),
            "load_ms": exact(self.costs.load_s * _MS_PER_S),
            "cold_call_ms": exact(self.costs.cold_call_s * _MS_PER_S),
        }
        if self.quality is not None:
            found.update(self.quality.scores)
            if self.quality.calibration is not None:
                found["brier"] = self.quality.calibration.brier
                found["log_loss"] = self.quality.calibration.log_loss
                found["ece"] = exact(self.quality.calibration.ece)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Infeasible:
    """A deployment that cannot run.

    Attributes:
        reason: One line for people.
    """

    deployment: Deployment
    kind: Literal["unsupported", "memory", "output"]
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
