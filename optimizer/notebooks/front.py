"""A front to look at, as a frame and as pictures."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from optimizer.front.front import Candidate, Front

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from plotly.graph_objects import Figure as InteractiveFigure


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontView:
    """A front to look at.

    Attributes:
        front: The front itself.
        title: Stands above its pictures.
    """

    front: Front
    title: str

    def table(self) -> "pd.DataFrame":
        """Return members and ties: standing, axes, and each metric with ``.low`` and ``.high``.

        Returns:
            One row a candidate, indexed by trial number, in order of the first objective.
        """
        import pandas as pd

        rows = [_row(one) for one in self.front.candidates]
        return pd.DataFrame(rows, columns=None if rows else ["trial"]).set_index("trial")

    def _repr_html_(self) -> str:
        from optimizer.front.words import summary_of_front
        from optimizer.notebooks.html import html_of

        return html_of(self.title, [self.table()], summary_of_front(self.front))

    @property
    def knee(self) -> int | None:
        """Number of the trial at the knee; None on an empty front."""
        return None if self.front.knee is None else self.front.knee.number

    def plot(self) -> "Figure":
        """Draw the front with matplotlib.

        Raises:
            UsageError: Fewer than two objectives.
        """
        from optimizer.front.plot import figure_of_front

        return figure_of_front(self.front, self.title)

    def figure(self) -> "InteractiveFigure":
        """Draw the front with plotly; in a notebook it shows itself.

        Raises:
            ValueError: Fewer than two objectives.
        """
        from optimizer.front.figures import plane_of_front

        return plane_of_front(self.front, self.title)


def _row(one: Candidate) -> dict[str, object]:
    from optimizer.front.data import rows_of_records

    standing: dict[str, object] = {
        "member": one.is_member,
        "probability": one.probability,
        "tied_with": list(one.tied_with),
        "bounds": one.bounds.value,
    }
    (row,) = rows_of_records([one.record])
    return {"trial": row.pop("trial"), **standing, **row}
