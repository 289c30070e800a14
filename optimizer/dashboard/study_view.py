"""A study's storage as people should see it: their units, constraints in one place.

It is what the dashboard reads. Samplers and searches never see it. What the page wants besides
(notes, figures) is made when it is read, where the page looks for it: among the attributes that
optuna-dashboard itself would have written.
"""

import copy
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from threading import RLock
from typing import Any

import optuna
from optuna.storages import BaseStorage, RDBStorage, _CachedStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from optimizer.dashboard.attributes import attributes_of_figures, attributes_of_note
from optimizer.dashboard.known_study import KnownStudy
from optimizer.dashboard.translation import (
    INTERNAL,
    METRIC_NAMES,
    feasible_front,
    outcome_of,
    plain_names,
    study_attributes,
    translated,
    violation,
)
from optimizer.errors import StorageError, StudyError
from optimizer.study.records import TrialRecord
from optimizer.study.running import OWNER
from optimizer.study.study import SearchStudy


@dataclass(slots=True, kw_only=True)
class _Remembered:
    """What is kept of one study between two looks.

    Attributes:
        signature: What tells the study from another one that gets its number when it is deleted.
        name: Of the study; ``attributes`` are the user's, as of the last look.
        ended: Translated trials by number; what has ended does not change.
        known: The study as one of ours, None where it is not.
    """

    signature: tuple[object, ...]
    name: str
    attributes: dict[str, Any]
    known: KnownStudy | None
    ended: dict[int, FrozenTrial] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What there is of a study at one moment.

    Attributes:
        stored: Optuna's attributes as they are stored, the metrics under their plain names.
        known: The study as one of ours, None where it is not.
    """

    study_id: int
    name: str
    directions: list[StudyDirection]
    user_attributes: dict[str, Any]
    stored: dict[str, Any]
    trials: list[FrozenTrial]
    known: KnownStudy | None

    def page_attributes(self) -> dict[str, Any]:
        """Return what is stored, with our note where nobody wrote one, and our figures."""
        if self.known is None:
            return self.stored
        harvest = self.known.harvest()
        made = attributes_of_note(harvest.note, self.stored, None)
        return self.stored | made | attributes_of_figures(harvest.figures)


def _writing(name: str) -> Callable[..., Any]:
    def write(view: "StudyView", *arguments: Any, **named: Any) -> Any:
        if not view.allow_writes:
            raise StorageError(
                "the dashboard only looks; a study is changed by trifront itself",
                hint="--allow-writes lets notes and preferences through",
            )
        return getattr(view.told, name)(*arguments, **named)

    return write


class StudyView(BaseStorage):
    """A storage over another one, read-only unless writes are allowed, which are passed on.

    Values named ``log10(<metric>)`` come back as the metric itself. A deployment that cannot run
    has constraints but no values: those in the study are what the sampler was told, nobody
    measured them. The outcome's JSON becomes one attribute per metric. Ended trials are translated
    once; safe to use from several threads.

    Attributes:
        allow_writes: Whether the storage may be changed through this view.
        told: The storage as it is, with the values that the sampler was told.
        generation: Grows whenever a study was replaced by another one of the same number.
        lock: Held while the view is read; whoever reads twice and wants one answer takes it too.
    """

    def __init__(self, storage: BaseStorage, url: str = "", *, allow_writes: bool = False) -> None:
        self.allow_writes = allow_writes
        self.generation = 0
        self.lock = RLock()
        self._storage = storage
        self._url = url
        self.told = _cached(storage)
        self._remembered: dict[int, _Remembered] = {}

    def look(self, study_id: int) -> Look:
        """Return a study as it is now.

        Raises:
            KeyError: There is no such study.
            StorageError: The storage is out of reach.
        """
        with self.lock:
            remembered = self._remember(study_id)
            if remembered.known is not None:
                remembered.known.refresh()
            raw = self.told.get_study_system_attrs(study_id)
            names = raw.get(METRIC_NAMES, ())
            trials = self.told.get_all_trials(study_id, deepcopy=False)
            return Look(
                study_id=study_id,
                name=remembered.name,
                directions=self.told.get_study_directions(study_id),
                user_attributes=study_attributes(remembered.attributes),
                stored=plain_names(raw),
                trials=[_view(trial, names, remembered) for trial in trials],
                known=remembered.known,
            )

    def record(self, study_id: int, trial_id: int) -> TrialRecord | None:
        """Return an ended trial of one of our studies; None where it is not one.

        Raises:
            KeyError: There is no such study.
            StorageError: The storage is out of reach.
        """
        look = self.look(study_id)
        for trial in look.trials:
            if trial._trial_id == trial_id and look.known is not None:  # noqa: SLF001 - the address has it
                return look.known.record(trial.number)
        return None

    def is_of_search(self, trial_id: int) -> bool:
        """Tell whether a trial was begun by a search of ours.

        Raises:
            KeyError: There is no such trial.
        """
        return OWNER in self.told.get_trial(trial_id).user_attrs

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
        return study_attributes(self.told.get_study_user_attrs(study_id))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return Optuna's own attributes, the metrics under their plain names, and the page's.

        A note that somebody wrote stands where ours would.
        """
        return self.look(study_id).page_attributes()

    def get_all_studies(self) -> list[FrozenStudy]:
        """Return all studies, in the order in which they were made."""
        studies = [copy.copy(study) for study in self.told.get_all_studies()]
        for study in studies:
            study.system_attrs = plain_names(study.system_attrs)
            study.user_attrs = study_attributes(study.user_attrs)
        return sorted(studies)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,  # noqa: ARG002, FBT001, FBT002 - Optuna's signature
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Return trials in people's units, not to be changed: what reads here changes none.

        A copy of thousands of trials takes longer than anything else that the page waits for.
        """
        trials = self.look(study_id).trials
        if states is not None:
            trials = [trial for trial in trials if trial.state in states]
        return trials

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
        return front[0] if front else min(trials, key=violation)

    create_new_study = _writing("create_new_study")
    delete_study = _writing("delete_study")
    set_study_user_attr = _writing("set_study_user_attr")
    set_study_system_attr = _writing("set_study_system_attr")
    create_new_trial = _writing("create_new_trial")
    set_trial_param = _writing("set_trial_param")
    set_trial_state_values = _writing("set_trial_state_values")
    set_trial_intermediate_value = _writing("set_trial_intermediate_value")
    set_trial_user_attr = _writing("set_trial_user_attr")
    set_trial_system_attr = _writing("set_trial_system_attr")

    def _remember(self, study_id: int) -> _Remembered:
        """Return what is kept of a study; nothing of one that was deleted and had its number."""
        # not from the cache, which would never hear of it
        name = self._storage.get_study_name_from_id(study_id)
        attributes = self._storage.get_study_user_attrs(study_id)
        ours = (attributes.get(f"{INTERNAL}id"), f"{INTERNAL}format" in attributes)
        signature = (name, *ours)
        kept = self._remembered.get(study_id)
        if kept is None or kept.signature != signature:
            if kept is not None:
                self.told = _cached(self._storage)
                self._remembered.clear()
                self.generation += 1
            kept = _Remembered(
                signature=signature, name=name, attributes=attributes, known=self._known(name)
            )
            self._remembered[study_id] = kept
        kept.attributes = attributes
        return kept

    def _known(self, name: str) -> KnownStudy | None:
        study = optuna.load_study(study_name=name, storage=self.told)
        try:
            return KnownStudy(SearchStudy(study, self._url))
        except StudyError:  # not ours, or of another version: shown as Optuna has it
            return None


def _cached(storage: BaseStorage) -> BaseStorage:
    return _CachedStorage(storage) if isinstance(storage, RDBStorage) else storage


def _view(trial: FrozenTrial, names: Sequence[str], remembered: _Remembered) -> FrozenTrial:
    view = remembered.ended.get(trial.number)
    if view is None:
        known = remembered.known
        record = None if known is None else known.record(trial.number)
        outcome = outcome_of(trial) if record is None else record.outcome
        view = translated(trial, names, outcome)
        if trial.state.is_finished():
            remembered.ended[trial.number] = view
    return view
