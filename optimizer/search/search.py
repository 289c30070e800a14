"""The search: ask the study, try the deployment in a worker, tell, track; until the budget ends.

Several processes may search one study: they ask in turns, so that no deployment is proposed twice.
Bookkeeping and tracking happen between measurements, never during one.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from traceback import format_exception_only
from typing import Protocol

from optimizer.errors import TrackingError
from optimizer.front.front import Front, FrontKeeper
from optimizer.front.of_study import blocks_in
from optimizer.front.resampling import with_probabilities
from optimizer.search.budget import Budget
from optimizer.study.records import TrialRecord
from optimizer.study.study import Asked, SearchStudy
from optimizer.workspace import STORE_LIMIT_BYTES, Workspace, discard_blocks, save_blocks
from search_spaces.deployment import Deployment
from trials.errors import TrialError
from trials.machine.environment import environment
from trials.measurement import Quality
from trials.outcome import Completed, Failed, Outcome
from trials.store.store import Store


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
    """Where finished trials are published."""

    def record(self, record: TrialRecord, *, blocks: Path | None, model: Path | None) -> str:
        """Publish one trial, once however often it is called.

        Raises:
            TrackingError: It cannot be published now.
        """
        ...

    def missing(self, uids: Iterable[str]) -> set[str]:
        """Return those trials that are not published yet.

        Raises:
            TrackingError: Nobody can tell now.
        """
        ...

    def record_verdict(self, uid: str, quality: Quality) -> None:
        """Publish a trial's quality on the report split, once however often it is called.

        Raises:
            TrackingError: It cannot be published now.
        """
        ...

    def mark_front(self, uids: Iterable[str]) -> None:
        """Mark these trials as the front, and former members as such no more.

        Raises:
            TrackingError: It cannot be published now.
        """
        ...


class View(Protocol):
    """Who watches a search."""

    def began(self, number: int, deployment: Deployment) -> None:
        """Hear that a trial begins."""
        ...

    def phase(self, name: str) -> None:
        """Hear which step the trial is in."""
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


def untracked(error: TrackingError) -> str:
    """Say what an MLflow that refuses costs: nothing but the wait for the next session."""
    return f"{error}; trials are safe in the study and are published by the next session"


class Search:
    """One session of a search over one study."""

    def __init__(
        self,
        study: SearchStudy,
        *,
        runner: Runner,
        workspace: Workspace,
        tracker: Tracker | None,
        view: View,
    ) -> None:
        self._study = study
        self._runner = runner
        self._workspace = workspace
        self._tracker = tracker
        self._view = view
        self._stopping = False
        self._fronts = FrontKeeper(study.space.objectives, study.space.constraints)
        self._store = Store(workspace.store, limit_bytes=STORE_LIMIT_BYTES)

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
        self._publish_missing()
        while isinstance(begun := self._begun(budget), Asked):
            self._one_trial(begun)
            tried += 1
        front = with_probabilities(self.front(), blocks_in(self._workspace))
        self._judge(front)
        self._publish_front(front)
        return Finished(front=front, reason=begun, tried=tried, interrupted=self._stopping)

    def front(self) -> Front:
        """Return the front as it is now."""
        return self._fronts.front(self._study.records())

    def _mend(self) -> None:
        """End what killed processes left, and sweep their unfinished files away."""
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
            outcome = self._runner.run(asked.deployment, on_phase=self._view.phase)
            if isinstance(outcome, Completed):
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
        self._view.ended(record, self.front())
        self._publish(record)

    def _publish_missing(self) -> None:
        """Publish what an earlier session could not."""
        if self._tracker is None:
            return
        records = {record.uid: record for record in self._study.records()}
        try:
            missing = sorted(self._tracker.missing(records)) if records else []
        except TrackingError as error:
            self._stop_tracking(error)
            return
        for uid in missing:
            self._publish(records[uid])

    def _publish(self, record: TrialRecord) -> None:
        if self._tracker is None:
            return
        blocks = self._workspace.blocks(record.uid)
        engine = self._engine_of(record)
        try:
            self._tracker.record(record, blocks=blocks if blocks.exists() else None, model=engine)
        except TrackingError as error:
            self._stop_tracking(error)

    def _stop_tracking(self, error: TrackingError) -> None:
        self._tracker = None
        self._view.note(untracked(error))

    def _engine_of(self, record: TrialRecord) -> Path | None:
        if not isinstance(record.outcome, Completed):
            return None
        entry = self._store.find("engine", record.outcome.engine.engine_key)
        return None if entry is None else entry.path

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

    def _publish_front(self, front: Front) -> None:
        """Tell the tracker who is on the front, and what the report split says of them."""
        if self._tracker is None:
            return
        verdicts = self._study.verdicts()
        try:
            for record in front.members:
                if record.number in verdicts:
                    self._tracker.record_verdict(record.uid, verdicts[record.number])
            self._tracker.mark_front([record.uid for record in front.members])
        except TrackingError as error:
            self._stop_tracking(error)


def _line(error: BaseException) -> str:
    return format_exception_only(error)[-1].strip()


def _interrupted(deployment: Deployment, reason: str) -> Failed:
    return Failed(
        deployment=deployment, kind="interrupted", reason=reason, environment=environment()
    )
