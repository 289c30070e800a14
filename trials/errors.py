"""Errors of one trial.

::

    TrialError
    ├── InfeasibleError       a fact about the deployment; trying again changes nothing
    │   ├── UnsupportedError  the backend cannot build or run it (operator, precision, shape)
    │   ├── MemoryLimitError  it does not fit
    │   ├── OutputError       it runs, but its outputs are not usable (NaN, wrong shape)
    │   └── SaturatedError    requests come faster than it can answer them
    ├── FaultError            a fact about tonight: a crash, a hang, a dead worker; may be retried
    │   ├── WorkerDiedError
    │   │   └── AbandonedError
    │   ├── DeadlineError
    │   ├── LateError         the load generator could not keep its times
    │   ├── DisturbedError    other work took the processor, so that nothing can be told
    │   └── StampsError       recorded times contradict one another
    ├── ModelError            a model file that cannot be used; the search does not start
    ├── DataError             data that cannot be used; the search does not start
    ├── InputChangedError     a model or data file is no longer what the search began with
    └── StoreError            the engine store cannot be read or written

    WorkerBugError            not one of them: a bug in the worker process, passed on
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


class SaturatedError(InfeasibleError):
    """Requests come faster than the deployment answers them: its queue grows without limit."""


class FaultError(TrialError):
    """Something broke that may work the next time."""


class WorkerDiedError(FaultError):
    """The process that ran the trial died."""


class AbandonedError(WorkerDiedError):
    """The process was killed before it was done, because its owner asked for it."""


class DeadlineError(FaultError):
    """The trial outlived its deadline and was killed."""


class LateError(FaultError):
    """The load generator was late by too much for its latencies to be believed."""


class DisturbedError(FaultError):
    """Other work took so much of the processor that a question has no answer."""


class StampsError(FaultError):
    """Recorded times contradict one another, which is a mistake of ours; they are not used."""


class ModelError(TrialError):
    """A model file that cannot be used; the message names the file and the mend."""


class DataError(TrialError):
    """Data that cannot be used; the message names the file, the array and the mend."""


class InputChangedError(TrialError):
    """A model or data file is another than when the search began; the message names it."""


class StoreError(TrialError):
    """The engine store cannot be read or written."""


class WorkerBugError(Exception):
    """A bug in the worker process, raised where its owner waits.

    Not a TrialError, for it is raised on nobody's purpose: whoever catches those must not catch
    this, just as they would not catch the KeyError or the like that it stands for.

    Attributes:
        traceback: The worker's own, which is also shown under ours.
    """

    def __init__(self, summary: str, traceback: str = "") -> None:
        super().__init__(summary)
        self.traceback = traceback
        self.add_note(f"in the worker process:\n{traceback}")
