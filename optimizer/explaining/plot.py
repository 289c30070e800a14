"""An explanation as a picture: what each trial promised, and what was believed before it came.

In the left panel a dot for each trial, at the gain that was expected of it; hollow where its
engine was not built yet. Beside it a panel for each objective: the 95 % interval that was believed
over the value that was measured; intervals that miss the diagonal were wrong. Palette: Okabe & Ito
2008.
"""

from io import BytesIO
from typing import TYPE_CHECKING

from optimizer.explaining.explain import Belief, Explanation, Reason
from search_spaces.metrics import METRICS, Scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANEL_INCHES = (4.4, 4.0)
_DPI = 150
_BLUE, _ORANGE, _BLACK = "#0072B2", "#D55E00", "#000000"


def png_of_explanation(found: Explanation, title: str) -> bytes:
    """Draw an explanation into a PNG file."""
    from matplotlib.figure import Figure

    pairs: dict[str, list[tuple[Belief, float]]] = {}
    for reason in found.reasons:
        for belief in reason.expected:
            if reason.measured and not belief.is_known:
                pairs.setdefault(belief.metric, []).append(
                    (belief, dict(reason.measured)[belief.metric])
                )
    wide, high = _PANEL_INCHES
    figure = Figure(figsize=(wide * (1 + len(pairs)), high), layout="constrained")
    gains, *others = figure.subplots(1, 1 + len(pairs), squeeze=False)[0]
    _draw_gains(gains, found.reasons)
    for axes, (metric, known) in zip(others, pairs.items(), strict=True):
        _draw_beliefs(axes, metric, known)
    figure.suptitle(title, x=0.01, ha="left")
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def _draw_gains(axes: "Axes", reasons: tuple[Reason, ...]) -> None:
    known = [(one, one.gain) for one in reasons if one.gain is not None and one.gain > 0]
    axes.scatter(
        [one.number or 0 for one, _ in known],
        [100 * gain for _, gain in known],
        s=28,
        c=["white" if one.shared_s else _BLUE for one, _ in known],
        edgecolors=_BLUE,
        zorder=3,
    )
    axes.set_yscale("log")
    axes.set_xlabel("trial (hollow: a new engine)")
    axes.set_title("expected gain [% of the box]", fontsize="medium", loc="left")
    _grid(axes)


def _draw_beliefs(axes: "Axes", metric: str, known: list[tuple[Belief, float]]) -> None:
    for belief, value in known:
        color = _BLUE if belief.covers(value) else _ORANGE
        axes.plot([value, value], [belief.low, belief.high], color=color, alpha=0.7, zorder=2)
        axes.plot(value, belief.value, "o", markersize=3.5, color=color, zorder=3)
    measured = [value for _, value in known]
    ends = [min(measured), max(measured)]
    axes.plot(ends, ends, color=_BLACK, linewidth=0.8, zorder=1)
    if METRICS[metric].scale is Scale.LOG:
        axes.set_xscale("log")
        axes.set_yscale("log")
    covered = sum(belief.covers(value) for belief, value in known)
    axes.set_xlabel(f"measured ({covered} of {len(known)} as believed)")
    axes.set_title(f"believed {METRICS[metric].label}", fontsize="medium", loc="left")
    _grid(axes)


def _grid(axes: "Axes") -> None:
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
