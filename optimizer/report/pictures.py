"""Pictures of a report that need no script: SVG, readable in print and by the colour-blind.

Latencies stand on a logarithmic axis, because a tail is a matter of factors. Palette: Okabe & Ito
2008, each colour with a dash pattern of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

import numpy as np

from optimizer.front.words import short
from optimizer.study.records import TrialRecord
from trials.measurement import Block, Calibration, Estimate, Seconds
from trials.outcome import Completed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_DASHES = ("solid", "dashed", "dashdot", "dotted")
_GREY = "#BBBBBB"
_WIDTH_INCHES = 9.0
_ROW_INCHES = 0.34
_MARGIN_INCHES = 1.0
_BINS = 80
_MS_PER_S = 1e3
_PERCENTILES = (
    ("latency_p50_ms", "p50", "o", _COLORS[0]),
    ("latency_p90_ms", "p90", "s", _COLORS[2]),
    ("latency_p99_ms", "p99", "D", _COLORS[1]),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A measured trial and its raw blocks."""

    record: TrialRecord
    outcome: Completed
    blocks: tuple[Block, ...]

    @property
    def name(self) -> str:
        """Return what the picture calls it."""
        return f"{self.record.number}  {short(self.outcome.deployment)}"

    @property
    def latencies_ms(self) -> Seconds:
        """Return all latencies, shape ``(requests,)``, milliseconds."""
        return np.concatenate([block.latencies_s for block in self.blocks]) * _MS_PER_S


def svg_of_distributions(trials: Sequence[Measured]) -> str:
    """Draw a row a trial: where its latencies lie, and its percentiles with 95 % intervals."""
    figure, axes = _figure(len(trials))
    low = min(float(one.latencies_ms.min()) for one in trials)
    high = max(float(np.quantile(one.latencies_ms, 0.9999)) for one in trials)
    edges = np.geomspace(low / 1.1, high * 1.1, _BINS + 1)
    for row, one in enumerate(trials):
        counts = np.histogram(one.latencies_ms, edges)[0]
        heights = 0.42 * np.sqrt(counts / max(1, counts.max()))  # roots show what is rare
        axes.stairs(row - heights, edges, baseline=row + heights, fill=True, color=_GREY)
        for name, _, marker, color in _PERCENTILES:
            _draw_estimate(axes, one.outcome.metric(name), row, marker=marker, color=color)
    for _, label, marker, color in _PERCENTILES:
        axes.plot([], [], linestyle="none", marker=marker, color=color, label=label)
    axes.set_xscale("log")
    axes.set_xlabel("latency of a request [ms]")
    _name_rows(axes, [one.name for one in trials])
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False)
    return svg_of(figure)


