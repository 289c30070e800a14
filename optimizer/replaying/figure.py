"""A race as a picture: the share of the hypervolume over price and over trials.

What is missing is drawn, on a logarithmic scale from the top: between 99 and 99.9 % lies as much
as between 90 and 99 %. Lines are medians over the seeds, bands reach from quartile to quartile.
Palette: Okabe & Ito 2008, then dashed.
"""

from collections.abc import Sequence
from io import BytesIO
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from optimizer.replaying.race import Runs
from optimizer.replaying.replay import Replayed
from optimizer.replaying.standing import SHARES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INCHES = (13.0, 6.0)
_DPI = 150
_COLORS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7"),
    *("#E69F00", "#56B4E9", "#000000", "#999999"),
)
_STYLES = ("-", "--", ":")
_POINTS = 400  # of each line
_LEAST_MISSING = 1e-3  # 99.9 %: beyond it all is found for every purpose
_MOST_MISSING = 0.6
_TICKS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)


def png_of_race(raced: Sequence[Runs], title: str) -> bytes:
    """Draw a race into a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, layout="constrained")
    by_price, by_trials = figure.subplots(1, 2, sharey=True)
    styles = [(color, style) for style, color in product(_STYLES, _COLORS)]
    for at, one in enumerate(raced):
        color, style = styles[at % len(styles)]
        _draw(by_price, [_Curve(run, run.prices_s) for run in one.runs], one.name, (color, style))
        counts = [np.arange(1.0, run.rows.size + 1) for run in one.runs]
        curves = [_Curve(run, count) for run, count in zip(one.runs, counts, strict=True)]
        _draw(by_trials, curves, one.name, (color, style))
    by_price.set_ylim(_MOST_MISSING, 0.8 * min(_least_missing(one) for one in raced))
    _label(by_price, "price [s]: converting, building, scoring once; measuring each time")
    _label(by_trials, "trials")
    by_price.set_ylabel("share of the whole table's hypervolume [%]")
    by_trials.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    figure.suptitle(f"{title} (median and quartiles)", x=0.01, ha="left")
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


class _Curve:
    """The share of one run as a step function of what was spent."""

    def __init__(self, run: Replayed, spent: NDArray[np.float64]) -> None:
        self._spent = spent
        self._shares = np.concatenate([[0.0], run.shares])
        self._has_ended = run.has_ended

    @property
    def span(self) -> tuple[float, float]:
        """From where to where it is known."""
        return float(self._spent[0]), float(self._spent[-1])

    def at(self, spent: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the shares; NaN beyond where a run was stopped that had not ended."""
        shares = self._shares[np.searchsorted(self._spent, spent, side="right")]
        is_unknown = (spent > self._spent[-1]) & (not self._has_ended)
        return np.where(is_unknown, np.nan, shares)


def _draw(axes: "Axes", curves: Sequence[_Curve], name: str, look: tuple[str, str]) -> None:
    spans = [one.span for one in curves]
    first, last = min(low for low, _ in spans), max(high for _, high in spans)
    spent = np.geomspace(max(first, last * 1e-6), last, _POINTS)
    shares = np.stack([one.at(spent) for one in curves])
    is_known = ~np.isnan(shares).any(axis=0)  # as far as all runs go
    low, median, high = np.quantile(shares[:, is_known], (0.25, 0.5, 0.75), axis=0)
    color, style = look
    axes.plot(spent[is_known], _missing(median), color=color, linestyle=style, label=name)
    axes.fill_between(
        spent[is_known], _missing(high), _missing(low), color=color, alpha=0.12, linewidth=0
    )


def _least_missing(raced: Runs) -> float:
    """Return the least that any run missed, but a tenth at most so that there is room."""
    shares = [float(run.shares.max(initial=0.0)) for run in raced.runs]
    return min(0.1, *(float(_missing(np.array(share))) for share in shares))


def _missing(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(1 - shares, _LEAST_MISSING, None)


def _label(axes: "Axes", what: str) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(FixedLocator([1 - tick for tick in _TICKS]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda missing, _: f"{(1 - missing) * 100:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda spent, _: f"{spent:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    for share in SHARES:
        axes.axhline(1 - share, color="#BBBBBB", linewidth=0.8, zorder=0)
    axes.grid(visible=True, axis="x", color="#EEEEEE", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(what)
