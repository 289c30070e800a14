"""The latencies of one trial as a picture: where they lie, how long the tail is, what is known.

Both axes are logarithmic, because a tail of a few slow requests in a thousand is what a p99 is
about and a linear axis hides it. Percentiles are those of the trial's own numbers, with the 95 %
intervals that the blocks give (see ``trials.measuring.statistics``); an upper limit that is not
known runs to the edge of the picture.
"""

import math
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from optimizer.front.words import text_of
from trials.measurement import Block, Estimate, Seconds
from trials.measuring.statistics import quantiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE_INCHES = (8.0, 4.5)
_DPI = 120
_MS_PER_S = 1e3
_LEVELS = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
# Okabe & Ito 2008, told apart by the colour-blind; and dashes, for print
_LOOKS = (("#0072B2", "solid"), ("#009E73", "dashed"), ("#D55E00", "dotted"))
_GREY = "#BBBBBB"
_LEAST_BINS, _MOST_BINS = 20, 160  # fewer hide two humps, more cannot be seen
_LABELLED_DECADES = 3  # beyond, labels between powers of ten would touch
_LEAST_MS = 1e-6  # a nanosecond: no time at all has no place on a logarithmic axis
_LEAST_WIDTH = 0.02  # decades shown on each side of latencies that are all alike


def png_of_latencies(blocks: Sequence[Block], title: str) -> bytes:
    """Draw the latencies of all requests of a trial.

    Args:
        blocks: Raw blocks, in order of time.
        title: Stands above.

    Raises:
        ValueError: No block, or a block without requests.
    """
    buffer = BytesIO()
    figure_of_latencies(blocks, title).savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def figure_of_latencies(blocks: Sequence[Block], title: str) -> "Figure":
    """Draw the latencies of all requests of a trial; see :func:`png_of_latencies`.

    Raises:
        ValueError: No block, or a block without requests.
    """
    from matplotlib.figure import Figure

    estimates = quantiles(blocks, [level for _, level in _LEVELS])
    latencies_ms = np.concatenate([block.latencies_s for block in blocks]) * _MS_PER_S
    latencies_ms = np.maximum(latencies_ms, _LEAST_MS)
    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    edges_ms = _edges(latencies_ms)
    axes.hist(latencies_ms, bins=edges_ms.tolist(), color=_GREY, edgecolor="none")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)  # a bin with one request is to be seen
    axes.set_xlim(edges_ms[0], edges_ms[-1])
    for (name, _), estimate, look in zip(_LEVELS, estimates, _LOOKS, strict=True):
        _mark(axes, name, estimate.scaled(_MS_PER_S), look)
    axes.set_xlabel("latency of a request [ms]")
    axes.set_ylabel("requests")
    axes.set_title(title, loc="left", fontsize="medium")
    axes.grid(visible=True, axis="x", which="major", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    counted = f"{latencies_ms.size:,} requests in {len(blocks)} blocks; 95 % intervals shaded"
    axes.legend(loc="best", title=counted, title_fontsize="small", fontsize="small")
    _write_plainly(axes)
    return figure


def _edges(latencies_ms: Seconds) -> Seconds:
    """Return edges of bins of equal ratio, as wide as Freedman & Diaconis (1981) say."""
    logs = np.log10(latencies_ms)
    low, high = float(logs.min()), float(logs.max())
    if high - low < _LEAST_WIDTH:
        low, high = low - _LEAST_WIDTH, high + _LEAST_WIDTH
    quarter, three_quarters = np.quantile(logs, (0.25, 0.75))
    width = 2 * float(three_quarters - quarter) / logs.size ** (1 / 3)
    wanted = math.ceil((high - low) / width) if width > 0 else _MOST_BINS
    bins = min(max(wanted, _LEAST_BINS), _MOST_BINS)
    margin = (high - low) / bins
    return np.asarray(np.logspace(low - margin, high + margin, bins + 3), dtype=np.float64)


def _mark(axes: "Axes", name: str, estimate: Estimate, look: tuple[str, str]) -> None:
    color, dashes = look
    left, right = axes.get_xlim()
    low = left if estimate.low is None else estimate.low
    high = right if estimate.high is None else estimate.high
    axes.axvspan(low, high, color=color, alpha=0.18, linewidth=0)
    label = f"{name}  {text_of(estimate)} ms"
    axes.axvline(estimate.value, color=color, linestyle=dashes, linewidth=1.6, label=label)


def _write_plainly(axes: "Axes") -> None:
    """Write 0.5 and 20 on the axes, not powers of ten, which a narrow range does not even show."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    plain = FuncFormatter(lambda value, _: f"{value:g}")
    left, right = axes.get_xlim()
    decades = math.log10(right / left)
    axes.xaxis.set_major_formatter(plain)
    axes.xaxis.set_minor_formatter(plain if decades <= _LABELLED_DECADES else NullFormatter())
    between = (2, 3, 4, 6, 8) if decades <= 1 else (2, 5)
    axes.xaxis.set_minor_locator(LogLocator(subs=between, numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
