"""Name a trial: by its number, as the knee of the front, or as the best of one metric."""

from optimizer.errors import StudyError, UsageError
from optimizer.front.front import Front, front_of
from optimizer.study.records import TrialRecord
from optimizer.study.study import SearchStudy
from search_spaces.space import Objective
from trials.outcome import Completed

_BEST = "best:"


def record_named(name: str, study: SearchStudy) -> TrialRecord:
    """Find the trial that a user means.

    Args:
        name: A number, ``knee``, or ``best:`` and the name of an objective.
        study: Where to look.

    Raises:
        StudyError: There is no such trial, or no front yet.
        UsageError: Not a name of a trial.
    """
    if name.isdecimal():
        return study.record(int(name))
    space = study.space
    front = front_of(study.records(), space.objectives, space.constraints)
    if name == "knee":
        return _first(front, front.knee)
    if name.startswith(_BEST):
        metric = name.removeprefix(_BEST)
        for objective in front.objectives:
            if objective.metric.name == metric:
                return _first(front, _best(front, objective))
        known = ", ".join(objective.metric.name for objective in front.objectives)
        raise UsageError(f"'{metric}' is no objective of this study", hint=f"it has: {known}")
    raise UsageError(
        f"'{name}' names no trial", hint="give a number, `knee`, or `best:latency_p99_ms`"
    )


def _first(front: Front, record: TrialRecord | None) -> TrialRecord:
    if record is None:
        if not (front.missed or front.infeasible or front.failed):
            raise StudyError(
                "no trial of this study has ended yet",
                hint="search on; `trifront studies` lists others, for --study",
            )
        raise StudyError(
            f"the front is empty: {len(front.missed)} trials miss a bound, "
            f"{len(front.infeasible)} are infeasible, {len(front.failed)} failed",
            hint="loosen a constraint in the space file, or search on",
        )
    return record


def _best(front: Front, objective: Objective) -> TrialRecord | None:
    return min(front.members, key=lambda record: _cost(record, objective), default=None)


def _cost(record: TrialRecord, objective: Objective) -> float:
    assert isinstance(record.outcome, Completed)
    value = record.outcome.metric(objective.metric.name).value
    return value if objective.better(0.0, 1.0) else -value
