"""What a check found out, and whether that passes a gate.

Three things fail it: an output beyond its bound, a score that is worse, a speed that is worse.
What is undecided or could not be checked does not, and is always said: a gate on a busy machine
would otherwise fail by chance, and nobody believes a gate that does.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from trials.measurement import Estimate
from trials.measuring.comparison import Compared, Verdict
from trials.scoring.agreement import Agreement, Predictions


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreFinding:
    """One score of two engines.

    Attributes:
        data: What was scored: a split's name, or ``--data``.
        difference: new - old; without an interval of its own where the samples are the same, for
            then nothing of it is chance.
        margin: Difference that does not matter.
    """

    metric: str
    data: str
    new: Estimate
    old: Estimate
    difference: Estimate
    margin: float
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Everything that a check found out.

    Attributes:
        subject: What was checked.
        facts: What is known of both sides, one line each.
        unchecked: What could not be checked, and why.
        margin: Share of a speed that does not matter.
    """

    subject: str
    facts: tuple[str, ...]
    unchecked: tuple[str, ...]
    outputs: tuple[Agreement, ...]
    predictions: Predictions | None
    scores: tuple[ScoreFinding, ...]
    speeds: tuple[Compared, ...]
    margin: float

    def failures(self) -> Iterator[str]:
        """Yield what fails the gate, in words."""
        for output in self.outputs:
            if not output.holds:
                yield f"output {output.output} differs"
        for score in self.scores:
            if score.verdict is Verdict.WORSE:
                yield f"{score.metric} on {score.data} is worse"
        for speed in self.speeds:
            if speed.verdict is Verdict.WORSE:
                yield f"{speed.metric} is worse"

    @property
    def passed(self) -> bool:
        """Tell whether nothing fails the gate."""
        return next(self.failures(), None) is None
