"""The front as a picture: log axes, error bars, readable in print and by the colour-blind.

Two objectives span the axes; a third is the colour. Members of the front are large circles, joined
by a step line where there are two objectives; what cannot be told apart from them are diamonds.
Dominated deployments are small and grey, those that miss a bound hollow and grey. An interval
without a limit ends in an arrow. Palette: Okabe & Ito 2008 and the perceptually uniform *cividis*.
"""

from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from optimizer.errors import UsageError
from optimizer.front.front import Front
from optimizer.study.records import TrialRecord
from search_spaces.metrics import Scale
from search_spaces.space import Objective
from trials.measurement import Estimate
from trials.outcome import Completed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

_SIZE_INCHES = (9.0, 6.0)
_DPI = 150
_ARROW_POINTS = 26  # beyond the marker of a member and the ring around the knee
_GREY = "#999999"
_VERMILION = "#D55E00"
_BLACK = "#000000"
_BLUE = "#0072B2"
_MEMBERS = "front ({}), 95 % intervals"

_Group: TypeAlias = tuple[dict[str, Any], Sequence[TrialRecord]]
"""What matplotlib's ``scatter`` is told of some records, and these records."""


def png_of_front(front: Front, title: str) -> bytes:
    """Draw a front of two or more objectives; see :func:`figure_of_front`.

    Raises:
        UsageError: Fewer than two objectives.
    """
    buffer = BytesIO()
    figure_of_front(front, title).savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def figure_of_front(front: Front, title: str) -> "Figure":
    """Draw a front of two or more objectives.

    The first two objectives are the axes, the third the colour; others are named as not shown.

    Raises:
        UsageError: Fewer than two objectives.
    """
    from matplotlib.figure import Figure

    if len(front.objectives) < 2:  # noqa: PLR2004 - a plane needs two axes
        only = front.objectives[0].metric.name
        raise UsageError(
            f"a picture needs two objectives, this study has {only} alone",
            hint="`--csv` writes every trial; a study with more objectives can be drawn",
        )
    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    _draw_crowd(axes, front)
    _draw_members(axes, front)
    for set_label, set_scale, objective in (
        (axes.set_xlabel, axes.set_xscale, front.objectives[0]),
        (axes.set_ylabel, axes.set_yscale, front.objectives[1]),
    ):
        set_label(f"{objective.metric.label}, {_better(objective)} is better")
        set_scale("log" if objective.metric.scale is Scale.LOG else "linear")
    hidden = [objective.metric.label for objective in front.objectives[3:]]
    axes.set_title(f"{title}; not shown: {', '.join(hidden)}" if hidden else title, loc="left")
    axes.grid(visible=True, which="major", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", framealpha=0.9)
    else:
        axes.text(0.5, 0.5, "nothing was measured", transform=axes.transAxes, ha="center")
    return figure


def _draw_crowd(axes: "Axes", front: Front) -> None:
    x, y = front.objectives[:2]
    if front.dominated:
        axes.scatter(
            _values(front.dominated, x),
            _values(front.dominated, y),
            s=12,
            c=_GREY,
            alpha=0.7,
            linewidths=0,
            label=f"dominated ({len(front.dominated)})",
        )
    if front.missed:
        axes.scatter(
            _values(front.missed, x),
            _values(front.missed, y),
            s=16,
            facecolors="none",
            edgecolors=_GREY,
            linewidths=0.7,
            marker="s",
            label=f"misses a bound ({len(front.missed)})",
        )


def _draw_members(axes: "Axes", front: Front) -> None:
    if not front.candidates:
        return
    x, y = front.objectives[:2]
    _draw_intervals(axes, front)
    looks = [
        (front.members, {"s": 48, "marker": "o", "label": _MEMBERS.format(len(front.members))}),
        (front.ties, {"s": 26, "marker": "D", "label": f"tied with it ({len(front.ties)})"}),
    ]
    groups = [
        (
            {"x": _values(records, x), "y": _values(records, y), "edgecolors": _BLACK, **look},
            records,
        )
        for records, look in looks
        if records
    ]
    if len(front.objectives) > 2:  # noqa: PLR2004 - a third objective is the colour
        _draw_colored(axes, groups, front)
    else:
        _draw_plain(axes, groups, front)
    if front.knee is not None:
        axes.scatter(
            _values([front.knee], x),
            _values([front.knee], y),
            s=190,
            marker="o",
            facecolors="none",
            edgecolors=_VERMILION,
            linewidths=2,
            zorder=5,
            label=f"knee: trial {front.knee.number}",
        )


def _draw_colored(axes: "Axes", groups: Sequence[_Group], front: Front) -> None:
    """Draw members and ties in the colour of the third objective, on one scale for all."""
    third = front.objectives[2]
    norm = _norm(third, [one.record for one in front.candidates])
    for look, records in groups:
        colors = _values(records, third)
        axes.scatter(c=colors, cmap="cividis", norm=norm, linewidths=0.6, zorder=4, **look)
    assert axes.figure is not None
    bar = axes.figure.colorbar(
        axes.collections[-1], ax=axes, label=f"{third.metric.label}, {_better(third)} is better"
    )
    only = set(_values([one.record for one in front.candidates], third))
    if len(only) == 1:  # around one value a scale would go on to what cannot be
        bar.set_ticks([*only], labels=[f"{value:.3g}" for value in only])
        bar.minorticks_off()


def _draw_plain(axes: "Axes", groups: Sequence[_Group], front: Front) -> None:
    x, y = front.objectives[:2]
    # what lies behind the line is beaten by a member: corners have the worse of both values
    line = (_values(front.members, x), _values(front.members, y))
    axes.plot(*line, drawstyle="steps-post", color=_BLUE, linewidth=1, zorder=2)
    for look, records in groups:
        axes.scatter(c=_BLUE if records == front.members else "white", zorder=4, **look)


def _draw_intervals(axes: "Axes", front: Front) -> None:
    """Draw error bars where limits are known, and an arrow of fixed length where one is not."""
    x, y = front.objectives[:2]
    axes.errorbar(
        _values(front.members, x),
        _values(front.members, y),
        xerr=_bars(front.members, x),
        yerr=_bars(front.members, y),
        fmt="none",
        ecolor=_BLACK,
        elinewidth=0.8,
        capsize=2,
        zorder=3,
    )
    arrows = list(_arrows(front.members, x, y))
    for point, towards in arrows:
        axes.annotate(
            "",
            xy=point,
            xytext=towards,
            textcoords="offset points",
            arrowprops={"arrowstyle": "<|-", "facecolor": _BLACK, "shrinkA": 0, "shrinkB": 0},
            zorder=3,
        )
    if arrows:
        axes.plot([], [], color=_BLACK, marker=">", markersize=5, label="no limit is known")


def _arrows(
    records: Sequence[TrialRecord], x: Objective, y: Objective
) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    """Yield (point, offset in points) for every limit of an interval that is not known."""
    for record in records:
        point = (_estimate(record, x).value, _estimate(record, y).value)
        for objective, (right, up) in ((x, (1.0, 0.0)), (y, (0.0, 1.0))):
            estimate = _estimate(record, objective)
            if estimate.high is None:
                yield point, (right * _ARROW_POINTS, up * _ARROW_POINTS)
            if estimate.low is None:
                yield point, (-right * _ARROW_POINTS, -up * _ARROW_POINTS)


def _norm(objective: Objective, records: Sequence[TrialRecord]) -> "Normalize":
    from matplotlib.colors import LogNorm, Normalize

    values = _values(records, objective)
    kind = LogNorm if objective.metric.scale is Scale.LOG else Normalize
    return kind(vmin=min(values), vmax=max(values))


def _better(objective: Objective) -> str:
    return "lower" if objective.direction.value == "minimize" else "higher"


def _estimate(record: TrialRecord, objective: Objective) -> Estimate:
    assert isinstance(record.outcome, Completed)
    return record.outcome.metric(objective.metric.name)


def _values(records: Sequence[TrialRecord], objective: Objective) -> list[float]:
    return [_estimate(record, objective).value for record in records]


def _bars(records: Sequence[TrialRecord], objective: Objective) -> NDArray[np.float64]:
    """Return error bars of shape ``(2, records)``; an unknown limit has no bar."""
    estimates = [_estimate(record, objective) for record in records]
    below = [one.value - (one.value if one.low is None else one.low) for one in estimates]
    above = [(one.value if one.high is None else one.high) - one.value for one in estimates]
    return np.maximum([below, above], 0.0)
