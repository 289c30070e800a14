"""Processes whose lines are not counted."""

import os

_COUNTING = "COVERAGE_"  # by which coverage finds the processes that its own start


def untraced() -> dict[str, str]:
    """Give the environment for a process that runs foreign code, or ours as a document says.

    Counting makes it half again as slow, and tells nothing: the lines of MLflow's server are not
    ours, and those that a tutorial runs are counted where a test looks at them closely.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith(_COUNTING)}
