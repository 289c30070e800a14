"""How requests arrive at an open loop: the pattern of a space, as values.

Every pattern has the mean rate that the deployment's ``rate_rps`` says; it tells only how the
requests lie in time. ``trials.measuring.schedules`` turns it into due times.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class PoissonArrivals:
    """Independent users: exponential gaps."""

    seed: int = 0
    kind: Literal["poisson"] = "poisson"


@dataclass(frozen=True, slots=True, kw_only=True)
class GammaArrivals:
    """Independent gaps that vary more or less than a Poisson process'.

    Attributes:
        burstiness: Coefficient of variation of the gaps, > 0; 1 is Poisson.
    """

    burstiness: float
    seed: int = 0
    kind: Literal["gamma"] = "gamma"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantArrivals:
    """Equal gaps, as from a camera."""

    kind: Literal["constant"] = "constant"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepArrivals:
    """A Poisson process whose rate jumps, over and over.

    Attributes:
        steps: (seconds, relative rate) of each step; the mean over a cycle is ``rate_rps``.
    """

    steps: tuple[tuple[float, float], ...]
    seed: int = 0
    kind: Literal["steps"] = "steps"


@dataclass(frozen=True, slots=True, kw_only=True)
class DayArrivals:
    """A Poisson process whose rate swings as a sine, like that of a day.

    Attributes:
        period_s: Length of the day, seconds.
        swing: Height of the sine over the mean rate, in (0, 1].
    """

    period_s: float
    swing: float
    seed: int = 0
    kind: Literal["day"] = "day"


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceArrivals:
    """Recorded arrivals, stretched to the rate and repeated where the measurement is longer.

    Attributes:
        path: CSV file of arrival times.
        digest: SHA-256 of its content when the space was read.
    """

    path: Path
    digest: str
    kind: Literal["trace"] = "trace"


Arrivals: TypeAlias = (
    PoissonArrivals | GammaArrivals | ConstantArrivals | StepArrivals | DayArrivals | TraceArrivals
)


def cycle_s(arrivals: Arrivals) -> float | None:
    """Return after which time a pattern repeats itself, seconds; None where it does not."""
    match arrivals:
        case StepArrivals(steps=steps):
            return sum(seconds for seconds, _ in steps)
        case DayArrivals(period_s=period_s):
            return period_s
        case _:
            return None
