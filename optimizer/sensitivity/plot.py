"""A sensitivity as a picture: noise of each layer as a bar, accuracy lost as a dot with interval.

Palette: Okabe & Ito 2008.
"""

import math
from io import BytesIO
from typing import TYPE_CHECKING

from optimizer.sensitivity.sensitivity import Sensitivity
from trials.sensitivity import LayerEffect

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDE_INCHES, _ROW_INCHES, _LEAST_INCHES = 10.0, 0.28, 3.0
_DPI = 150
_GREY, _BLUE, _ORANGE, _BLACK = "#999999", "#0072B2", "#D55E00", "#000000"


def png_of_sensitivity(found: Sensitivity) -> bytes:
    """Draw a sensitivity into a PNG file, the most sensitive layer on top."""
    from matplotlib.figure import Figure

    rows = len(found.layers) + 1
    high = max(_LEAST_INCHES, _ROW_INCHES * rows + 1.2)
    figure = Figure(figsize=(_WIDE_INCHES, high), layout="constrained")
    noise, score = figure.subplots(1, 2, sharey=True)
    effects = [found.whole, *(effect for _, effect in found.layers)]
    names = ["all layers", *(layer.weight or layer.name for layer, _ in found.layers)]
    _draw_noise(noise, effects)
    _draw_change(score, effects)
    noise.set_yticks(range(rows), names, fontsize="small")
    noise.invert_yaxis()
    figure.suptitle(
        f"{found.variant}: each layer alone in {found.precision}, {found.samples:,} samples of "
        f"the {found.split} split",
        x=0.01,
        ha="left",
    )
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def _draw_noise(axes: "Axes", effects: list[LayerEffect]) -> None:
    """Draw noise over signal, as amplitudes: longer is worse."""
    shares = [100 * 10 ** (-one.signal_to_noise_db / 20) for one in effects]
    places = [place for place, share in enumerate(shares) if math.isfinite(share)]
    axes.barh(
        places,
        [shares[place] for place in places],
        color=[_GREY if place == 0 else _BLUE for place in places],
        height=0.7,
    )
    for place, share in enumerate(shares):
        if not math.isfinite(share):
            axes.text(0, place, " unusable answers", va="center", color=_ORANGE, fontsize="small")
    axes.set_xlabel("noise in the outputs, % of the signal")
    axes.grid(visible=True, axis="x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_change(axes: "Axes", effects: list[LayerEffect]) -> None:
    factor = 100 if effects[0].metric == "accuracy" else 1
    for place, one in enumerate(effects):
        if one.change is None:
            continue
        found = one.change.difference
        color = _ORANGE if one.is_certain_loss else _GREY
        if found.low is not None and found.high is not None:
            axes.plot([found.low * factor, found.high * factor], [place, place], color=color)
        axes.scatter([found.value * factor], [place], s=22, color=color, zorder=3)
    axes.axvline(0, color=_BLACK, linewidth=0.6)
    unit = "points" if factor != 1 else "in its own unit"
    axes.set_xlabel(f"{effects[0].metric} against fp32, {unit} (orange: a certain loss)")
    axes.grid(visible=True, axis="x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
