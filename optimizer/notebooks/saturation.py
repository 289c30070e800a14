"""A saturation to look at, as frames and as a picture."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimizer.front.words import short
from optimizer.notebooks.html import cells_of, html_of
from optimizer.saturation.result import Saturation
from optimizer.saturation.words import lines_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_MS_PER_S = 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class SaturationView:
    """How far a deployment can be loaded, to look at; in a notebook it shows itself.

    Attributes:
        saturation: The finding itself.
    """

    saturation: Saturation

    @property
    def trial(self) -> int:
        """Number of the trial."""
        return self.saturation.trial

    @property
    def kept_rps(self) -> float | None:
        """The highest rate that keeps the promise, requests/s; None where none tried does."""
        return self.saturation.kept_rps

    def concurrencies(self) -> "pd.DataFrame":
        """Return what closed loops showed: throughput and latencies by requests in flight.

        Returns:
            One row a concurrency, which is the index; each metric with ``.low`` and ``.high``, NaN
            where a limit is not known; ``flags``.
        """
        import pandas as pd

        rows = [
            {
                "concurrency": one.concurrency,
                **cells_of("throughput_sps", one.speed.throughput_sps),
                **cells_of("latency_p50_ms", one.speed.latency_p50_s.scaled(_MS_PER_S)),
                **cells_of("latency_p99_ms", one.speed.latency_p99_s.scaled(_MS_PER_S)),
                "flags": list(one.flags),
            }
            for one in self.saturation.closed
        ]
        return pd.DataFrame(rows, columns=None if rows else ["concurrency"]).set_index(
            "concurrency"
        )

    def rates(self) -> "pd.DataFrame":
        """Return what open loops showed: whether each rate kept the promise, and its latencies.

        Returns:
            One row a rate in requests/s, which is the index: ``promise``, each promised latency
            with ``.low`` and ``.high``, ``waiting_ms``, ``batch``, ``flags`` and ``reason``; NaN
            where there is no number.
        """
        import pandas as pd

        rows = []
        for one in self.saturation.open:
            row: dict[str, object] = {"rate_rps": one.rate_rps, "promise": one.standing.value}
            for bound in self.saturation.slo:
                row |= cells_of(bound.metric.name, one.latency_ms(bound.metric.name))
            waiting = None if one.queueing is None else one.queueing.wait_mean_s * _MS_PER_S
            row["waiting_ms"] = waiting
            row["batch"] = None if one.queueing is None else one.queueing.batch_mean
            rows.append(row | {"flags": list(one.flags), "reason": one.reason})
        return pd.DataFrame(rows, columns=None if rows else ["rate_rps"]).set_index("rate_rps")

    def plot(self) -> "Figure":
        """Draw both with matplotlib."""
        from optimizer.saturation.figure import figure_of_saturation

        return figure_of_saturation(self.saturation)

    def _repr_html_(self) -> str:
        found = self.saturation
        heading = f"trial {found.trial} of {found.study}: {short(found.deployment)}"
        return html_of(heading, [self.concurrencies(), self.rates()], lines_of(found))
