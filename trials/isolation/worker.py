"""Run trials in a worker process, so that none of them can take the search down.

A segfault, an abort, a hang or an out-of-memory kill costs one trial, whose outcome says why. A
healthy worker is used again: a trial costs a pickled message each way, not an interpreter.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, cast

from search_spaces.deployment import Deployment, Precision
from search_spaces.space import MeasuringPlan, SearchSpace
from trials.errors import (
    AbandonedError,
    DeadlineError,
    InputChangedError,
    MemoryLimitError,
    WorkerDiedError,
)
from trials.isolation.child import Child, Limits
from trials.isolation.messages import Job, LayerQuestion, Open, Verb
from trials.machine.environment import environment
from trials.outcome import Failed, Infeasible, Outcome

if TYPE_CHECKING:
    from trials.bench import BenchFacts, Prepared
    from trials.measurement import Quality
    from trials.measuring.load import Driven
    from trials.models.layers import Product
    from trials.references import Recorded, Wanted
    from trials.sensitivity import LayerEffect

_BYTES_PER_MB = 1e6


class Worker:
    """A worker process for one space, started when first needed and again after each death.

    Owned by one thread, which must outlive it; only :meth:`abandon` may be called from another
    thread or a signal handler. Each request has ``plan.deadline_s``, and so has the opening of
    the space in a fresh process.

    Every method raises what opening the space raises (SpaceError, ModelError, DataError,
    UnsupportedError), InputChangedError where a fresh process finds other models or data than
    :meth:`describe` did, and WorkerBugError with the child's traceback for what nobody foresaw.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        store_root: Path,
        store_limit_bytes: int,
        opener: str = "trials.isolation.session:open_session",
        target: str | None = None,
    ) -> None:
        """Wait for the first request.

        Args:
            space: What is opened.
            store_root: Folder of the store.
            store_limit_bytes: What it may grow to.
            opener: ``module:function`` that opens the session.
            target: The device that engines are built for, where it is not this machine's.
        """
        self._space = space
        self._store_root = store_root
        self._store_limit_bytes = store_limit_bytes
        self._opener = opener
        self._target = target
        self._child: Child | None = None
        self._abandoned = False  # plain, because a signal handler must not wait for a lock
        self._facts: BenchFacts | None = None
        megabytes = space.plan.max_memory_mb
        self._limits = Limits(
            deadline_s=space.plan.deadline_s,
            memory_bytes=None if megabytes is None else megabytes * _BYTES_PER_MB,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def run(self, deployment: Deployment, *, on_phase: Callable[[str], None]) -> Outcome:
        """Try one deployment; its faults are outcomes, whatever they do to the process.

        Raises:
            StoreError: The store cannot be read or written.
        """
        try:
            result = self._ask(Job(verb=Verb.RUN, deployment=deployment), on_phase)
        except MemoryLimitError as error:
            return Infeasible(
                deployment=deployment,
                kind="memory",
                reason=str(error),
                environment=environment(),
            )
        except (WorkerDiedError, DeadlineError) as error:
            return _failed(deployment, error)
        return cast("Outcome", result)

    def report(self, deployment: Deployment) -> "Quality":
        """Score a deployment on the report split.

        Raises:
            TrialError: The engine cannot be built, loaded or scored, or the worker died.
        """
        return cast("Quality", self._ask(Job(verb=Verb.REPORT, deployment=deployment)))

    def prepare(
        self, deployment: Deployment, *, on_phase: Callable[[str], None] = lambda _: None
    ) -> "Prepared":
        """Put a deployment's model and engine into the store.

        Args:
            deployment: Whose they are.
            on_phase: Told in words how far a long build is.

        Raises:
            TrialError: The engine cannot be built, or the worker died.
        """
        job = Job(verb=Verb.PREPARE, deployment=deployment)
        return cast("Prepared", self._ask(job, on_phase))

    def measure(self, deployment: Deployment, plan: MeasuringPlan | None = None) -> "Driven":
        """Measure the speed of a deployment; its accuracy and memory are not looked at.

        Args:
            deployment: Which.
            plan: How long and how well; None for the space's own.

        Raises:
            TrialError: The engine cannot be built, loaded or run, cannot keep up with its load, or
                the worker died.
        """
        job = Job(verb=Verb.MEASURE, deployment=deployment, plan=plan)
        return cast("Driven", self._ask(job))

    def record(self, deployment: Deployment, wanted: "Wanted") -> "Recorded":
        """Describe a deployment's engine and record what it answers to labelled samples.

        Raises:
            TrialError: The engine cannot be built, loaded or run, or the worker died.
        """
        job = Job(verb=Verb.RECORD, deployment=deployment, wanted=wanted)
        return cast("Recorded", self._ask(job))

    def layers(self, variant: str, precision: Precision) -> "tuple[Product, ...]":
        """List the layers of a variant that a precision lowers, in the order of execution.

        Raises:
            TrialError: The precision cannot be made of it, or the worker died.
        """
        question = LayerQuestion(variant=variant, precision=precision)
        job = Job(verb=Verb.LAYERS, question=question)
        return cast("tuple[Product, ...]", self._ask(job))

    def lower(self, question: LayerQuestion) -> "LayerEffect":
        """Say what lowering one layer of a variant does; it is kept.

        Raises:
            TrialError: There is no such split, the precision cannot be made of it, or the worker
                died.
        """
        return cast("LayerEffect", self._ask(Job(verb=Verb.LOWER, question=question)))

    def describe(self) -> "BenchFacts":
        """Open the space, if no worker has yet, and identify the input of the search.

        From then on a fresh process must find the same input.

        Raises:
            TrialError: The worker died.
        """
        self._facts = cast("BenchFacts", self._ask(Job(verb=Verb.DESCRIBE)))
        return self._facts

    def abandon(self) -> None:
        """Interrupt the request in progress, or else the next one.

        A build is broken off and cleans up after itself; anything else is killed, and so is what
        is abandoned twice.
        """
        self._abandoned = True
        if self._child is not None:
            self._child.stop()

    def close(self) -> None:
        """End the worker process; a later request would start another."""
        child, self._child = self._child, None
        if child is not None:
            child.bury()

    def _ask(self, job: Job, on_phase: Callable[[str], None] = lambda _: None) -> object:
        try:
            child = self._opened_child()
            return child.ask(job, self._limits, on_phase=on_phase)
        except (WorkerDiedError, DeadlineError, MemoryLimitError) as error:
            if not self._abandoned:
                raise
            self._abandoned = False
            raise AbandonedError("interrupted before it was done") from error

    def _opened_child(self) -> Child:
        if self._child is not None and not self._child.is_alive():
            self.close()
        if self._child is not None:
            return self._child
        self._child = Child(self._opener)
        if self._abandoned:  # abandon() may have come before there was a child to kill
            self._child.kill()
        try:
            self._child.ask(self._open_request(), self._limits, on_phase=lambda _: None)
            self._refuse_changed(self._child)
        except MemoryLimitError as error:  # no deployment was asked for yet, so it fits or not
            self.close()
            raise WorkerDiedError(f"the space could not be opened: {error}") from error
        except BaseException:
            self.close()
            raise
        return self._child

    def _refuse_changed(self, child: Child) -> None:
        """Compare what a fresh process found with what the search began with."""
        if self._facts is None:
            return
        job = Job(verb=Verb.DESCRIBE)
        found = cast("BenchFacts", child.ask(job, self._limits, on_phase=lambda _: None))
        changed = dict(set(found.digests) ^ set(self._facts.digests))
        if changed:
            kind, _, name = min(changed).partition(":")
            raise InputChangedError(
                f"{kind} '{name}' has changed since the search began; put the old file back and "
                "go on, or search the new one under another --study name"
            )

    def _open_request(self) -> Open:
        return Open(
            import_path=tuple(sys.path),
            space=self._space,
            store_root=self._store_root,
            store_limit_bytes=self._store_limit_bytes,
            target=self._target,
        )


def _failed(deployment: Deployment, error: WorkerDiedError | DeadlineError) -> Failed:
    if isinstance(error, AbandonedError):
        kind: Literal["interrupted", "deadline", "crash"] = "interrupted"
    else:
        kind = "deadline" if isinstance(error, DeadlineError) else "crash"
    return Failed(deployment=deployment, kind=kind, reason=str(error), environment=environment())
