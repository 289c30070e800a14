"""When a search ends: after so many trials, so much time, or a front that grows no more."""

from collections.abc import Sequence
from dataclasses import dataclass

from optimizer.front.volume import costs_of, hypervolume
from optimizer.study.objectives import meets
from optimizer.study.records import TrialRecord
from search_spaces.space import SearchSpace
from trials.outcome import Completed

_STALLED_GAIN = 0.005  # half a percent of the hypervolume
_STALLED_TRIALS = 20  # at least; a quarter of the trials so far if that is more
_STALLED_SHARE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits of a study, all of its sessions together; None is no limit.

    Attributes:
        trials: Ended trials, retries of faults not counted.
        time_s: Sum of the trials' own durations, seconds.
    """

    trials: int | None = None
    time_s: float | None = None

    def spent(
        self, records: Sequence[TrialRecord], space: SearchSpace, *, running: int = 0
    ) -> str | None:
        """Say in words why the search should end now, or None to go on.

        Where neither trials nor time are limited, the search ends when the hypervolume of the
        front grew by less than 0.5 % over the last 20 trials, or the last quarter of all trials
        if these are more.

        Args:
            records: The trials that have ended.
            space: What is searched.
            running: Trials that other processes run now; they will use up the budget as well.
        """
        tried = tried_deployments(records)
        if self.trials is not None and tried >= self.trials:
            return f"all {self.trials} trials are done"
        if self.trials is not None and tried + running >= self.trials:
            return f"{tried} of {self.trials} trials are done, other processes run the rest"
        if self.time_s is not None and _seconds(records) >= self.time_s:
            return f"the time of {self.time_s:g} s is used up"
        if self.trials is None and self.time_s is None and has_stalled(records, space):
            return (
                f"the front has stopped growing: less than {_STALLED_GAIN:.1%} more hypervolume "
                f"over the last {_window(len(records))} trials"
            )
        return None


def tried_deployments(records: Sequence[TrialRecord]) -> int:
    """Count the trials that tell something of a deployment; interrupted ones do not."""
    retried = {record.outcome.deployment for record in records if record.outcome.state != "failed"}
    failed = {
        record.outcome.deployment for record in records if record.outcome.state == "failed"
    } - retried
    return sum(record.outcome.state != "failed" for record in records) + len(failed)


def has_stalled(records: Sequence[TrialRecord], space: SearchSpace) -> bool:
    """Tell whether the front has stopped growing, by the rule of :meth:`Budget.spent`."""
    window = _window(len(records))
    if len(records) < 2 * window:
        return False
    feasible = [record for record in records if _counts(record, space)]
    costs = costs_of(feasible, space.objectives)
    before = sum(_counts(record, space) for record in records[:-window])
    now = hypervolume(costs, costs)
    return now > 0 and hypervolume(costs[:before], costs) >= now * (1 - _STALLED_GAIN)


def _window(trials: int) -> int:
    return max(_STALLED_TRIALS, round(trials * _STALLED_SHARE))


def _counts(record: TrialRecord, space: SearchSpace) -> bool:
    return isinstance(record.outcome, Completed) and meets(record.outcome, space.constraints)


def _seconds(records: Sequence[TrialRecord]) -> float:
    return sum(record.finished_s - record.started_s for record in records)
