"""Field types of the space file: names, words, numbers and lists, each with its own complaint.

Every message here is a whole problem with its mend, because only the field knows what was wanted.
"""

import keyword
import re
import reprlib
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from search_spaces.deployment import LOAD_AXES, REQUIRED_AXES, Scalar
from search_spaces.spelling import nearest

COMPLAINT = "space"  # type of the errors whose message is already a problem and its mend

FORMAT_VERSION = 1

_LARGEST_COUNT = 1_000_000  # samples, pixels, requests; beyond any memory, so a typing slip
_MOST_IN_FLIGHT = 1_024  # one thread each
_LONGEST_DELAY_US = 60_000_000  # a minute; whoever waits longer has left
_LARGEST_NUMBER = 2**53  # beyond it a double, and so JSON, no longer tells integers apart
_SLIP = 0.8  # likeness to a required axis from which an option's name is taken for a slip


class _Short(reprlib.Repr):
    """The standard library's short form, also for integers that Python refuses to print."""

    def repr_int(self, x: int, level: int) -> str:
        del level  # an integer looks alike at any depth
        return repr(x) if abs(x) <= _LARGEST_NUMBER else "an integer beyond 2^53"


_SHORT = _Short()
_SHORT.maxstring = 60
_SHORT.maxother = 60


def shown(value: object) -> str:
    """Show a value from the file in one short line, whatever it is."""
    return _SHORT.repr(value)


def complaint(problem: str, *, key: str = "") -> PydanticCustomError:
    """Make the error of a field; ``key`` is appended to its place where the field is a mapping."""
    context = {"problem": problem, "key": key}
    return PydanticCustomError(COMPLAINT, "{problem}", context)


def _shaped(pattern: str, mend: str) -> AfterValidator:
    def check(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise complaint(f"{shown(text)} {mend}")
        return text

    return AfterValidator(check)


def _scalar(value: Any) -> Scalar:
    if isinstance(value, bool) or (isinstance(value, str) and value):
        return value
    if isinstance(value, int | float) and abs(value) <= _LARGEST_NUMBER:  # so no NaN either
        return value
    raise complaint(
        f"{shown(value)} is no option value; write a number below 2^53, true, false or text"
    )


def _distinct(values: list[Any]) -> list[Any]:
    seen = set()
    for value in values:
        if value in seen:
            raise complaint(f"{shown(value)} stands twice; keep one of the two")
        seen.add(value)
    return values


def _one_kind(values: list[Scalar]) -> list[Scalar]:
    kinds = {bool: "truth values", str: "text"}
    found = {kinds.get(type(value), "numbers") for value in values}
    if len(found) > 1:
        raise complaint(f"mixes {' and '.join(sorted(found))}; keep to one kind")
    return values


def _readable(version: int) -> int:
    if version > FORMAT_VERSION:
        raise complaint(
            f"{shown(version)} is newer than what this trifront reads; update trifront, or write "
            f"{FORMAT_VERSION} if that is what the file is"
        )
    if version < FORMAT_VERSION:
        raise complaint(f"{shown(version)} has never been one; write {FORMAT_VERSION}")
    return version


Version = Annotated[int, AfterValidator(_readable), WithJsonSchema({"const": FORMAT_VERSION})]
Name = Annotated[
    str,
    _shaped(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        "is no name; use up to 64 letters, digits, '.', '_' and '-', a letter or digit first",
    ),
]
FunctionName = Annotated[
    str,
    _shaped(
        r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*",
        "names no function; write it as package.module:function",
    ),
]
FilePath = Annotated[str, Field(min_length=1)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Dtype = Literal["float16", "float32", "float64", "int8", "int32", "int64", "uint8", "bool"]
Option = Annotated[
    Any,
    PlainValidator(_scalar),
    WithJsonSchema({"type": ["boolean", "integer", "number", "string"]}),
]
Distinct = AfterValidator(_distinct)
OptionValues = Annotated[
    list[Option], Field(min_length=1), AfterValidator(_one_kind), AfterValidator(_distinct)
]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what every generator of random numbers takes
Count = Annotated[int, Field(ge=1, le=_LARGEST_COUNT)]
Rate = Annotated[float, Field(gt=0, le=_LARGEST_COUNT)]
QueueDelay = Annotated[int, Field(ge=0, le=_LONGEST_DELAY_US)]
Concurrency = Annotated[int, Field(ge=1, le=_MOST_IN_FLIGHT)]


class Section(BaseModel):
    """A mapping in the file: unknown keys are refused, values are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def check_option_names(names: Iterable[str]) -> None:
    """Refuse axis names that no rule could speak of, and slips of the required axes.

    Raises:
        PydanticCustomError: The first such name.
    """
    for name in names:
        if re.fullmatch(r"[a-z][a-z0-9_]*", name) is None or keyword.iskeyword(name):
            raise complaint(
                "is no axis name; use lower-case letters, digits and '_', as the backend does",
                key=name,
            )
        if name in {"true", "false"}:
            raise complaint("is no axis name; rules read it as a truth value", key=name)
        meant = nearest(name, (*REQUIRED_AXES, *LOAD_AXES), cutoff=_SLIP)
        if meant is not None:
            raise complaint(f"is an unknown axis; did you mean {meant!r}?", key=name)
