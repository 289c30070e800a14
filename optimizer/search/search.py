"""The search: ask the study, try the deployment in a worker, tell, track; until the budget ends.

Several processes may search one study: they ask in turns, so that no deployment is proposed twice.
Bookkeeping happens between measurements, never during one, and so does what runs beside the search
and delivers its records: the gate is shut while a trial loads and measures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from traceback import format_exception_only
from typing import Protocol

from optimizer.errors import WorkspaceError
from optimizer.front.front import Front, FrontKeeper
from optimizer.front.of_study import blocks_in
from optimizer.front.resampling import with_probabilities
from optimizer.search.budget import Budget
from optimizer.search.sentinel import Sentinel
from optimizer.study.records import TrialRecord
from optimizer.study.study import Asked, SearchStudy
from optimizer.workspace import Workspace, discard_blocks, save_blocks, sweep_drafts
from search_spaces.deployment import Deployment
from trials.errors import AbandonedError, TrialError
from trials.machine.environment import environment
from trials.measurement import Quality
from trials.outcome import Completed, Failed, Outcome

_MEASURED = ("load", "measure")  # phases that only the trial may work in


class Runner(Protocol):
    """Who runs a trial: a worker process, or anything that answers alike."""

    def run(self, deployment: Deployment, *, on_phase: Callable[[str], None]) -> Outcome:
        """Try one deployment; never raises for a fault of the trial."""
        ...

    def report(self, deployment: Deployment) -> Quality:
        """Score a deployment on the report split.

        Raises:
            TrialError: It cannot be scored.
        """
        ...


class Tracker(Protocol):
    """Whom a search tells what came of it; what was told is safe, whoever may still wait for it.

    Every method raises WorkspaceError where it cannot be kept.
    """

    def begin(self, records: Sequence[TrialRecord]) -> int:
        """Hear that the search begins, with all ended trials; return how many were news."""
        ...

    def record(self, record: TrialRecord, front: Front) -> None:
        """Hear what came of a trial, and the front as it is now."""
        ...


class Quiet(Protocol):
    """What keeps the machine quiet around a measurement; repeatable in any order."""

    def shut(self) -> None:
        """Return when nothing of ours works beside the measurement any more."""
        ...

    def open(self) -> None:
        """Let others work again."""
        ...


class View(Protocol):
    """Who watches a search."""

    def began(self, number: int, deployment: Deployment) -> None:
        """Hear that a trial begins."""
        ...

    def phase(self, name: str) -> None:
        """Hear which step the trial is in, or the search between two trials."""
        ...

    def ended(self, record: TrialRecord, front: Front) -> None:
        """Hear what came of the trial, and the front as it is now."""
        ...

    def note(self, text: str) -> None:
        """Hear something that the user should know."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a search ended.

    Attributes:
        reason: Why it ended, in words.
        tried: Trials that this session ran.
        interrupted: It was stopped.
    """

    front: Front
    reason: str
    tried: int
    interrupted: bool = False


class Search:
    """One session of a search over one study."""

    def __init__(
        self,
        study: SearchStudy,
        *,
        runner: Runner,
        workspace: Workspace,
        tracker: Tracker | None,
        quiet: Quiet,
        view: View,
        sentinel: Sentinel | None = None,
    ) -> None:
        self._study = study
        self._runner = runner
        self._workspace = workspace
        self._tracker = tracker
        self._quiet = quiet
        self._view = view
        self._sentinel = sentinel
        self._stopping = False
        self._fronts = FrontKeeper(study.space.objectives, study.space.constraints)

    def stop(self) -> None:
        """End the search after the trial that is running; may be called from a signal handler."""
        self._stopping = True

    def run(self, budget: Budget) -> Finished:
        """Search until the budget is spent, the space is exhausted or :meth:`stop` is called.

        Raises:
            StorageError: The study is out of reach.
            WorkspaceError: Raw blocks cannot be written.
        """
        tried = 0
        self._mend()
        self._track_begin()
        self._watch(budget)  # what an earlier session measured is this one's too
        while isinstance(begun := self._begun(budget), Asked):
            self._one_trial(begun)
            tried += 1
            self._watch(budget)
        front = with_probabilities(self.front(), blocks_in(self._workspace))
        self._judge(front)
        return Finished(front=front, reason=begun, tried=tried, interrupted=self._stopping)

    def front(self) -> Front:
        """Return the front as it is now."""
        return self._fronts.front(self._study.records())

    def _mend(self) -> None:
        """End what killed processes left, and sweep their unfinished files away."""
        sweep_drafts(self._workspace.blocks_folder)
        mended = self._study.mend()
        records = {record.number: record for record in self._study.records()}
        for number in mended:
            known = records.get(number)
            if known is not None and not isinstance(known.outcome, Failed):
                self._view.note(f"trial {number} was measured when its process died; it counts")
                continue
            discard_blocks(self._workspace.blocks(self._study.uid(number)))
            self._view.note(f"trial {number} was lost when its process died; it is tried again")

    def _begun(self, budget: Budget) -> Asked | str:
        """Begin a trial, or say why none; no other process begins one meanwhile."""
        with self._study.turn():
            reason = self._over(budget)
            return self._study.ask() if reason is None else reason

    def _over(self, budget: Budget) -> str | None:
        if self._stopping:
            return "interrupted; the same command goes on from here"
        if self._study.has_waiting():
            return None
        running = self._study.running()
        reason = budget.spent(self._study.records(), self._study.space, running=running)
        if reason is None and not self._study.has_free():
            reason = "every deployment that the rules allow has been tried"
        return reason

    def _one_trial(self, asked: Asked) -> None:
        self._view.began(asked.trial.number, asked.deployment)
        try:
            outcome = self._outcome(asked.deployment)
            if isinstance(outcome, Completed):
                if self._sentinel is not None:
                    outcome = replace(outcome, sentinel=self._sentinel.last)
                save_blocks(
                    outcome.blocks, self._workspace.blocks(self._study.uid(asked.trial.number))
                )
        except BaseException as error:
            # no fault of the deployment: whoever mends the cause goes on with it
            self._study.tell(asked, _interrupted(asked.deployment, _line(error)))
            raise
        record = self._study.tell(asked, outcome)
        if isinstance(outcome, Failed) and outcome.kind == "interrupted":
            self._stopping = True
        front = self.front()
        self._view.ended(record, front)
        self._track(lambda tracker: tracker.record(record, front))

    def _watch(self, budget: Budget) -> None:
        """Look where the machine stands, where it is time to and a trial comes that keeps it."""
        if self._sentinel is None:
            return
        records = self._study.records()
        if not self._sentinel.is_due(records) or self._over(budget) is not None:
            return
        self._view.phase("watching the machine")
        try:
            self._quiet.shut()
            self._sentinel.look(records)
        except AbandonedError:
            pass  # whoever asked for it knows
        except TrialError as error:
            self._view.note(f"the machine is watched no more, for the sentinel: {error}")
        finally:
            self._quiet.open()
            self._view.phase("")

    def _outcome(self, deployment: Deployment) -> Outcome:
        """Run a trial, with nothing beside it from the load of its engine to the last block."""

        def on_phase(name: str) -> None:
            self._view.phase(name)
            if name in _MEASURED:
                self._quiet.shut()
            else:
                self._quiet.open()

        try:
            return self._runner.run(deployment, on_phase=on_phase)
        finally:
            self._quiet.open()

    def _track_begin(self) -> None:
        def begin(tracker: Tracker) -> None:
            late = tracker.begin(self._study.records())
            if late:
                self._view.note(f"MLflow has not heard of {late} earlier trials yet")

        self._track(begin)

    def _track(self, tell: Callable[[Tracker], None]) -> None:
        """Tell the tracker; one that cannot keep what it is told costs the search nothing."""
        if self._tracker is None:
            return
        try:
            tell(self._tracker)
        except WorkspaceError as error:
            self._tracker = None
            self._view.note(f"MLflow is told no more: {error}; the next session tells it all")

    def _judge(self, front: Front) -> None:
        """Score the front on the report split, once per trial."""
        known = self._study.verdicts()
        for record in front.members:
            if record.number in known or self._stopping:
                continue
            self._view.note(f"scoring trial {record.number} on the report split")
            try:
                quality = self._runner.report(record.outcome.deployment)
            except TrialError as error:
                self._view.note(f"trial {record.number} has no verdict: {error}")
                continue
            self._study.keep_verdict(record.number, quality)


def _line(error: BaseException) -> str:
    return format_exception_only(error)[-1].strip()


def _interrupted(deployment: Deployment, reason: str) -> Failed:
    return Failed(
        deployment=deployment, kind="interrupted", reason=reason, environment=environment()
    )