def svg_of_tails(trials: Sequence[Measured]) -> str:
    """Draw which share of requests took longer than so long, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_INCHES, 5.0), layout="constrained")
    axes = figure.subplots()
    for number, one in enumerate(trials):
        latencies_ms = np.sort(one.latencies_ms)
        shares = 1 - np.arange(latencies_ms.size) / latencies_ms.size
        at = np.unique(np.geomspace(1, latencies_ms.size, 400).astype(np.intp))
        axes.step(
            latencies_ms[latencies_ms.size - at],
            shares[latencies_ms.size - at],
            where="pre",
            color=_COLORS[number % len(_COLORS)],
            linestyle=_DASHES[number // len(_COLORS) % len(_DASHES)],
            label=one.name,
        )
    for share, label in ((0.1, "p90"), (0.01, "p99"), (0.001, "p99.9")):
        axes.axhline(share, color=_GREY, linewidth=0.8, zorder=0)
        axes.annotate(label, (1, share), xycoords=("axes fraction", "data"), va="center")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("latency of a request [ms]")
    axes.set_ylabel("share of requests that took longer")
    axes.legend(loc="lower left", fontsize="small", framealpha=0.9)
    return svg_of(figure)


def svg_of_reliability(engines: Mapping[str, Calibration]) -> str:
    """Draw a small diagram an engine: stated confidence against the share that was right."""
    from matplotlib.figure import Figure

    columns = min(4, len(engines))
    rows = -(-len(engines) // columns)
    figure = Figure(figsize=(2.25 * columns + 0.4, 2.5 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (name, calibration) in zip(grid, engines.items(), strict=False):
        confidences = [one.confidence for one in calibration.bins]
        axes.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8)
        axes.plot(confidences, [one.accuracy for one in calibration.bins], "o-", ms=3)
        axes.set_title(
            f"{name}\nECE {calibration.ece:.3f}, by chance {calibration.ece_null:.3f}",
            fontsize="small",
        )
    for axes in grid[len(engines) :]:
        axes.set_axis_off()
    low = min(one.confidence for each in engines.values() for one in each.bins)
    grid[0].set_xlim(max(0.0, low - 0.05), 1.01)
    figure.supxlabel("stated confidence", fontsize="medium")
    figure.supylabel("share that was right", fontsize="medium")
    return svg_of(figure)


def svg_of_cohorts(engines: Mapping[str, Sequence[tuple[str, Estimate]]]) -> str:
    """Draw a row a cohort and a mark an engine: its score with the 95 % interval."""
    cohorts = list(dict.fromkeys(name for scores in engines.values() for name, _ in scores))
    figure, axes = _figure(len(cohorts), taller=0.1 * len(engines))
    for number, (engine, scores) in enumerate(engines.items()):
        color, offset = _COLORS[number % len(_COLORS)], (number + 0.5) / len(engines) - 0.5
        for cohort, score in scores:
            row = cohorts.index(cohort) + 0.7 * offset
            _draw_estimate(axes, score, row, marker="o", color=color)
        axes.plot([], [], linestyle="none", marker="o", color=color, label=engine)
    axes.set_xlabel("score, higher is better")
    _name_rows(axes, cohorts)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize="small", frameon=False)
    return svg_of(figure)


def svg_of_concurrency(series: Mapping[str, Sequence[TrialRecord]]) -> str:
    """Draw throughput over concurrency, a line an engine that was served at several."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_INCHES, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, (name, records) in enumerate(series.items()):
        estimates = []
        for record in records:
            assert isinstance(record.outcome, Completed)
            estimates.append(record.outcome.metric("throughput_sps"))
        axes.errorbar(
            [record.outcome.deployment.concurrency for record in records],
            [one.value for one in estimates],
            yerr=np.transpose([_reach(one) for one in estimates]),
            color=_COLORS[number % len(_COLORS)],
            linestyle=_DASHES[number // len(_COLORS) % len(_DASHES)],
            marker="o",
            capsize=2,
            label=name,
        )
    levels = sorted(
        {one.outcome.deployment.concurrency for each in series.values() for one in each}
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(levels, labels=[str(level) for level in levels])
    axes.set_yscale("log")
    axes.set_xlabel("concurrency, requests in flight")
    axes.set_ylabel("throughput [samples/s]")
    axes.grid(visible=True, which="major", color="#DDDDDD", linewidth=0.6)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small", frameon=False)
    return svg_of(figure)


def _figure(rows: int, *, taller: float = 0.0) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    height = _MARGIN_INCHES + rows * (_ROW_INCHES + taller)
    figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
    return figure, figure.subplots()


def _name_rows(axes: "Axes", names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), labels=list(names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=True, axis="x", which="major", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_estimate(
    axes: "Axes", estimate: Estimate, row: float, *, marker: str, color: str
) -> None:
    """Draw a value and its interval; where a limit is not known the bar ends in an arrow."""
    below, above = _reach(estimate)
    axes.errorbar(
        estimate.value,
        row,
        xerr=[[below], [above]],
        marker=marker,
        color=color,
        markersize=5,
        capsize=2,
        xlolims=False,
    )
    if estimate.high is None:
        axes.annotate(
            "",
            xy=(estimate.value, row),
            xytext=(18, 0),
            textcoords="offset points",
            arrowprops={"arrowstyle": "<|-", "color": color, "shrinkA": 0, "shrinkB": 0},
        )


def _reach(estimate: Estimate) -> tuple[float, float]:
    low = estimate.value if estimate.low is None else estimate.low
    high = estimate.value if estimate.high is None else estimate.high
    return max(0.0, estimate.value - low), max(0.0, high - estimate.value)


def svg_of(figure: "Figure") -> str:
    """Write a figure as SVG, the same text for the same picture."""
    from matplotlib import rc_context

    buffer = StringIO()
    # no date, no random identifiers; letters stay letters
    with rc_context({"svg.hashsalt": "trifront", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
