"""An axis and its values, as a user names them."""

from optimizer.errors import UsageError
from search_spaces.deployment import Scalar
from search_spaces.space import Axis, SearchSpace
from search_spaces.spelling import did_you_mean


def axis_named(name: str, space: SearchSpace) -> Axis:
    """Find an axis.

    Raises:
        UsageError: There is none of that name, or it has one value only.
    """
    known = [axis.name for axis in space.axes]
    if name not in known:
        raise UsageError(f"{name!r} is no axis of this space", hint=did_you_mean(name, known))
    axis = space.axis(name)
    if len(axis.values) == 1:
        raise UsageError(
            f"{name} is {axis.values[0]} everywhere in this space",
            hint="an axis of two values or more has an effect",
        )
    return axis


def value_named(text: str, axis: Axis) -> Scalar:
    """Find a value of an axis by how it is written.

    Raises:
        UsageError: It has none that is written so.
    """
    for value in axis.values:
        if str(value) == text:
            return value
    known = ", ".join(map(str, axis.values))
    raise UsageError(f"{axis.name} has no value {text}", hint=f"it has: {known}")
