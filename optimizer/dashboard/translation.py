"""From what a sampler was told to what people read: trials, values, names and attributes."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, assert_never

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optimizer.study.records import outcome_from_json
from trials.outcome import Completed, Failed, Infeasible, Outcome

METRIC_NAMES = "study:metric_names"  # where Optuna keeps what set_metric_names() was given
CONSTRAINTS = "constraints"  # Optuna 5 writes "constraints:<name>", older readers want this list
INTERNAL = "trifront:"  # study attributes for programs

_LOG10 = "log10("
_OUTCOME = "outcome"
_OWNER = "owner"
_DIGITS = 9  # 10 ** log10(12.0) is 12.000000000000002


def feasible_front(
    trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]
) -> list[FrozenTrial]:
    """Return the completed trials that meet all constraints and that no other one dominates."""
    import moocore

    feasible = [
        trial
        for trial in trials
        if trial.state is TrialState.COMPLETE and trial.values and violation(trial) <= 0
    ]
    if not feasible:
        return []
    signs = [-1 if direction is StudyDirection.MAXIMIZE else 1 for direction in directions]
    costs = np.asarray([trial.values for trial in feasible]) * signs
    on_front = moocore.is_nondominated(costs, keep_weakly=True)
    return [trial for trial, member in zip(feasible, on_front, strict=True) if member]


def violation(trial: FrozenTrial) -> float:
    """Say by how much a trial misses its constraints in all; 0.0 where it meets them."""
    return sum(max(value, 0.0) for value in trial.constraints.values())


def translated(trial: FrozenTrial, names: Sequence[str], outcome: Outcome | None) -> FrozenTrial:
    """Copy a trial with values in people's units, none where nobody measured any.

    Args:
        trial: As it is stored.
        names: Of its values, as the sampler's scale has them.
        outcome: What came of it, where that is known.
    """
    view = copy.copy(trial)
    if trial.values is not None:
        measured = outcome is None or isinstance(outcome, Completed)
        view.values = _plain_values(trial.values, names) if measured else None
    # sorted, because every trial must list its constraints in the same order
    view.system_attrs = {
        name: value
        for name, value in trial.system_attrs.items()
        if not name.startswith(f"{CONSTRAINTS}:")
    } | {CONSTRAINTS: [value for _, value in sorted(trial.constraints.items())]}
    view.user_attrs = {
        name: value for name, value in trial.user_attrs.items() if name not in (_OUTCOME, _OWNER)
    } | dict(_attributes(outcome))
    return view


def outcome_of(trial: FrozenTrial) -> Outcome | None:
    """Read what came of a trial; None where nothing is written, as while it runs."""
    text = trial.user_attrs.get(_OUTCOME)
    return None if text is None else outcome_from_json(text)


def _attributes(outcome: Outcome | None) -> Iterator[tuple[str, str | float]]:
    if outcome is None:
        return
    yield _OUTCOME, outcome.state
    yield "deployment", str(outcome.deployment)
    match outcome:
        case Completed():
            yield "flags", ", ".join(outcome.flags)
            for name, estimate in outcome.metrics().items():
                yield name, _rounded(estimate.value)
        case Infeasible() | Failed():
            yield "reason", outcome.reason
        case _:
            assert_never(outcome)


def _plain_values(values: Sequence[float], names: Sequence[str]) -> list[float]:
    logarithmic = [name.startswith(_LOG10) for name in names] or [False] * len(values)
    return [
        _rounded(10**value) if is_log else value
        for value, is_log in zip(values, logarithmic, strict=True)
    ]


def plain_names(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return a study's system attributes with the plain names of its metrics."""
    names = attributes.get(METRIC_NAMES)
    if names is None:
        return attributes
    plain = [
        name.removeprefix(_LOG10).removesuffix(")") if name.startswith(_LOG10) else name
        for name in names
    ]
    return attributes | {METRIC_NAMES: plain}


def study_attributes(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return those of a study's attributes that are meant for people."""
    return {name: value for name, value in attributes.items() if not name.startswith(INTERNAL)}


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
