"""What pydantic found wrong in words for people: of each error the key, the value and the mend.

Pydantic reports every error with its own place and words. The one that explains most stands first,
the others below it, a line each, so that a file is mended in one go.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import BaseModel, ValidationError

from search_spaces.arrivals_document import (
    ConstantDocument,
    DayDocument,
    GammaDocument,
    PoissonDocument,
    StepsDocument,
    TraceDocument,
)
from search_spaces.document import (
    FakeDocument,
    MeasureDocument,
    SpaceDocument,
    TorchDocument,
    VariantDocument,
)
from search_spaces.errors import SpaceError
from search_spaces.field_types import COMPLAINT, shown
from search_spaces.spelling import did_you_mean, nearest
from search_spaces.task_document import (
    ALIKE,
    EACH,
    FILES,
    ONE,
    FilesDocument,
    OneFileDocument,
    PreprocessDocument,
    SharesDocument,
    TaskDocument,
)

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_MOST_TOLD = 10  # errors; beyond them a file was meant as something else

_Context: TypeAlias = dict[str, Any]
_Place: TypeAlias = tuple[int | str, ...]

# the section that stands under a key (or a tag), for the keys that it knows
_SECTIONS: dict[int | str, type[BaseModel]] = {
    FILES: FilesDocument,
    ONE: OneFileDocument,
    "fake": FakeDocument,
    "measure": MeasureDocument,
    "preprocess": PreprocessDocument,
    "split": SharesDocument,
    "task": TaskDocument,
    "torch": TorchDocument,
    "variants": VariantDocument,
}

# `arrivals` is read by its kind, which pydantic puts into the place
_ARRIVALS: dict[int | str, type[BaseModel]] = {
    "constant": ConstantDocument,
    "day": DayDocument,
    "gamma": GammaDocument,
    "poisson": PoissonDocument,
    "steps": StepsDocument,
    "trace": TraceDocument,
}

_MENDS: dict[str, Callable[[_Context], str]] = {
    "int_type": lambda _: "is not a whole number; write one such as 1",
    "float_type": lambda _: "is not a number; write one such as 0.5",
    "finite_number": lambda _: "is not finite; write a number such as 0.5",
    "string_type": lambda _: "is not text; put it in quotes",
    "bool_type": lambda _: "is not a truth value; write true or false",
    "list_type": lambda _: "is not a list; write one such as [1, 2]",
    "dict_type": lambda _: "is not a mapping; write `key: value` lines",
    "model_type": lambda _: "is not a mapping; write `key: value` lines",
    "model_attributes_type": lambda _: "is not a mapping; write `key: value` lines",
    "invalid_key": lambda _: "is not text; put the key in quotes",
    "too_long": lambda context: f"is too long; give {context['max_length']}",
    "string_too_short": lambda _: "is empty; write something",
    "greater_than": lambda context: f"is too small; it must be > {context['gt']:.10g}",
    "greater_than_equal": lambda context: f"is too small; it must be >= {context['ge']:.10g}",
    "less_than": lambda context: f"is too large; it must be < {context['lt']:.10g}",
    "less_than_equal": lambda context: f"is too large; it must be <= {context['le']:.10g}",
}


def space_error_from_validation(error: ValidationError, *, source: str) -> SpaceError:
    """Tell all errors, a line each, the first unknown key first."""
    found = error.errors(include_url=False)
    # a slip in a needed key is two errors, of which the unknown key says more than the missing one
    found.sort(key=lambda one: one["type"] != "extra_forbidden")
    meant = {_meant(one["loc"]) for one in found if one["type"] == "extra_forbidden"}
    found = [one for one in found if one["type"] != "missing" or one["loc"] not in meant]
    (key, problem), *others = map(_told, found)
    lines = [f"  {where}: {what}" for where, what in others[: _MOST_TOLD - 1]]
    untold = len(found) - _MOST_TOLD
    if untold > 0:
        lines.append(f"  and {untold} more")
    return SpaceError("\n".join((problem, *lines)), source=source, key=key)


def _meant(place: _Place) -> _Place:
    """Return the place of the key that an unknown one is a slip of, where there is such a key."""
    return (*place[:-1], nearest(str(place[-1]), _siblings(place)) or "")


def _told(one: "ErrorDetails") -> tuple[str, str]:
    """Return the key of an error, and the value and mend in words."""
    context: _Context = one.get("ctx", {})
    place: _Place = one["loc"]
    if context.get("key"):
        place = (*place, context["key"])
    return _key(place), _problem(one["type"], one["input"], place=place, context=context)


def _problem(kind: str, value: object, *, place: _Place, context: _Context) -> str:
    match kind:
        case _ if kind == COMPLAINT:
            problem = str(context["problem"])
        case "extra_forbidden":
            problem = f"is an unknown key; {did_you_mean(str(place[-1]), _siblings(place))}"
        case "missing":
            problem = "is missing; add it (`trifront schema` says what it takes)"
        case "union_tag_not_found" | "union_tag_invalid":
            problem = _kind(context)
        case _ if value is None:
            problem = "has no value; fill it in or remove the key"
        case "literal_error" | "enum":
            problem = f"{shown(value)} is not known; {_choice(value, str(context['expected']))}"
        case "too_short":
            least = context["min_length"]
            problem = f"{shown(value) if value else 'is empty'}; give at least {least}"
        case _:
            problem = f"{shown(value)} {_MENDS[kind](context)}"
    return problem


def _kind(context: _Context) -> str:
    kinds = [str(kind) for kind in _ARRIVALS]
    if "tag" not in context:
        return f"has no kind; write one of {', '.join(kinds)}"
    tag = str(context["tag"])
    return f"kind {shown(tag)} is not known; {did_you_mean(tag, kinds)}"


def _choice(value: object, expected: str) -> str:
    words = re.findall(r"'([^']*)'", expected)
    return did_you_mean(str(value), words) if words else f"write {expected}"


def _siblings(place: _Place) -> list[str]:
    parents = [part for part in place[:-1] if isinstance(part, str)]
    if parents[-2:-1] == ["arrivals"]:
        return list(_ARRIVALS[parents[-1]].model_fields)
    section = _SECTIONS[parents[-1]] if parents else SpaceDocument
    return list(section.model_fields)


def _key(place: _Place) -> str:
    key = ""
    for before, part in zip(("", *place), place, strict=False):
        if before == "arrivals":
            continue  # its kind, which stands below it in the file
        if isinstance(part, int):
            key += f"[{part}]"
        elif part in {FILES, ONE, ALIKE, EACH, "[key]"}:
            continue
        else:
            word = part if part.isprintable() else shown(part)
            key += f".{word}" if key else word
    return key
