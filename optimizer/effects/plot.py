"""An effect as a picture: a panel for each metric, every pair a dot, the typical effect a line.

Along an ordered axis the typical effects of the steps are multiplied up (added up, for scores)
from the first value; each pair is a dot at the same base as its step. Bars are the 95 % intervals
of the single steps, and a value whose step has none is hollow. A step without pairs breaks the
line. Palette: Okabe & Ito 2008.
"""

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from optimizer.effects.effect import Effect, MetricEffect
from trials.measurement import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANEL_INCHES = (4.6, 4.0)
_DPI = 150
_GREY, _BLUE, _BLACK = "#999999", "#0072B2", "#000000"
_SPREAD = 0.12  # of the distance of two values, that dots are moved aside at most


def png_of_effect(found: Effect, title: str) -> bytes:
    """Draw an effect into a PNG file."""
    from matplotlib.figure import Figure

    wide, high = _PANEL_INCHES
    figure = Figure(figsize=(wide * len(found.metrics), high), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(found.metrics)))
    for axes, one in zip(panels, found.metrics, strict=True):
        _draw(axes, one, found)
    legend = "dots: pairs; hollow: too few to tell"
    figure.suptitle(f"{title} ({legend})", x=0.01, ha="left")
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def _draw(axes: "Axes", one: MetricEffect, found: Effect) -> None:
    first = one.steps[0].before
    places, levels = [0], [1.0 if one.is_ratio else 0.0]
    random = np.random.default_rng(0)  # dots only
    for at, step in enumerate(one.steps, start=1):
        base = levels[-1] if found.ordered else levels[0]
        if np.isnan(base):
            base = levels[0]  # after a gap the line begins anew
        aside = random.uniform(-_SPREAD, _SPREAD, len(step.effects))
        effects = np.array(step.effects)
        axes.scatter(
            at + aside, base * effects if one.is_ratio else base + effects, s=9, c=_GREY, zorder=2
        )
        places.append(at)
        if step.effect is None:
            levels.append(float("nan"))
            continue
        levels.append(_moved(base, step.effect.value, is_ratio=one.is_ratio))
        _draw_interval(axes, at, base, step.effect, is_ratio=one.is_ratio)
    joined = "-" if found.ordered else ""
    axes.plot(places, levels, linestyle=joined, color=_BLUE, zorder=3)
    sure = [True, *(step.effect is not None and step.effect.low is not None for step in one.steps)]
    faces = [_BLUE if is_sure else "white" for is_sure in sure]
    axes.scatter(places, levels, s=36, c=faces, edgecolors=_BLUE, zorder=4)
    axes.axhline(levels[0], color=_BLACK, linewidth=0.6)
    axes.set_xticks(places, [str(first), *(str(step.after) for step in one.steps)])
    _label(axes, one, found)


def _label(axes: "Axes", one: MetricEffect, found: Effect) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator

    axes.tick_params(axis="x", labelrotation=30 if not found.ordered else 0)
    axes.set_xlabel(found.axis)
    axes.set_title(one.metric.label, fontsize="medium", loc="left")
    axes.set_ylabel(f"{'times' if one.is_ratio else 'minus'} that at {one.steps[0].before}")
    if one.is_ratio:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda _value, _: ""))
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_interval(
    axes: "Axes", at: int, base: float, effect: Estimate, *, is_ratio: bool
) -> None:
    if effect.low is None or effect.high is None:
        return
    ends = [_moved(base, end, is_ratio=is_ratio) for end in (effect.low, effect.high)]
    axes.plot([at, at], ends, color=_BLUE, linewidth=2.5, alpha=0.6, zorder=3)


def _moved(base: float, effect: float, *, is_ratio: bool) -> float:
    return base * effect if is_ratio else base + effect
