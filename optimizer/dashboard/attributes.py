"""Notes and figures as the attributes in which optuna-dashboard keeps them.

Names and lengths are those of optuna-dashboard 0.21, whose own functions cut and name them here.
"""

from collections.abc import Iterable, Mapping
from typing import Any


def attributes_of_note(
    body: str, stored: Mapping[str, Any], trial_id: int | None
) -> dict[str, Any]:
    """Return the attributes of a note, none where somebody wrote one that is not empty.

    Args:
        body: The note, in Markdown.
        stored: The study's attributes.
        trial_id: None for the study's own note.
    """
    from optuna_dashboard import _note

    if _note.get_note_from_system_attrs(dict(stored), trial_id)["body"]:
        return {}
    # the version as it is stored, so that the next one that somebody saves is its successor
    version = stored.get(_note.note_ver_key(trial_id), 0)
    return {_note.note_ver_key(trial_id): version, **_note.split_body(body, trial_id)}


def attributes_of_figures(figures: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return the attributes of plotly figures, given as (name, JSON)."""
    from optuna_dashboard._custom_plot_data import SYSTEM_ATTR_PLOT_DATA, split_plot_data

    return {
        key: part
        for name, text in figures
        for key, part in split_plot_data(text, f"{SYSTEM_ATTR_PLOT_DATA}{name}:").items()
    }
