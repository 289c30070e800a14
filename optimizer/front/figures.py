"""The front as interactive figures: plotly, from a front alone, for any page that shows them.

Two objectives span a plane and a third is its colour; three objectives span a space. Axes are
logarithmic where ratios count. Members carry their 95 % intervals as error bars; a limit that is
not known has an arrow in the plane and says ``∞`` in the text that appears under the pointer.
Ties, which are beaten by point values but not for certain, are smaller and have intervals too.
Dominated deployments are small and grey, those that miss a bound are hollow.

Numbers are plain lists, so that a figure's JSON can be read by any version of plotly.js.
"""

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from optimizer.front.front import Front
from optimizer.front.words import short, standing_of, text_of
from optimizer.study.records import TrialRecord
from search_spaces.metrics import Scale
from search_spaces.space import Objective
from trials.measurement import Estimate
from trials.outcome import Completed

if TYPE_CHECKING:
    import plotly.graph_objects as go

_PLANE = 2
_SPACE = 3
_GREY = "#999999"
_LINE = "#DDDDDD"
_BLACK = "#000000"
_BLUE = "#0072B2"  # Okabe & Ito 2008, as the next
_SKY = "#56B4E9"
_VERMILION = "#D55E00"
_SCALE = "Cividis"  # perceptually uniform, readable by the colour-blind
_MANY = 1_000  # points from which on a browser draws faster on its graphics processor
_DIGITS = 5  # more cannot be seen, and a study of thousands is sent with every poll
_BEYOND_MARKER = 14  # pixels
_CORNER = {"x": 0.02, "xanchor": "left", "y": 0.98, "yanchor": "top"}


def figures_of_front(front: Front, title: str) -> "dict[str, go.Figure]":
    """Draw every figure that a front can have, by name: ``front-2d``, ``front-3d``.

    A front of one objective has none, of two the first, of more both, over the first objectives.
    """
    figures = {}
    if len(front.objectives) >= _PLANE:
        figures["front-2d"] = plane_of_front(front, title)
    if len(front.objectives) >= _SPACE:
        figures["front-3d"] = space_of_front(front, title)
    return figures


def plane_of_front(
    front: Front, title: str, *, objectives: Sequence[Objective] | None = None
) -> "go.Figure":
    """Draw a front over two objectives, a third as the colour.

    Args:
        front: What to draw.
        title: Stands above.
        objectives: Two or three of the front's, in the order x, y, colour; its first where None.

    Raises:
        ValueError: Fewer than two objectives.
    """
    import plotly.graph_objects as go

    chosen = tuple(front.objectives if objectives is None else objectives)[:_SPACE]
    if len(chosen) < _PLANE:
        raise ValueError(f"a plane has two axes, not {len(chosen)}")
    figure = go.Figure(layout=_layout(front, title, chosen))
    for axis, objective in (("xaxis", chosen[0]), ("yaxis", chosen[1])):
        figure.update_layout({axis: _axis(objective) | {"automargin": True}})
    figure.add_traces(list(_crowd(front, chosen[:_PLANE])))
    figure.add_traces(list(_ties(front, chosen[:_PLANE])))
    if front.members:
        figure.add_traces(list(_members_in_plane(front, chosen)))
    return figure


def space_of_front(
    front: Front, title: str, *, objectives: Sequence[Objective] | None = None
) -> "go.Figure":
    """Draw a front over three objectives.

    Args:
        front: What to draw.
        title: Stands above.
        objectives: Three of the front's, in the order x, y, z; its first where None.

    Raises:
        ValueError: Fewer than three objectives.
    """
    import plotly.graph_objects as go

    chosen = tuple(front.objectives if objectives is None else objectives)[:_SPACE]
    if len(chosen) < _SPACE:
        raise ValueError(f"a space has three axes, not {len(chosen)}")
    figure = go.Figure(layout=_layout(front, title, chosen))
    axes = zip(("xaxis", "yaxis", "zaxis"), chosen, strict=True)
    scene: dict[str, Any] = {
        axis: _axis(objective) | {"title": {"text": escape(objective.metric.label)}}
        for axis, objective in axes
    }
    camera = {"eye": {"x": 1.75, "y": 1.75, "z": 0.8}, "center": {"x": 0, "y": 0, "z": -0.1}}
    scene |= {"aspectmode": "cube", "camera": camera}
    figure.update_layout(scene=scene)
    figure.add_traces(list(_crowd(front, chosen)))
    figure.add_traces(list(_ties(front, chosen)))
    if front.members:
        figure.add_traces(list(_members_in_space(front, chosen)))
    return figure


