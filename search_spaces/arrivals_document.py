"""The arrivals section of a space file, in the form it is written, and its way to values."""

from typing import Annotated, Literal

from pydantic import Field

from search_spaces.arrivals import (
    Arrivals,
    ConstantArrivals,
    DayArrivals,
    GammaArrivals,
    PoissonArrivals,
    StepArrivals,
    TraceArrivals,
)
from search_spaces.errors import SpaceError
from search_spaces.field_types import FilePath, Positive, Section, Seed
from search_spaces.inputs import Inputs
from search_spaces.traces import trace_from_csv

_KEY = "measure.arrivals"
_SEED = Field(default=0, description="Seed of the arrival times.", examples=[0])


class PoissonDocument(Section):
    """Independent users: exponential gaps between requests."""

    kind: Literal["poisson"] = Field(description="A Poisson process.", examples=["poisson"])
    seed: Seed = _SEED


class GammaDocument(Section):
    """Gaps that vary more (bursts) or less than a Poisson process'."""

    kind: Literal["gamma"] = Field(description="Gamma-distributed gaps.", examples=["gamma"])
    burstiness: Annotated[float, Field(gt=0, le=20)] = Field(
        description="Coefficient of variation of the gaps; 1 is Poisson, above it bursts.",
        examples=[2.0],
    )
    seed: Seed = _SEED


class ConstantDocument(Section):
    """Equal gaps."""

    kind: Literal["constant"] = Field(description="Equal gaps.", examples=["constant"])


Step = Annotated[list[float], Field(min_length=2, max_length=2)]


class StepsDocument(Section):
    """A rate that jumps, over and over; its mean is the deployment's."""

    kind: Literal["steps"] = Field(description="A rate that jumps.", examples=["steps"])
    steps: Annotated[list[Step], Field(min_length=2)] = Field(
        description="[seconds, relative rate] of each step.", examples=[[[1.0, 1.0], [0.5, 4.0]]]
    )
    seed: Seed = _SEED


class DayDocument(Section):
    """A rate that swings as a sine, like that of a day."""

    kind: Literal["day"] = Field(description="A rate that swings.", examples=["day"])
    period_s: Positive = Field(description="Length of the day, seconds.", examples=[2.0])
    swing: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.8, description="Height of the sine over the mean rate.", examples=[0.8]
    )
    seed: Seed = _SEED


class TraceDocument(Section):
    """Recorded arrivals, stretched to the deployment's rate."""

    kind: Literal["trace"] = Field(description="A recorded trace.", examples=["trace"])
    path: FilePath = Field(
        description="CSV file whose first column holds arrival times in seconds, ascending.",
        examples=["arrivals.csv"],
    )


ArrivalsDocument = Annotated[
    PoissonDocument
    | GammaDocument
    | ConstantDocument
    | StepsDocument
    | DayDocument
    | TraceDocument,
    Field(discriminator="kind"),
]


def arrivals_from_document(document: ArrivalsDocument, inputs: Inputs) -> Arrivals:
    """Turn the section into values; a trace is read once, to see that it can be used.

    Raises:
        SpaceError: A step of no length or rate, or a trace that is not there, empty or unsorted.
    """
    match document:
        case PoissonDocument():
            return PoissonArrivals(seed=document.seed)
        case GammaDocument():
            return GammaArrivals(burstiness=document.burstiness, seed=document.seed)
        case ConstantDocument():
            return ConstantArrivals()
        case StepsDocument():
            return StepArrivals(steps=_steps(document), seed=document.seed)
        case DayDocument():
            return DayArrivals(
                period_s=document.period_s, swing=document.swing, seed=document.seed
            )
        case TraceDocument():
            path = inputs.file(document.path, key=f"{_KEY}.path")
            trace = trace_from_csv(path, key=f"{_KEY}.path")
            return TraceArrivals(path=path, digest=trace.digest)


def _steps(document: StepsDocument) -> tuple[tuple[float, float], ...]:
    for position, (seconds, rate) in enumerate(document.steps):
        if seconds <= 0 or rate < 0:
            raise SpaceError(
                f"[{seconds:g}, {rate:g}] is no step; write [seconds, relative rate], the first "
                "above 0, the second not below",
                key=f"{_KEY}.steps[{position}]",
            )
    if not any(rate for _, rate in document.steps):
        raise SpaceError("has no step with a rate above 0; give one", key=f"{_KEY}.steps")
    return tuple((seconds, rate) for seconds, rate in document.steps)
