"""The search: ask the study, try the deployment in a worker, tell, track; until the budget ends.

One coordinator asks and tells, so that no deployment is proposed twice. Bookkeeping and tracking
happen between measurements, never during one.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from optimizer.budget import Budget
from optimizer.errors import TrackingError
from optimizer.front import Front, FrontKeeper
from optimizer.records import TrialRecord
from optimizer.study import SearchStudy
from optimizer.workspace import STORE_LIMIT_BYTES, Workspace, save_blocks
from search_spaces.deployment import Deployment
from trials.errors import TrialError
from trials.measurement import Quality
from trials.outcome import Completed, Failed, Outcome
from trials.store import Store


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
    """

    front: Front
    reason: str
    tried: int


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
        for number in self._study.mend():
            self._view.note(f"trial {number} was lost when its process died; it is tried again")
        self._publish_missing()
        while (reason := self._over(budget)) is None:
            self._one_trial()
            tried += 1
        front = self.front()
        self._judge(front)
        return Finished(front=self.front(), reason=reason, tried=tried)

    def front(self) -> Front:
        """Return the front as it is now."""
        return self._fronts.front(self._study.records())

    def _over(self, budget: Budget) -> str | None:
        if self._stopping:
            return "interrupted; the same command goes on from here"
        if self._study.has_waiting():
            return None
        reason = budget.spent(self._study.records(), self._study.space)
        if reason is None and not self._study.has_free():
            reason = "every deployment that the rules allow has been tried"
        return reason

    def _one_trial(self) -> None:
        asked = self._study.ask()
        self._view.began(asked.trial.number, asked.deployment)
        try:
            outcome = self._runner.run(asked.deployment, on_phase=self._view.phase)
        except BaseException:
            self._study.give_up(asked)
            raise
        if isinstance(outcome, Completed):
            save_blocks(
                outcome.blocks, self._workspace.blocks(self._study.uid(asked.trial.number))
            )
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
        self._view.note(
            f"MLflow: {error}; trials are safe in the study and are published by the next session"
        )

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