def _layout(front: Front, title: str, chosen: Sequence[Objective]) -> dict[str, Any]:
    hidden = [one.metric.label for one in front.objectives if one not in chosen]
    text = f"{title}; not shown: {', '.join(hidden)}" if hidden else title
    return {
        "template": "none",
        "title": {"text": escape(text), "font": {"size": 15}, **_CORNER},
        "margin": {"l": 10, "r": 10, "t": 85, "b": 10},
        "legend": {"orientation": "h", "y": 1.01, "yanchor": "bottom", "x": 0},
        "hoverlabel": {"align": "left"},
        "paper_bgcolor": "#FFFFFF",
        "plot_bgcolor": "#FFFFFF",
        # a new figure of the same front must not throw away how somebody turned the last one
        "uirevision": "front",
    }


def _axis(objective: Objective) -> dict[str, Any]:
    return {
        "title": {"text": escape(_title(objective))},
        "type": "log" if objective.metric.scale is Scale.LOG else "linear",
        "gridcolor": _LINE,
        "zeroline": False,
        "exponentformat": "none",
        "separatethousands": True,
    }


def _crowd(front: Front, chosen: Sequence[Objective]) -> "Iterator[go.Scatter]":
    """Yield the deployments that are not on the front; thousands have no text of their own."""
    size = 5 if len(chosen) == _PLANE else 2
    looks: tuple[tuple[str, Sequence[TrialRecord], dict[str, str]], ...] = (
        ("dominated", front.dominated, {}),
        ("misses a bound", front.missed, {"symbol": "square-open"}),
    )
    for name, records, symbol in looks:
        if records:
            yield _scatter(len(chosen), many=len(records) > _MANY)(
                **_points(records, chosen),
                mode="markers",
                marker={"color": _GREY, "size": size, "opacity": 0.7, **symbol},
                name=f"{name} ({len(records)})",
                text=[str(record.number) for record in records],
                hovertemplate="trial %{text}<extra></extra>",
            )


def _ties(front: Front, chosen: Sequence[Objective]) -> "Iterator[go.Scatter]":
    """Yield who is beaten by point values alone, with the intervals that leave it open."""
    if not front.ties:
        return
    bars = {
        f"error_{axis}": _bars(front.ties, objective) | {"color": _GREY}
        for axis, objective in zip("xyz", chosen, strict=False)
    }
    yield _scatter(len(chosen), many=False)(
        **_points(front.ties, chosen),
        **bars,
        mode="markers",
        marker={
            "symbol": "diamond",
            "size": 7 if len(chosen) == _PLANE else 4,
            "color": _SKY,
            "line": {"color": _GREY, "width": 0.8},
        },
        name=f"tied with it ({len(front.ties)})",
        text=[_text(record, front) for record in front.ties],
        hovertemplate="%{text}<extra></extra>",
    )


def _members_in_plane(front: Front, chosen: Sequence[Objective]) -> "Iterator[go.Scatter]":
    import plotly.graph_objects as go

    x, y = chosen[:_PLANE]
    points = _points(front.members, (x, y))
    if len(front.objectives) == _PLANE:
        # what lies behind the line is beaten by a member: corners have the worse of both values,
        # and members stand in order of the first objective, best first
        shape = "hv" if x == front.objectives[0] else "vh"
        line = {"shape": shape, "color": _BLUE, "width": 1}
        yield go.Scatter(**points, mode="lines", line=line, hoverinfo="skip", showlegend=False)
    look: dict[str, Any] = {"color": _BLUE}
    if len(chosen) > _PLANE:
        bar = {"title": {"text": escape(_title(chosen[_PLANE])), "side": "right"}, "thickness": 15}
        look = {**_color(front, chosen[_PLANE]), "colorbar": bar}
    yield go.Scatter(
        **points,
        mode="markers",
        marker={"size": 10, "line": {"color": _BLACK, "width": 0.8}, **look},
        error_x=_bars(front.members, x),
        error_y=_bars(front.members, y),
        name=f"front ({len(front.members)}), 95 % intervals",
        text=[_text(record, front) for record in front.members],
        hovertemplate="%{text}<extra></extra>",
    )
    yield from _arrows(front, x, y)
    yield from _ring(front, (x, y), size=20)


