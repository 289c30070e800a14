"""The axis ``keep_layers``: how many layers stay in fp32, where a precision lowers them at all."""

from collections.abc import Iterator, Sequence

from search_spaces.deployment import KEEP_LAYERS, Precision
from search_spaces.errors import SpaceError
from search_spaces.rules import Rule, rule_from_text
from search_spaces.space import Axis

_WHOLE = (Precision.FP32.value, Precision.TF32.value)  # all layers are kept in them


def keep_rules(axes: Sequence[Axis]) -> Iterator[Rule]:
    """Yield what is true of every model in fp32: it keeps all of its layers.

    Without it, such deployments would be tried once for each number of kept layers, as if they
    differed.

    Raises:
        SpaceError: No value of the axis is left for a precision of the space.
    """
    values = {axis.name: axis.values for axis in axes}
    kept = values.get(KEEP_LAYERS, ())
    whole = [word for word in values["precision"] if word in _WHOLE]
    if not kept or not whole or set(kept) == {0}:
        return
    if 0 not in kept:
        raise SpaceError(
            f"leaves nothing for {whole[0]}, whose layers all stay as they are; add 0, or take "
            f"{whole[0]} out of axes.precision",
            key=f"axes.{KEEP_LAYERS}",
        )
    text = " and ".join(f"precision != {word!r}" for word in whole)
    names = [axis.name for axis in axes]
    yield rule_from_text(f"{KEEP_LAYERS} == 0 or {text}", axes=names)


def calibrated_by(axes: Sequence[Axis]) -> str | None:
    """Name what in a space needs calibration samples; None where nothing does."""
    values = {axis.name: axis.values for axis in axes}
    if Precision.INT8.value in values["precision"]:
        return "static int8"
    if Precision.FP8.value in values["precision"]:
        return "fp8"
    return KEEP_LAYERS if any(count != 0 for count in values.get(KEEP_LAYERS, ())) else None
