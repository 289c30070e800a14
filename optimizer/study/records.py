"""The record of one finished trial: what the study, MLflow, the front and an export are made from.

The study's database holds the outcome as one JSON attribute; the raw blocks lie beside it in the
workspace as Parquet, because a database is no place for a million latencies.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from pydantic import ConfigDict, TypeAdapter, ValidationError

from optimizer.errors import StudyError
from search_spaces.space import SearchSpace
from trials.measurement import Quality
from trials.outcome import Completed, Outcome

# Arrays pass through unserialized; the only ones, raw blocks, are taken out first. An infinite
# score of a user's metric would be written as null, which cannot be read back.
_CONFIG = ConfigDict(arbitrary_types_allowed=True, ser_json_inf_nan="constants")
_OUTCOME: TypeAdapter[Outcome] = TypeAdapter(Outcome, config=_CONFIG)
_QUALITY: TypeAdapter[Quality] = TypeAdapter(Quality)
_SPACE: TypeAdapter[SearchSpace] = TypeAdapter(SearchSpace)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One finished trial.

    Attributes:
        uid: Unique over all studies: the study's id and the trial's number.
        number: Optuna's trial number in its study.
        study: Name of the study.
        started_s: Begin, seconds since the epoch; likewise ``finished_s``.
    """

    uid: str
    number: int
    study: str
    outcome: Outcome
    started_s: float
    finished_s: float


@contextmanager
def legible(what: str) -> Iterator[None]:
    """Map what cannot be read of a study to one line.

    Raises:
        StudyError: It is not as this version writes it.
    """
    try:
        yield
    except (ValidationError, KeyError) as error:
        cause = f"{error} is missing"
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            cause = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        raise StudyError(
            f"{what} cannot be read: {cause}",
            hint="read it with the trifront that wrote it, or put back a copy of the database",
        ) from error


def json_from_outcome(outcome: Outcome) -> str:
    """Serialize an outcome without its raw blocks."""
    if isinstance(outcome, Completed):
        outcome = replace(outcome, blocks=())
    return _OUTCOME.dump_json(outcome).decode()


def outcome_from_json(text: str) -> Outcome:
    """Read an outcome back; its blocks stay empty.

    Raises:
        pydantic.ValidationError: Not an outcome that this version can read.
    """
    return _OUTCOME.validate_json(text)


def json_from_quality(quality: Quality) -> str:
    """Serialize a quality."""
    return _QUALITY.dump_json(quality).decode()


def quality_from_json(text: str) -> Quality:
    """Read a quality back.

    Raises:
        pydantic.ValidationError: Not a quality that this version can read.
    """
    return _QUALITY.validate_json(text)


def json_from_space(space: SearchSpace) -> str:
    """Serialize a space as it was understood, paths included."""
    return _SPACE.dump_json(space).decode()


def space_from_json(text: str) -> SearchSpace:
    """Read a space back.

    Raises:
        pydantic.ValidationError: Not a space that this version can read.
    """
    return _SPACE.validate_json(text)