def _members_in_space(front: Front, chosen: Sequence[Objective]) -> "Iterator[go.Scatter3d]":
    import plotly.graph_objects as go

    x, y, z = chosen
    yield go.Scatter3d(
        **_points(front.members, chosen),
        mode="markers",
        # the height says the same, so no bar takes the place of the picture
        marker={"size": 5, "line": {"color": _BLACK, "width": 1}, **_color(front, z)},
        error_x=_bars(front.members, x),
        error_y=_bars(front.members, y),
        error_z=_bars(front.members, z),
        name=f"front ({len(front.members)}), 95 % intervals",
        text=[_text(record, front) for record in front.members],
        hovertemplate="%{text}<extra></extra>",
    )
    yield from _ring(front, chosen, size=12)


def _ring(front: Front, chosen: Sequence[Objective], *, size: int) -> "Iterator[go.Scatter]":
    if front.knee is not None:
        yield _scatter(len(chosen), many=False)(
            **_points([front.knee], chosen),
            mode="markers",
            marker={
                "symbol": "circle-open",
                "size": size,
                "color": _VERMILION,
                "line": {"color": _VERMILION, "width": 3},
            },
            name=f"knee: trial {front.knee.number}",
            hoverinfo="skip",
        )


def _arrows(front: Front, x: Objective, y: Objective) -> "Iterator[go.Scatter]":
    """Yield arrows of fixed length for limits that are not known, as one trace."""
    import plotly.graph_objects as go

    found = [
        (record, angle)
        for record in front.members
        for objective, upwards in ((x, 90), (y, 0))
        for angle in _unknown(_estimate(record, objective), upwards)
    ]
    if found:
        yield go.Scatter(
            **_points([record for record, _ in found], (x, y)),
            mode="markers",
            marker={
                # plotly moves a marker against its own direction, and not the other way
                "symbol": "triangle-down",
                "size": 7,
                "color": _BLACK,
                "angle": [angle + 180 for _, angle in found],
                "standoff": _BEYOND_MARKER,
            },
            name="no limit is known",
            hoverinfo="skip",
        )


def _unknown(estimate: Estimate, upwards: int) -> Iterator[int]:
    """Yield the directions, in degrees clockwise from up, in which an interval has no end."""
    if estimate.high is None:
        yield upwards
    if estimate.low is None:
        yield upwards + 180


def _color(front: Front, objective: Objective) -> dict[str, Any]:
    return {
        "color": [_shown(_estimate(record, objective).value) for record in front.members],
        "colorscale": _SCALE,
    }


def _title(objective: Objective) -> str:
    better = "lower" if objective.direction.value == "minimize" else "higher"
    return f"{objective.metric.label}, {better} is better"


def _text(record: TrialRecord, front: Front) -> str:
    """Say of a member or a tie what stands under the pointer."""
    candidate = front.candidate(record)
    assert candidate is not None
    knee = ", the knee" if record is front.knee else ""
    standing = standing_of(candidate)
    lines = [
        f"trial {record.number}{knee}" + (f", {standing}" if standing else ""),
        short(record.outcome.deployment),
        *(f"{one.metric.label}: {text_of(_estimate(record, one))}" for one in front.objectives),
    ]
    return "<br>".join(escape(line) for line in lines)


def _scatter(axes: int, *, many: bool) -> "type[go.Scatter]":
    import plotly.graph_objects as go

    kind: type[go.Scatter] = go.Scatter3d if axes == _SPACE else go.Scatter
    return go.Scattergl if many and axes == _PLANE else kind


def _points(records: Sequence[TrialRecord], chosen: Sequence[Objective]) -> dict[str, list[float]]:
    return {
        axis: [_shown(_estimate(record, objective).value) for record in records]
        for axis, objective in zip("xyz", chosen, strict=False)
    }


def _bars(records: Sequence[TrialRecord], objective: Objective) -> dict[str, Any]:
    """Return error bars; a limit that is not known has none."""
    estimates = [_estimate(record, objective) for record in records]
    return {
        "type": "data",
        "symmetric": False,
        "array": [0.0 if one.high is None else _shown(one.high - one.value) for one in estimates],
        "arrayminus": [
            0.0 if one.low is None else _shown(one.value - one.low) for one in estimates
        ],
        "color": _BLACK,
        "thickness": 1,
        "width": 2,
    }


def _shown(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _estimate(record: TrialRecord, objective: Objective) -> Estimate:
    assert isinstance(record.outcome, Completed)
    return record.outcome.metric(objective.metric.name)
