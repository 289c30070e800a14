"""Make, find and open studies.

A study carries the meaning of its space. It refuses to go on with a space that means something
else (another model content, another axis value, another way to measure), because numbers from two
spaces in one study would be compared as if they were alike.
"""

import uuid
import warnings
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path

import optuna
from optuna.study import Study

from optimizer.errors import StudyError
from optimizer.study.attributes import (
    DIGESTS,
    ENVIRONMENT,
    FORMAT,
    FORMAT_ATTRIBUTE,
    IDENTITY,
    MEANING,
    SPACE,
    SPACE_FILE,
)
from optimizer.study.objectives import sampler_name
from optimizer.study.records import json_from_space
from optimizer.study.storage import public_url, storage_errors
from optimizer.study.study import SearchStudy
from optimizer.study.turns import turn_of
from search_spaces.meaning import first_difference, meaning_of
from search_spaces.space import SearchSpace
from trials.bench import BenchFacts


def open_study(
    storage: optuna.storages.BaseStorage,
    url: str,
    name: str,
    *,
    space: SearchSpace,
    facts: BenchFacts,
) -> SearchStudy:
    """Make a study, or go on with the one of that name if it means the same.

    Raises:
        StudyError: The study of that name is of another space; the message names the first key.
        StorageError: The storage is out of reach.
    """
    meaning = meaning_of(space, digests=dict(facts.digests))
    turn = turn_of(storage, name)
    with storage_errors(url), nullcontext() if turn is None else turn():
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=[objective.direction.value for objective in space.objectives],
            load_if_exists=True,
        )
        attributes = study.user_attrs
        if FORMAT_ATTRIBUTE not in attributes:
            _sign(study, space, facts, meaning)
        elif (difference := first_difference(attributes.get(MEANING, {}), meaning)) is not None:
            raise StudyError(
                f"study '{name}' is of another space than {space.source}: {difference}",
                hint="undo the change, or start a new study with --study NAME",
            )
    return SearchStudy(study, url, turn)


def find_study(storage: optuna.storages.BaseStorage, url: str, name: str | None) -> SearchStudy:
    """Open a study to read it; without a name, the one that was used last.

    Raises:
        StudyError: There is none of that name, or none at all.
        StorageError: The storage is out of reach.
    """
    with storage_errors(url):
        summaries = optuna.get_all_study_summaries(storage, include_best_trial=False)
        ours = [summary for summary in summaries if FORMAT_ATTRIBUTE in summary.user_attrs]
        if not ours:
            raise StudyError(
                f"there is no study in {public_url(url)} yet",
                hint="`trifront search fake` makes one in seconds",
            )
        names = [summary.study_name for summary in ours]
        if name is None:
            latest = max(ours, key=lambda summary: summary.datetime_start or datetime.min)  # noqa: DTZ901
            name = latest.study_name
        if name not in names:
            raise StudyError(
                f"there is no study '{name}'", hint=f"the studies here: {', '.join(names)}"
            )
        return SearchStudy(optuna.load_study(study_name=name, storage=storage), url)


def _sign(study: Study, space: SearchSpace, facts: BenchFacts, meaning: dict[str, object]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([sampler_name(objective.metric) for objective in space.objectives])
    study.set_user_attr(IDENTITY, uuid.uuid4().hex[:12])
    study.set_user_attr(MEANING, meaning)
    study.set_user_attr(SPACE, json_from_space(space))
    study.set_user_attr(SPACE_FILE, Path(space.source).read_text(encoding="utf-8"))
    study.set_user_attr(DIGESTS, dict(facts.digests))
    study.set_user_attr(ENVIRONMENT, dict(facts.environment))
    study.set_user_attr(FORMAT_ATTRIBUTE, FORMAT)  # last: a study without it was not finished
