"""A study's storage as people should see it: their units, constraints in one place, no writing.

It is what the dashboard reads. Samplers and searches never see it.
"""

import copy
from collections.abc import Container, Iterator, Sequence
from typing import Any, NoReturn, assert_never

import numpy as np
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from optimizer.errors import StorageError
from optimizer.study.records import outcome_from_json
from trials.outcome import Completed, Failed, Infeasible, Outcome

METRIC_NAMES = "study:metric_names"  # where Optuna keeps what set_metric_names() was given
CONSTRAINTS = "constraints"  # Optuna 5 writes "constraints:<name>", older readers want this list
_LOG10 = "log10("
_OUTCOME = "outcome"
_INTERNAL = "trifront:"  # study attributes for programs
_OWNER = "owner"
_DIGITS = 9  # 10 ** log10(12.0) is 12.000000000000002


class StudyView(BaseStorage):
    """A read-only storage over another one.

    Values named ``log10(<metric>)`` come back as the metric itself. A deployment that cannot run
    has constraints but no values: those in the study are what the sampler was told, nobody
    measured them. The outcome's JSON becomes one attribute per metric. Ended trials are translated
    once; safe to use from several threads.

    Attributes:
        told: The storage as it is, with the values that the sampler was told.
    """

    def __init__(self, storage: BaseStorage) -> None:
        self.told = storage
        self._ended: dict[int, FrozenTrial] = {}

    def get_study_id_from_name(self, study_name: str) -> int:
        """Return the id of a study, as stored."""
        return self.told.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        """Return the name of a study, as stored."""
        return self.told.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Return the directions of a study, as stored."""
        return self.told.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Return what is meant for people."""
        return _study_attributes(self.told.get_study_user_attrs(study_id))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return Optuna's own attributes, the metrics under their plain names."""
        return _plain_names(self.told.get_study_system_attrs(study_id))

    def get_all_studies(self) -> list[FrozenStudy]:
        """Return all studies, in the order in which they were made."""
        studies = [copy.copy(study) for study in self.told.get_all_studies()]
        for study in studies:
            study.system_attrs = _plain_names(study.system_attrs)
            study.user_attrs = _study_attributes(study.user_attrs)
        return sorted(studies)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,  # noqa: FBT001, FBT002 - Optuna's signature
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Return trials in people's units."""
        names = self.told.get_study_system_attrs(study_id).get(METRIC_NAMES, ())
        trials = self.told.get_all_trials(study_id, deepcopy=False, states=states)
        views = [self._view(trial, names) for trial in trials]
        return copy.deepcopy(views) if deepcopy else views

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return one trial as it is stored; the page asks for studies only."""
        return self.told.get_trial(trial_id)

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """Return the best trial that meets all constraints, of a study with one objective.

        Where none does, it is the one that misses them least: the page cannot show none.

        Raises:
            ValueError: No trial has ended.
        """
        directions = self.get_study_directions(study_id)
        trials = self.get_all_trials(study_id, deepcopy=False, states=(TrialState.COMPLETE,))
        front = feasible_front(trials, directions)
        return front[0] if front else min(trials, key=_violation)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise StorageError("the dashboard only looks; a study is changed by trifront itself")

    create_new_study = _refuse
    delete_study = _refuse
    set_study_user_attr = _refuse
    set_study_system_attr = _refuse
    create_new_trial = _refuse
    set_trial_param = _refuse
    set_trial_state_values = _refuse
    set_trial_intermediate_value = _refuse
    set_trial_user_attr = _refuse
    set_trial_system_attr = _refuse

    def _view(self, trial: FrozenTrial, names: Sequence[str]) -> FrozenTrial:
        trial_id = trial._trial_id  # noqa: SLF001 - the only name for a trial over all studies
        known = self._ended.get(trial_id)
        if known is not None:
            return known
        view = _translated(trial, names)
        if trial.state.is_finished():
            self._ended[trial_id] = view
        return view


def feasible_front(
    trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]
) -> list[FrozenTrial]:
    """Return the completed trials that meet all constraints and that no other one dominates."""
    import moocore

    feasible = [
        trial
        for trial in trials
        if trial.state is TrialState.COMPLETE and trial.values and _violation(trial) <= 0
    ]
    if not feasible:
        return []
    signs = [-1 if direction is StudyDirection.MAXIMIZE else 1 for direction in directions]
    costs = np.asarray([trial.values for trial in feasible]) * signs
    on_front = moocore.is_nondominated(costs, keep_weakly=True)
    return [trial for trial, member in zip(feasible, on_front, strict=True) if member]


def _violation(trial: FrozenTrial) -> float:
    return sum(max(value, 0.0) for value in trial.constraints.values())


def _translated(trial: FrozenTrial, names: Sequence[str]) -> FrozenTrial:
    view = copy.copy(trial)
    outcome = _outcome_of(trial)
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


def _outcome_of(trial: FrozenTrial) -> Outcome | None:
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


def _plain_names(attributes: dict[str, Any]) -> dict[str, Any]:
    names = attributes.get(METRIC_NAMES)
    if names is None:
        return attributes
    plain = [
        name.removeprefix(_LOG10).removesuffix(")") if name.startswith(_LOG10) else name
        for name in names
    ]
    return attributes | {METRIC_NAMES: plain}


def _study_attributes(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if not name.startswith(_INTERNAL)}


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
