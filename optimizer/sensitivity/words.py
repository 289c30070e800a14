"""A sensitivity as a table and lines for people, and as one JSON document."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from optimizer.front.words import number
from optimizer.sensitivity.sensitivity import KEEPING_BACKENDS, Sensitivity
from trials.measurement import Estimate
from trials.sensitivity import LayerEffect

if TYPE_CHECKING:
    from rich.table import Table

_POINTS = 100  # percentage points


def table_of_sensitivity(found: Sensitivity) -> "Table":
    """Lay the layers out, the most sensitive first, below what lowering all of them does."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column(f"lowered to {found.precision}")
    table.add_column("weights", overflow="fold")
    unit = "points" if _is_share(found.whole) else found.whole.metric
    table.add_column(Text(f"{found.whole.metric} [{unit}]"), justify="right")
    table.add_column(Text("signal/noise [dB]"), justify="right")
    rows = [("", f"all {len(found.layers)} layers", "", found.whole)]
    rows += [
        (str(rank), layer.name, layer.weight, effect)
        for rank, (layer, effect) in enumerate(found.layers, start=1)
    ]
    for rank, name, weight, effect in rows:
        table.add_row(*map(Text, (rank, name, weight, _change(effect), _decibels(effect))))
    return table


def lines_of_sensitivity(found: Sensitivity) -> Iterator[str]:
    """Yield what stands below the table: how it was ranked, and what to do with it."""
    certain = sum(effect.is_certain_loss for _, effect in found.layers)
    yield (
        f"{found.variant} against itself in fp32 on the {found.samples:,} samples of the "
        f"{found.split} split; paired 95 % intervals in brackets"
    )
    costs = f"{certain} layers cost" if certain > 1 else f"{certain or 'no'} layer costs"
    yield (
        f"{costs} {found.whole.metric} for certain when lowered alone (without ?; by Holm's rule "
        "over all of them); the others are ranked by their noise"
    )
    for _, effect in found.layers:
        if effect.problem:
            yield f"{effect.layer}: {effect.problem}"
    if not found.may_keep_layers:
        yield (
            f"these are layers of its ONNX model; backend {found.backend} keeps none of them in "
            f"fp32, those that take axes.keep_layers are {' and '.join(KEEPING_BACKENDS)}"
        )
    elif found.split == "calibration":
        yield "axes.keep_layers: [0, 1, 2] in a space keeps so many of the first of them in fp32"
    else:
        yield "keep_layers ranks on the calibration split, which may order them otherwise"


def data_of_sensitivity(found: Sensitivity) -> dict[str, object]:
    """Return a sensitivity as JSON data; a ratio of signal to noise without noise is null."""
    return {
        "variant": found.variant,
        "precision": found.precision.value,
        "split": found.split,
        "samples": found.samples,
        "metric": found.whole.metric,
        "all_layers": _data(found.whole),
        "layers": [
            {
                "rank": rank,
                "layer": layer.name,
                "operator": layer.operator,
                "weights": layer.weight or None,
                "parameters": layer.parameters,
                **_data(effect),
            }
            for rank, (layer, effect) in enumerate(found.layers, start=1)
        ],
    }


def _data(effect: LayerEffect) -> dict[str, object]:
    ratio_db = effect.signal_to_noise_db
    change = effect.change
    return {
        "change": None if change is None else change.difference.value,
        "low": None if change is None else change.difference.low,
        "high": None if change is None else change.difference.high,
        "differing": None if change is None else change.differing,
        "doubt": None if change is None else change.doubt,
        "certain_loss": effect.is_certain_loss,
        "signal_to_noise_db": ratio_db if math.isfinite(ratio_db) else None,
        "problem": effect.problem,
    }


def _is_share(effect: LayerEffect) -> bool:
    return effect.metric == "accuracy"


def _change(effect: LayerEffect) -> str:
    if effect.change is None:
        return "unusable"
    if effect.change.differing == 0:
        return "same answers"
    factor = _POINTS if _is_share(effect) else 1
    return _signed(effect.change.difference, factor) + ("" if effect.is_certain_loss else " ?")


def _signed(estimate: Estimate, factor: int) -> str:
    value, low, high = (
        None if each is None else f"{each * factor:+.2f}"
        for each in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value} [{low or '−∞'}, {high or '∞'}]"


def _decibels(effect: LayerEffect) -> str:
    ratio_db = effect.signal_to_noise_db
    if math.isinf(ratio_db):
        return "no noise" if ratio_db > 0 else "—"
    return number(ratio_db)
