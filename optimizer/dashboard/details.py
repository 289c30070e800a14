"""The two answers of the dashboard that grow with a study, made so that a poll costs little.

Their form is optuna-dashboard's, whose own functions serialize here. What it does with every poll
is done once instead: an ended trial is serialized when it is first asked for, the search space is
put together from trials as they end, importances are computed when trials were added.
"""

import copy
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState
from optuna_dashboard._inmemory_cache import InMemoryCache, get_cached_extra_study_property
from optuna_dashboard._serializer import serialize_frozen_trial, serialize_study_detail

from optimizer.dashboard.artifacts import TrialArtifacts, identity_of, type_of
from optimizer.dashboard.attributes import attributes_of_note
from optimizer.dashboard.importances import importances_of
from optimizer.dashboard.study_view import Look, StudyView
from optimizer.dashboard.translation import feasible_front

_PREFERENTIAL = "preference:is_preferential"
_OF_TRIAL = re.compile(r"dashboard:(?:artifacts:)?([0-9]+):")  # attributes of a study about one
_ARTIFACT = "artifacts:"


@dataclass(slots=True)
class _Kept:
    """What is kept between two polls of one study.

    Attributes:
        texts: By trial number: what the text depends on, and the JSON text.
        cache: optuna-dashboard's own, of the search space.
        spaced: Numbers of the ended trials that it has seen.
        importances: Number of completed trials, and the answer.
    """

    texts: dict[int, tuple[object, bytes]] = field(default_factory=dict)
    cache: InMemoryCache = field(default_factory=InMemoryCache)
    spaced: set[int] = field(default_factory=set)
    importances: tuple[int, bytes] = (-1, b"")


class StudyDetails:
    """Answers about the studies of a view; safe to use from several threads."""

    def __init__(self, view: StudyView, artifacts: TrialArtifacts) -> None:
        self._view = view
        self._artifacts = artifacts
        self._kept: dict[int, _Kept] = {}
        self._generation = view.generation

    def study(self, study_id: int, *, after: int) -> bytes | None:
        """Return a study as JSON, with its trials from the number ``after`` on.

        None for a preferential study, whose answer is another one and not ours.

        Raises:
            KeyError: There is no such study.
            StorageError: The storage is out of reach.
        """
        with self._view.lock:
            look = self._view.look(study_id)
            if look.stored.get(_PREFERENTIAL, False):
                return None
            kept = self._keep(study_id)
            about = _by_trial(look.stored)
            best = set(_numbers_of_best(look))
            trials = look.trials
            listed = [self._text(trial, look, kept, about) for trial in trials[after:]]
            shown = [
                self._text(trial, look, kept, about) for trial in trials if trial.number in best
            ]
            head = _head(look, kept)
        return b"".join(
            (
                head[:-1],
                b', "trials": [',
                b", ".join(listed),
                b'], "best_trials": [',
                b", ".join(shown),
                b"]}",
            )
        )

    def importances(self, study_id: int) -> bytes:
        """Return the importance of each parameter for each objective as JSON.

        Raises:
            KeyError: There is no such study.
            StorageError: The storage is out of reach.
        """
        with self._view.lock:
            look = self._view.look(study_id)
            kept = self._keep(study_id)
            completed = sum(trial.state is TrialState.COMPLETE for trial in look.trials)
            if kept.importances[0] != completed:
                found = importances_of(self._view.told, look.name)
                kept.importances = (completed, json.dumps({"param_importances": found}).encode())
            return kept.importances[1]

    def _keep(self, study_id: int) -> _Kept:
        if self._generation != self._view.generation:  # another study may have the number
            self._kept.clear()
            self._generation = self._view.generation
        return self._kept.setdefault(study_id, _Kept())

    def _text(
        self, trial: FrozenTrial, look: Look, kept: _Kept, about: Mapping[int, dict[str, Any]]
    ) -> bytes:
        """Serialize a trial, or return the text of an ended one of which nothing new is known."""
        trial_id = trial._trial_id  # noqa: SLF001 - the only name for a trial over all studies
        known = look.known
        record = None if known is None else known.record(trial.number)
        stored = about.get(trial_id, {})
        names = () if record is None else self._artifacts.names(record)
        is_scored = known is not None and known.is_scored(trial.number)
        certified = None if known is None else known.certified(trial.number)
        # without a record it ended only just now, after the known study was looked at
        key = (record is None, is_scored, certified, names, tuple(stored.items()))
        before = kept.texts.get(trial.number)
        if before is not None and before[0] == key:
            return before[1]
        if known is not None and record is not None:
            pictures = [
                f"/artifacts/{look.study_id}/{trial_id}/{identity_of(trial_id, name)}"
                for name in names
                if type_of(name).startswith("image/")
            ]
            note = known.note_of_trial(record, pictures)
            stored = stored | attributes_of_note(note, stored, trial_id)
        shown = _with_artifacts(trial, names)
        text = json.dumps(serialize_frozen_trial(look.study_id, shown, stored)).encode()
        if trial.state.is_finished():
            kept.texts[trial.number] = (key, text)
        return text


def _head(look: Look, kept: _Kept) -> bytes:
    """Serialize everything but the trials."""
    new = [
        trial
        for trial in look.trials
        if trial.state.is_finished() and trial.number not in kept.spaced
    ]
    kept.spaced.update(trial.number for trial in new)
    spaces = get_cached_extra_study_property(kept.cache, look.study_id, new)
    study = FrozenStudy(
        look.name,
        None,
        look.user_attributes,
        look.page_attributes(),
        look.study_id,
        directions=look.directions,
    )
    figures = {} if look.known is None else dict(look.known.harvest().figures)
    detail = serialize_study_detail(study, [], [], *spaces, figures, [])
    del detail["trials"], detail["best_trials"]
    return json.dumps(detail).encode()


def _numbers_of_best(look: Look) -> list[int]:
    if look.known is not None:
        return [record.number for record in look.known.harvest().front.members]
    best = feasible_front(look.trials, look.directions)
    return [trial.number for trial in (best if len(look.directions) > 1 else best[:1])]


def _by_trial(stored: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """Sort out what is stored with a study about its trials: notes that somebody wrote."""
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    for name, value in stored.items():
        match = _OF_TRIAL.match(name)
        if match is not None:
            found[int(match[1])][name] = value
    return found


def _with_artifacts(trial: FrozenTrial, names: Sequence[str]) -> FrozenTrial:
    if not names:
        return trial
    shown = copy.copy(trial)
    trial_id = trial._trial_id  # noqa: SLF001 - it stands in the address
    shown.system_attrs = trial.system_attrs | {
        f"{_ARTIFACT}{identity_of(trial_id, name)}": json.dumps(
            {
                "artifact_id": identity_of(trial_id, name),
                "filename": name,
                "mimetype": type_of(name).partition(";")[0],
                "encoding": None,
            }
        )
        for name in names
    }
    return shown
