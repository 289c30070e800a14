"""The hockey stick: latency over rate, and throughput over concurrency with its law.

Log axes, 95 % intervals as bars (an arrow where there is no upper limit), readable in print and
by the colour-blind: each series has a marker and a dash pattern of its own. Palette: Okabe & Ito
2008.
"""

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from optimizer.front.words import number, short
from optimizer.saturation.result import Saturation, Standing
from search_spaces.metrics import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_SIZE_INCHES = (11.0, 5.2)
_DPI = 150
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_MARKERS = "osD^"
_DASHES = ("solid", "dashed", "dashdot", "dotted")
_GREEN = "#009E73"
_GREY = "#777777"
_FROM = 0.8  # of the lowest rate, where the axis begins
_ALWAYS = ("latency_p50_ms", "latency_p99_ms")
_ARROW_POINTS = 22


def png_of_saturation(found: Saturation) -> bytes:
    """Draw a saturation; see :func:`figure_of_saturation`."""
    buffer = BytesIO()
    figure_of_saturation(found).savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def figure_of_saturation(found: Saturation) -> "Figure":
    """Draw both halves: rates on the left, concurrency on the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    figure.suptitle(f"trial {found.trial} of {found.study}: {short(found.deployment)}")
    _draw_rates(left, found)
    _draw_levels(right, found)
    return figure


def _draw_rates(axes: "Axes", found: Saturation) -> None:
    promised = {one.metric.name: one for one in found.slo}
    for at, name in enumerate(dict.fromkeys((*_ALWAYS, *promised))):
        _draw_latencies(axes, found, name, at)
        if name in promised:
            axes.axhline(promised[name].bound, color=_COLORS[at % 4], lw=0.9, ls=(0, (1, 1)))
            axes.annotate(
                f"{promised[name]}",
                (0.01, promised[name].bound),
                xycoords=("axes fraction", "data"),
                va="bottom",
                fontsize="small",
                color=_COLORS[at % 4],
            )
    for point in found.open:
        if point.standing is Standing.SATURATED:
            axes.axvline(point.rate_rps, color=_GREY, lw=0.8, ls=(0, (4, 3)), zorder=0)
    if any(point.standing is Standing.SATURATED for point in found.open):
        axes.plot([], [], color=_GREY, lw=0.8, ls=(0, (4, 3)), label="saturated: no number")
    if found.kept_rps is not None:
        label = f"kept up to {number(found.kept_rps)}/s"
        axes.axvspan(_FROM * found.open[0].rate_rps, found.kept_rps, color=_GREEN, alpha=0.1, lw=0)
        axes.axvline(found.kept_rps, color=_GREEN, lw=1.4, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    if found.open:
        axes.set_xlim(_FROM * found.open[0].rate_rps, found.open[-1].rate_rps / _FROM)
    _write_plainly(axes.xaxis, axes.yaxis)
    axes.set_xlabel("requests that come [1/s], open loop")
    axes.set_ylabel("latency from the due time [ms]")
    _grid(axes)
    _name_series(axes)


def _draw_latencies(axes: "Axes", found: Saturation, name: str, at: int) -> None:
    points = [point for point in found.open if point.speed is not None]
    if not points:
        return
    estimates = [estimate for point in points if (estimate := point.latency_ms(name)) is not None]
    values = np.array([one.value for one in estimates])
    lows = np.array([one.value if one.low is None else one.low for one in estimates])
    highs = np.array([one.value if one.high is None else one.high for one in estimates])
    rates = [point.rate_rps for point in points]
    axes.errorbar(
        rates,
        values,
        yerr=[values - lows, highs - values],
        color=_COLORS[at % 4],
        marker=_MARKERS[at % 4],
        ls=_DASHES[at % 4],
        ms=4.5,
        capsize=2.5,
        label=METRICS[name].label.removesuffix(" [ms]"),
    )
    for rate, one in zip(rates, estimates, strict=True):
        if one.high is None:
            axes.annotate(
                "",
                (rate, one.value),
                xytext=(0, _ARROW_POINTS),
                textcoords="offset points",
                arrowprops={"arrowstyle": "<-", "color": _COLORS[at % 4]},
            )


def _draw_levels(axes: "Axes", found: Saturation) -> None:
    levels = np.array([point.concurrency for point in found.closed], dtype=np.float64)
    estimates = [point.speed.throughput_sps for point in found.closed]
    values = np.array([one.value for one in estimates])
    lows = np.array([one.value if one.low is None else one.low for one in estimates])
    highs = np.array([one.value if one.high is None else one.high for one in estimates])
    axes.errorbar(
        levels,
        values,
        yerr=[values - lows, highs - values],
        color=_COLORS[0],
        marker="o",
        ls="none",
        ms=4.5,
        capsize=2.5,
        label="measured",
    )
    if found.scalability is not None:
        law = found.scalability.law
        fine = np.geomspace(levels[0], levels[-1], 200)
        axes.plot(fine, law.throughput_sps(fine), color=_COLORS[1], lw=1.2, label="fitted law")
        axes.plot(
            fine, law.alone_sps * fine, color=_GREY, lw=0.8, ls=(0, (1, 2)), label="in proportion"
        )
        knee = found.scalability.knee_concurrency
        if knee is not None:
            label = f"knee at {number(knee.value)}"
            axes.axvline(knee.value, color=_COLORS[2], lw=1.2, ls="dashdot", label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks(levels, labels=[f"{level:.0f}" for level in levels])
    axes.set_yscale("log")
    _write_plainly(axes.yaxis)
    axes.set_ylim(0.7 * lows.min(), 1.6 * highs.max())
    axes.set_xlabel("requests in flight, closed loop")
    axes.set_ylabel("throughput [samples/s]")
    _grid(axes)
    _name_series(axes)


def _write_plainly(*log_axes: "Axis") -> None:
    """Write 2,000 instead of 2 × 10³, at one, two and five of each decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for axis in log_axes:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        axis.set_minor_formatter(NullFormatter())


def _name_series(axes: "Axes") -> None:
    """Put the legend below, where it covers no point."""
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, fontsize="small", frameon=False
    )


def _grid(axes: "Axes") -> None:
    axes.grid(visible=True, which="major", color="#DDDDDD", linewidth=0.6)
