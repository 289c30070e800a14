"""Is there a deployment at all? Rules are tried on the axes' values when a space is made.

Every rule is asked at every point of the axes that it names, so that a rule that has no meaning
somewhere (a division by zero, text where a number is wanted) is refused here and cannot stop a
search in the middle.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from search_spaces.deployment import Scalar
from search_spaces.errors import SpaceError
from search_spaces.rules import Rule
from search_spaces.space import Axis

MOST_POINTS = 10_000_000  # seconds to enumerate; a larger space is a slip of the pen


def check_rules(axes: Sequence[Axis], rules: Sequence[Rule]) -> None:
    """Refuse a space that is too large, has a rule without meaning, or no point that all allow.

    Raises:
        SpaceError: With the number of points, or the rule at fault.
    """
    points = math.prod(len(axis.values) for axis in axes)
    if points > MOST_POINTS:
        raise SpaceError(
            f"the axes span {points:,} points, at most {MOST_POINTS:,} are searched; "
            "take values out",
            key="axes",
        )
    for position, rule in enumerate(rules):
        _check_alone(axes, rule, key=f"rules[{position}]")
    named = frozenset[str]().union(*(rule.names for rule in rules))
    if not any(all(rule.allows(point) for rule in rules) for point in _points(axes, named)):
        raise SpaceError(
            "no deployment passes the rules; each alone leaves some, together they leave none, "
            "so loosen one",
            key="rules",
        )


def _check_alone(axes: Sequence[Axis], rule: Rule, *, key: str) -> None:
    allowed = False
    for point in _points(axes, rule.names):
        try:
            allowed |= rule.allows(point)
        except SpaceError as error:
            where = ", ".join(f"{name} = {value!r}" for name, value in sorted(point.items()))
            raise SpaceError(
                f"rule {rule.text!r} has no meaning at {where}: {error.problem}", key=key
            ) from error
    if not allowed:
        raise SpaceError(
            f"no deployment passes the rules, because {rule.text!r} alone forbids all; loosen it "
            "or widen its axes",
            key=key,
        )


def _points(axes: Sequence[Axis], names: frozenset[str]) -> Iterator[Mapping[str, Scalar]]:
    named = [axis for axis in axes if axis.name in names]
    for values in product(*(axis.values for axis in named)):
        yield {axis.name: value for axis, value in zip(named, values, strict=True)}
