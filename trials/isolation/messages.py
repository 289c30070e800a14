"""What a worker and its owner say to each other over their pipe, pickled.

The owner sends one request and gets any number of ``Phase`` and ``Progress``, each of which it
answers with ``Heard``, and then exactly one of ``Done``, ``Raised`` and ``Bug``. They live here
and not in ``process``, which runs as ``__main__`` in the child, where its types would have other
names than in the parent.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from search_spaces.deployment import Deployment, Precision
from search_spaces.space import MeasuringPlan, SearchSpace

if TYPE_CHECKING:
    from trials.data.dataset import LayerSplit
    from trials.references import Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """The first request: open the session.

    Attributes:
        import_path: The owner's ``sys.path``, so that both sides import the same things.
        target: The device that engines are built for; None for this machine's.
    """

    import_path: tuple[str, ...]
    space: SearchSpace
    store_root: Path
    store_limit_bytes: int
    target: str | None = None


class Verb(StrEnum):
    """What an open session can be asked to do; the name of its method."""

    RUN = "run"
    REPORT = "report"
    PREPARE = "prepare"
    MEASURE = "measure"
    RECORD = "record"
    LAYERS = "layers"
    LOWER = "lower"
    DESCRIBE = "describe"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerQuestion:
    """Which layers a precision lowers, or what lowering one of them does.

    Attributes:
        layer: Of which; empty for all of them together, and for ``layers``.
        split: Whose samples are asked.
    """

    variant: str
    precision: Precision
    layer: str = ""
    split: "LayerSplit" = "calibration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A request to an open session; ``deployment`` is None where no single one is meant.

    Attributes:
        question: Of ``layers`` and ``lower``; None for the other verbs.
        wanted: How many references ``record`` is to record; None for the other verbs.
        plan: How ``measure`` is to measure; None for the space's own plan.
    """

    verb: Verb
    deployment: Deployment | None = None
    wanted: "Wanted | None" = None
    plan: MeasuringPlan | None = None
    question: LayerQuestion | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """A request that needs no session: call one function of ours with one argument.

    Attributes:
        import_path: The owner's ``sys.path``.
        function: ``module:function``.
    """

    import_path: tuple[str, ...]
    function: str
    argument: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """The job is about to enter the step called ``name``; it waits until the owner has heard."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the job is in something that takes long and may be broken off.

    Attributes:
        name: What is done just now.
        share: Of all that is to be done, from 0 to 1.
    """

    name: str
    share: float

    def __str__(self) -> str:
        return f"{self.name} {self.share:.0%}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """The owner has done what it does at a phase; only now may the job go on.

    Attributes:
        stop: Break off what was told of, clean up and raise AbandonedError.
    """

    stop: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The job's result."""

    result: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """The job raised on purpose; the session is as good as before."""

    error: Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """The job raised what nobody foresaw.

    Attributes:
        summary: One line.
        traceback: The child's traceback.
    """

    summary: str
    traceback: str


def phase_of(request: "Request") -> str:
    """Name what a request begins with, for messages about its end."""
    match request:
        case Open():
            return "open"
        case Job(verb=verb):
            return verb.value
        case Errand(function=function):
            return function.rpartition(":")[2]


Request: TypeAlias = Open | Job | Errand
Reply: TypeAlias = Phase | Progress | Done | Raised | Bug
