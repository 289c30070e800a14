"""Measure a deployment anew, in several sessions, and hold it against what was measured before."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from search_spaces.space import Constraint, Objective
from trials.engine_files import Measured
from trials.measurement import Block
from trials.measuring.comparison import SPEEDS, Compared, compare_speeds, with_doubts
from trials.measuring.load import CONTENDED

USUAL_SPEEDS = ("latency_p50_ms", "latency_p99_ms", "throughput_sps")
_REPEATS = 3  # of sessions in which others took the processor; more would only wait for the night


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """Several measurements of one deployment, each in a process of its own.

    Attributes:
        blocks: Of all sessions, in order of time.
        contended: In one of them others took the processor, although such ones were repeated.
        repeated: Sessions that were not kept for that reason.
    """

    blocks: tuple[Block, ...]
    contended: bool
    repeated: int

    def cautions(self) -> tuple[str, ...]:
        """Say what the sessions cannot tell."""
        if not self.contended:
            return ()
        vain = f"{self.repeated} sessions were repeated in vain"
        return (f"whether a speed is worse: other work took the processor, {vain}",)


def measure_sessions(
    measure: Callable[[], Measured], *, count: int, on_step: Callable[[str], None]
) -> Sessions:
    """Measure in ``count`` sessions, >= 1, repeating up to three in which others were in the way.

    Which are repeated depends on the processor's time that went to others, never on the result.
    """
    kept: list[Measured] = []
    repeated = 0
    while len(kept) < count:
        again = f", repeated {repeated} times because of other work" if repeated else ""
        on_step(f"measuring, session {len(kept) + 1} of {count}{again}")
        one = measure()
        if CONTENDED in one.flags and repeated < _REPEATS:
            repeated += 1
        else:
            kept.append(one)
    return Sessions(
        blocks=tuple(block for one in kept for block in one.blocks),
        contended=any(CONTENDED in one.flags for one in kept),
        repeated=repeated,
    )


def compare_sessions(
    new: Sessions, old: Sequence[Block], metrics: Sequence[str], *, margin: float, busy: bool
) -> tuple[Compared, ...]:
    """Compare speeds; what may be the doing of others on the machine is undecided.

    Args:
        new: Measured now.
        old: Blocks from back then.
        metrics: Names of speeds.
        margin: Share that does not matter.
        busy: Others took the processor back then.
    """
    compared = compare_speeds(new.blocks, old, metrics, margin=margin)
    return with_doubts(compared, new_busy=new.contended, old_busy=busy)


def wanted_speeds(names: Iterable[str]) -> tuple[str, ...]:
    """Choose the speeds among objectives and constraints; the usual three where there are none."""
    chosen = tuple(dict.fromkeys(name for name in names if name in SPEEDS))
    return chosen or USUAL_SPEEDS


def metrics_of(
    objectives: Iterable[Objective], constraints: Iterable[Constraint]
) -> tuple[str, ...]:
    """Name the metrics that a space optimizes or bounds."""
    return (
        *(one.metric.name for one in objectives),
        *(one.metric.name for one in constraints),
    )
