"""Errors of one trial.

::

    TrialError
    ├── InfeasibleError       a fact about the deployment; trying again changes nothing
    │   ├── UnsupportedError  the backend cannot build or run it (operator, precision, shape)
    │   ├── MemoryLimitError  it does not fit
    │   └── OutputError       it runs, but its outputs are not usable (NaN, wrong shape)
    ├── FaultError            a fact about tonight: a crash, a hang, a dead worker; may be retried
    │   ├── WorkerDiedError
    │   └── DeadlineError
    ├── ModelError            a model file that cannot be used; the search does not start
    ├── DataError             data that cannot be used; the search does not start
    └── StoreError            the engine store cannot be read or written
"""


class TrialError(Exception):
    """Base of everything that ``trials`` raises on purpose."""


class InfeasibleError(TrialError):
    """The deployment cannot run, tonight or ever, and the message says why."""


class UnsupportedError(InfeasibleError):
    """The backend cannot build or run this model in this way."""


class MemoryLimitError(InfeasibleError):
    """The deployment needs more memory than there is."""


class OutputError(InfeasibleError):
    """The engine runs, but what it returns cannot be used."""


class FaultError(TrialError):
    """Something broke that may work the next time."""


class WorkerDiedError(FaultError):
    """The process that ran the trial died."""


class DeadlineError(FaultError):
    """The trial outlived its deadline and was killed."""


class ModelError(TrialError):
    """A model file that cannot be used; the message names the file and the mend."""


class DataError(TrialError):
    """Data that cannot be used; the message names the file, the array and the mend."""


class StoreError(TrialError):
    """The engine store cannot be read or written."""
