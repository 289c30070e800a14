"""A comparison to look at, as a frame."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimizer.comparing.compare import Comparison
from optimizer.comparing.words import SPEED_WORDS, heading_of, lines_below, verdict_of
from optimizer.notebooks.html import cells_of, html_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonView:
    """A comparison of B with A to look at; in a notebook it shows itself.

    Attributes:
        comparison: The comparison itself.
    """

    comparison: Comparison

    @property
    def is_worse(self) -> bool:
        """Whether B is worse in anything."""
        return self.comparison.is_worse

    @property
    def verdict(self) -> str:
        """What it all comes to, in one line."""
        return verdict_of(self.comparison)

    def table(self) -> "pd.DataFrame":
        """Return each metric of both, how B differs, and what that decides.

        Returns:
            One row a metric, indexed by its name: ``of`` (speed or score), ``a``, ``b``,
            ``change`` (the ratio B / A of a speed, the difference B - A of a score), each with
            ``.low`` and ``.high``, NaN where a limit is not known; ``verdict`` in words.
        """
        import pandas as pd

        speeds = [
            {
                "metric": one.metric,
                "of": "speed",
                **cells_of("a", one.old),
                **cells_of("b", one.new),
                **cells_of("change", one.ratio),
                "verdict": SPEED_WORDS[one.verdict],
            }
            for one in self.comparison.speeds
        ]
        scores = [
            {
                "metric": one.metric,
                "of": "score",
                **cells_of("a", one.old),
                **cells_of("b", one.new),
                **cells_of("change", one.paired.difference),
                "verdict": str(one.verdict),
            }
            for one in self.comparison.scores
        ]
        rows = [*speeds, *scores]
        return pd.DataFrame(rows, columns=None if rows else ["metric"]).set_index("metric")

    def _repr_html_(self) -> str:
        lines = (*heading_of(self.comparison), *lines_below(self.comparison))
        return html_of(self.verdict, [self.table()], lines[:-1])  # the last is the verdict
