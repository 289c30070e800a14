"""Errors of the search.

::

    OptimizerError
    ├── StudyError      a study that cannot be opened, resumed or found
    ├── WorkspaceError  a workspace folder that cannot be written
    ├── StorageError    a study database that cannot be reached, is locked or full
    ├── TrackingError   an MLflow server or store that refuses a record, or a record that is none
    │   └── UnavailableError  one that refuses everything, or does not answer
    ├── ExportError     an export that cannot be written
    ├── BundleError     an exported folder that is not what was exported
    ├── TableError      a deployment table that is none, or that cannot be made
    ├── SpaceExhaustedError  every allowed deployment has been tried
    └── UsageError      options that contradict each other
"""


class OptimizerError(Exception):
    """Base of everything that ``optimizer`` raises on purpose; ``hint`` says what to do next."""

    def __init__(self, problem: str, *, hint: str = "") -> None:
        self.problem = problem
        self.hint = hint
        super().__init__(problem)


class StudyError(OptimizerError):
    """A study that cannot be opened, resumed or found."""


class WorkspaceError(OptimizerError):
    """A workspace folder that cannot be written."""


class StorageError(OptimizerError):
    """A study database that cannot be reached, is locked or full."""


class TrackingError(OptimizerError):
    """An MLflow server or store that refuses a record, or a spooled record that is none."""


class UnavailableError(TrackingError):
    """An MLflow that does not answer, or refuses whatever it is told."""


class ExportError(OptimizerError):
    """An export that cannot be written."""


class BundleError(OptimizerError):
    """An exported folder that is not, or no longer, what was exported."""


class TableError(OptimizerError):
    """A deployment table that is none, is damaged, or cannot be made of what is known."""


class SpaceExhaustedError(OptimizerError):
    """Every allowed deployment has been tried."""


class UsageError(OptimizerError):
    """Options that contradict each other."""
