"""The latencies of one trial as a picture: every request, with the percentiles that are reported.

Both axes are logarithmic: a tail of one request in ten thousand is what a p99.9 is made of, and a
linear axis would hide it. Percentiles carry their 95 % interval as a band; where the data give no
upper limit the band runs to the edge and the label says so. Palette: Okabe & Ito 2008.
"""

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trials.measurement import Block, Estimate
from trials.measuring.statistics import quantiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE_INCHES = (8.0, 4.5)
_DPI = 120
_MS_PER_S = 1e3
_BINS = 80
_FRAME = (0.1, 0.12, 0.88, 0.75)  # left, bottom, width, height, as shares of the picture
_TITLE = 0.89  # its foot; a title of the axes would be laid out anew for each picture
_MARGIN = 0.03  # of the axis on either side, on its log scale
_LEAST_MARGIN = 1.02  # as a ratio, where all requests took the same time
_FURTHEST = 1e-6  # a request of no time at all has no place on a log axis
_WIDE = 4.0  # below this ratio of its ends an axis has too few round numbers for log ticks
_LEAST_COUNT = 0.7  # one request is a bar that can be seen
_MOST_COUNT = 15.0  # at least, so that the axis shows 1 and 10
_MARKS = ((0.5, "p50", "#0072B2"), (0.9, "p90", "#E69F00"), (0.99, "p99", "#D55E00"))


def png_of_latencies(blocks: Sequence[Block], title: str) -> bytes:
    """Draw the latencies of all requests; see :func:`figure_of_latencies`.

    Raises:
        ValueError: No block, or one without requests.
    """
    buffer = BytesIO()
    figure_of_latencies(blocks, title).savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def figure_of_latencies(blocks: Sequence[Block], title: str) -> "Figure":
    """Draw the latencies of all requests as a histogram in milliseconds.

    Raises:
        ValueError: No block, or one without requests.
    """
    from matplotlib.figure import Figure

    marks = quantiles(blocks, [level for level, _, _ in _MARKS])
    latencies_ms = np.concatenate([block.latencies_s for block in blocks]) * _MS_PER_S
    figure = Figure(figsize=_SIZE_INCHES)
    axes = figure.add_axes(_FRAME)
    edges = _edges(latencies_ms)
    counts, _ = np.histogram(latencies_ms, edges)
    axes.stairs(counts, edges, fill=True, color="#AAAAAA")
    for estimate, (_, name, color) in zip(marks, _MARKS, strict=True):
        _mark(axes, estimate.scaled(_MS_PER_S), name, color, right=float(edges[-1]))
    _scale(axes, edges, most=float(counts.max()))
    requests = f"{len(latencies_ms):,} requests, blocks: {len(blocks)}, 95 % intervals"
    figure.text(_FRAME[0], _TITLE, f"{title}\n{requests}", va="bottom")
    axes.legend(loc="upper right", framealpha=0.9)
    return figure


def _scale(axes: "Axes", edges: NDArray[np.float64], *, most: float) -> None:
    """Make both axes logarithmic, with ticks that read as milliseconds and requests."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

    wide = edges[-1] / edges[0] > _WIDE
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(6))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xlabel("latency [ms]")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(_LEAST_COUNT, max(_MOST_COUNT, most * 1.5))
    axes.set_ylabel("requests")


def _edges(latencies_ms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return bin edges with equal ratios that hold every latency, shape ``(bins + 1,)``."""
    high = latencies_ms.max()
    low = max(latencies_ms.min(), high * _FURTHEST)
    margin = max((high / low) ** _MARGIN, _LEAST_MARGIN)
    return np.geomspace(low / margin, high * margin, _BINS + 1)


def _mark(axes: "Axes", estimate: Estimate, name: str, color: str, *, right: float) -> None:
    """Draw a percentile as a line with its interval as a band."""
    low = estimate.value if estimate.low is None else estimate.low
    high = right if estimate.high is None else estimate.high
    upper = "no upper limit" if estimate.high is None else f"{estimate.high:.4g}"
    label = f"{name}  {estimate.value:.4g} ms  [{low:.4g}, {upper}]"
    axes.axvspan(low, high, color=color, alpha=0.2, linewidth=0)
    axes.axvline(estimate.value, color=color, linewidth=1.5, label=label)
