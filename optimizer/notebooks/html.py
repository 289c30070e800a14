"""How a result shows itself in a notebook: a heading, its tables, and the lines below them."""

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from trials.measurement import Estimate


def html_of(heading: str, tables: "Iterable[pd.DataFrame]", lines: Iterable[str]) -> str:
    """Write a result as HTML; what users named is escaped."""
    parts = [f"<p><b>{escape(heading)}</b></p>"]
    parts += [table.to_html(na_rep="", float_format="{:.4g}".format) for table in tables]
    parts += [f"<p>{escape(line)}</p>" for line in lines]
    return "\n".join(parts)


def cells_of(name: str, estimate: "Estimate | None") -> dict[str, float | None]:
    """Return the columns of an estimate: ``name``, ``name.low`` and ``name.high``."""
    if estimate is None:
        return {name: None, f"{name}.low": None, f"{name}.high": None}
    return {name: estimate.value, f"{name}.low": estimate.low, f"{name}.high": estimate.high}
