"""Which of two engines is more often right: scored now, on the same samples, sample by sample."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from optimizer.comparing.side import Side
from search_spaces.metrics import METRICS, Direction
from trials.duel import Sat, Sitting, SplitExam, sit
from trials.errors import TrialError
from trials.isolation.child import Limits
from trials.isolation.errand import run_errand
from trials.measurement import Estimate
from trials.measuring.comparison import Verdict, verdict_on_difference
from trials.measuring.statistics import mean_score
from trials.scoring.calibration import Floats
from trials.scoring.paired import PairedDifference, by_cohort, paired_difference

_LIMITS = Limits(deadline_s=600.0, memory_bytes=None)  # of one engine over all samples


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreCompared:
    """One score of two engines on the same samples.

    Attributes:
        data: What was scored, for people.
        paired: New - old.
        margin: Difference that does not matter.
        non_inferior: The new one is not worse by more than the margin, for certain.
        cohorts: Likewise within each cohort; the doubts are Holm's.
    """

    metric: str
    data: str
    new: Estimate
    old: Estimate
    paired: PairedDifference
    margin: float
    verdict: Verdict
    non_inferior: bool
    cohorts: tuple[tuple[str, PairedDifference], ...] = ()


def compare_scores(
    a: Side, b: Side, *, on_step: Callable[[str], None]
) -> tuple[tuple[ScoreCompared, ...], tuple[str, ...]]:
    """Score both engines on the same samples, where either side came with some.

    The search split of a trial's space is preferred to the references of an export, which are
    fewer.

    Returns:
        The scores, and why there are none.
    """
    exams = sorted(
        (side.exam for side in (a, b) if side.exam is not None),
        key=lambda exam: not isinstance(exam, SplitExam),
    )
    if not exams:
        return (), ("accuracy is not compared: neither side came with labelled samples",)
    exam = exams[0]
    on_step("scoring both on the same samples")
    try:
        old, new = (
            run_errand(sit, Sitting(engine=side.file, exam=exam), _LIMITS) for side in (a, b)
        )
    except TrialError as error:  # speeds are worth having without
        return (), (f"accuracy is not compared: {error}",)
    data = "the search split" if isinstance(exam, SplitExam) else "the references"
    return scores_of(new, old, data=data, margin=exam.task.margin), ()


def scores_of(new: Sat, old: Sat, *, data: str, margin: float) -> tuple[ScoreCompared, ...]:
    """Compare the main score, and the Brier score of a classification, sample by sample.

    Args:
        new: What the one scored.
        old: What the other scored on the same samples.
        data: Which samples, for people.
        margin: Difference that does not matter, > 0.
    """
    main = _compared(
        new.marks.metric, new.marks.scores, old.marks.scores, data=data, margin=margin
    )
    if new.cohorts is not None:
        cohorts = by_cohort(new.marks.scores, old.marks.scores, new.cohorts)
        main = replace(main, cohorts=tuple(cohorts.items()))
    if new.marks.brier is None or old.marks.brier is None:
        return (main,)
    brier = _compared("brier", new.marks.brier, old.marks.brier, data=data, margin=margin)
    return main, brier


def _compared(metric: str, new: Floats, old: Floats, *, data: str, margin: float) -> ScoreCompared:
    paired = paired_difference(new, old)
    direction = METRICS[metric].direction
    # how far it may be worse, as a limit of new - old
    if direction is Direction.MAXIMIZE:
        worst = paired.difference.low
    else:
        worst = None if paired.difference.high is None else -paired.difference.high
    return ScoreCompared(
        metric=metric,
        data=data,
        new=mean_score(new),
        old=mean_score(old),
        paired=paired,
        margin=margin,
        verdict=verdict_on_difference(paired.difference, direction, margin=margin),
        non_inferior=worst is not None and worst > -margin,
    )
