"""A search's side of MLflow: what is to be told is written to the spool, and a courier nudged.

Nothing here talks to MLflow or waits for it: a record costs a few milliseconds and is then safe.
What an earlier session could not write, because it was killed or searched without MLflow, is
written when the next one begins; what MLflow has already is known from the ledger, so that no
server is asked.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from optimizer.certifying.certificate import certificate_of
from optimizer.errors import UsageError, WorkspaceError
from optimizer.front.front import Front
from optimizer.front.growth import GrowthPoint, fixed_hypervolume, growth_of
from optimizer.front.plot import png_of_front
from optimizer.study.records import TrialRecord
from optimizer.study.study import SearchStudy
from optimizer.tracking.certificate_content import content_of_certificate
from optimizer.tracking.destination import Destination
from optimizer.tracking.ledger import Ledger
from optimizer.tracking.messages import Envelope, Message
from optimizer.tracking.run_content import (
    StudyFacts,
    content_of_engine,
    content_of_record,
    content_of_verdict,
)
from optimizer.tracking.search_content import (
    PICTURE,
    EndStatus,
    Summary,
    content_of_begin,
    content_of_end,
    content_of_front,
    experiment_of,
    facts_of_search,
    point_of,
)
from optimizer.tracking.sessions import Sessions
from optimizer.tracking.spool import Attachment, Spool
from optimizer.tracking.trial_files import BLOCKS, files_of_trial
from optimizer.workspace import STORE_LIMIT_BYTES, Workspace
from trials.errors import StoreError
from trials.measurement import Quality
from trials.outcome import Completed
from trials.store.store import Store


class Nudged(Protocol):
    """Who delivers what was spooled."""

    def nudge(self) -> None:
        """Hear that something waits."""
        ...

    def trouble(self) -> str:
        """Say why nothing can be delivered now; empty where something can."""
        ...


class SpoolingTracker:
    """Spools what one session of a search has to tell. Used by the thread that searches.

    Every method raises WorkspaceError where the disk refuses.

    Attributes:
        spooled: Names of the records that this session wrote.
    """

    def __init__(
        self,
        study: SearchStudy,
        destination: Destination,
        *,
        workspace: Workspace,
        courier: Nudged,
        note: Callable[[str], None],
    ) -> None:
        """Tell of a study.

        Args:
            study: What is searched.
            destination: Whom to tell.
            workspace: Where blocks and engines lie.
            courier: Who delivers.
            note: Told what the user should know.
        """
        self.spooled: list[str] = []
        self._study = study
        self._facts = facts_of_search(study)
        self._common = StudyFacts(
            study_id=study.identity,
            backend=study.space.backend,
            digests=study.digests,
            objectives=tuple(one.metric.name for one in study.space.objectives),
        )
        self._experiment = experiment_of(self._facts)
        self._destination = destination
        self._workspace = workspace
        self._courier = courier
        self._note = note
        self._noted = False
        self._spool = Spool(destination.folder)
        self._sessions = Sessions(destination.folder)
        self._store = Store(workspace.store, limit_bytes=STORE_LIMIT_BYTES)
        self._known: set[str] = set()  # labels of records that need not be written again
        self._session: str | None = None

    def begin(self, records: Sequence[TrialRecord]) -> int:
        """Tell that a search begins, and of all trials that were not told of yet.

        Args:
            records: All ended trials.

        Returns:
            How many of them had to be told.
        """
        self._destination.create()
        tell_of_killed(self._sessions, self._spool)
        now_s = min((record.started_s for record in records), default=time.time())
        self._session = self._sessions.begin(self._facts.uid, self._experiment)
        self._put(content_of_begin(self._facts, now_s=now_s))
        missing = self._missing(records)
        space = self._study.space
        points = growth_of(records, space.objectives, space.constraints) if missing else ()
        by_uid = {point.uid: point for point in points}
        for record in missing:
            self._put_trial(record, by_uid[record.uid])
        self._courier.nudge()
        return len(missing)

    def record(self, record: TrialRecord, front: Front) -> None:
        """Tell of a trial that has just ended.

        Args:
            record: What came of it.
            front: As it is now.
        """
        volume = fixed_hypervolume(front.members, front.objectives)
        point = GrowthPoint(
            uid=record.uid, number=record.number, finished_s=record.finished_s, volume=volume
        )
        self._put_trial(record, point)
        self._courier.nudge()
        trouble = "" if self._noted else self._courier.trouble()
        if trouble:
            self._noted = True
            self._note(f"{trouble}; the search goes on, MLflow is told later")

    def end(
        self,
        front: Front,
        records: Sequence[TrialRecord],
        verdicts: Mapping[int, Quality],
        *,
        killed: bool,
    ) -> None:
        """Tell how the search ended: its front, the verdicts on it, and how it came to be.

        Args:
            front: As it is now.
            records: All ended trials.
            verdicts: On the report split, by trial number.
            killed: It was interrupted.
        """
        if self._session is None:
            return  # its beginning could not be written either
        for record in front.members:
            if record.number in verdicts and f"verdict-{record.uid}" not in self._known:
                self._put(content_of_verdict(record.uid, verdicts[record.number]))
        self._put(content_of_front(self._facts, front))
        certificate = certificate_of(self._study)
        if certificate is not None:
            self._put(content_of_certificate(self._study, certificate))
        space = self._study.space
        summary = Summary(
            front=front,
            verdicts=verdicts,
            growth=growth_of(records, space.objectives, space.constraints),
            picture=_picture(front, f"{self._study.name}: {len(records)} trials"),
        )
        now_s = max((record.finished_s for record in records), default=time.time())
        self._end_session(now_s, "KILLED" if killed else "FINISHED", summary)
        self._courier.nudge()

    def break_off(self) -> None:
        """Tell that the search ended before its end, if :meth:`end` has not told already."""
        if self._session is not None:
            self._end_session(time.time(), "KILLED", None)

    def _missing(self, records: Sequence[TrialRecord]) -> list[TrialRecord]:
        """Return the trials of which MLflow has not heard, or not all that is here."""
        waiting, delivered = self._spool.labels(), Ledger(self._destination.folder).read()
        self._known = waiting | set(delivered)
        missing = []
        for record in records:
            label = f"trial-{record.uid}"
            entry = delivered.get(label)
            lacks_blocks = (
                entry is not None
                and not entry.blocks
                and entry.result != "deleted"
                and self._workspace.blocks(record.uid).is_file()
            )
            if label not in waiting and (entry is None or lacks_blocks):
                missing.append(record)
                if entry is None:  # whatever was said of its verdict found no run to say it of
                    self._known.discard(f"verdict-{record.uid}")
        return missing

    def _put_trial(self, record: TrialRecord, point: GrowthPoint) -> None:
        if isinstance(record.outcome, Completed):
            self._put_engine(record.outcome)
        files = tuple(files_of_trial(record, self._workspace))
        names = tuple(file.name for file in files)
        told = content_of_record(
            record,
            self._common,
            files=names,
            blocks=BLOCKS if BLOCKS in names else None,
            point=point_of(self._facts, point),
        )
        self._put(told, files)

    def _put_engine(self, outcome: Completed) -> None:
        """Tell of the engine, with its file, unless it was told of or is no longer stored."""
        if f"engine-{outcome.engine.engine_digest}" in self._known:
            return
        try:
            entry = self._store.find("engine", outcome.engine.engine_key)
        except StoreError as error:
            raise WorkspaceError(str(error)) from error
        if entry is not None and entry.sha256 == outcome.engine.engine_digest:
            told = content_of_engine(outcome, self._common)
            self._put(told, [Attachment(name=told.file, source=entry.path)])

    def _put(self, message: Message, files: Sequence[Attachment] = ()) -> None:
        envelope = Envelope(experiment=self._experiment, message=message)
        self.spooled.append(self._spool.put(envelope, files))
        self._known.add(f"{message.kind}-{message.uid}")

    def _end_session(self, now_s: float, status: EndStatus, summary: Summary | None) -> None:
        assert self._session is not None, "it has begun"
        self._sessions.mark_ending(self._session)
        if self._sessions.others(self._session, self._facts.uid):
            status = None
        picture = None if summary is None else summary.picture
        files = [] if picture is None else [Attachment(name=PICTURE, source=picture)]
        self._put(
            content_of_end(self._facts.uid, now_s=now_s, status=status, summary=summary), files
        )
        self._sessions.end(self._session)
        self._session = None


def tell_of_killed(sessions: Sessions, spool: Spool) -> None:
    """Tell that searches were killed which could not tell it themselves.

    Raises:
        WorkspaceError: The disk refuses.
    """
    sessions.sweep()
    for name, session in list(sessions.killed()):
        if not sessions.others(name, session.uid):
            told = content_of_end(session.uid, now_s=time.time(), status="KILLED")
            spool.put(Envelope(experiment=session.experiment, message=told))
        sessions.end(name)


def _picture(front: Front, title: str) -> bytes | None:
    try:
        return png_of_front(front, title)
    except UsageError:
        return None  # one objective alone spans no plane
