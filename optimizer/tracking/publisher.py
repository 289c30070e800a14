"""Tell MLflow one message, once, whatever happened to earlier attempts.

Each message is told in an order in which it may be told again from the start after a kill at any
moment: find the run, else make it with its own begin; files; metrics and params; data; engine; and
last the end, by which a later attempt knows that nothing is missing. A run that somebody has
deleted in MLflow was deleted on purpose, and is not made again.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, assert_never

from optimizer.errors import TrackingError
from optimizer.tracking.certified_runs import tell_certificate
from optimizer.tracking.engines import Engines
from optimizer.tracking.messages import (
    CertificateGiven,
    EngineBuilt,
    FrontFound,
    Point,
    SearchBegan,
    SearchEnded,
    Texts,
    TrialEnded,
    VerdictGiven,
)
from optimizer.tracking.runs import (
    STUDY_ID,
    UID,
    Runs,
    Step,
    is_active,
    is_finished,
    quoted,
)
from optimizer.tracking.spool import Parcel

if TYPE_CHECKING:
    from mlflow.entities import Run

Result: TypeAlias = Literal["delivered", "found", "deleted"]

BLOCKS = "raw_blocks"  # tag: ``kept`` or ``missing``; another workspace may have them
ON_FRONT = "on_front"  # tag: ``true`` or ``false``

_STAGED = "staged"
_HISTOGRAM = "latencies.png"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Address:
    """Where a message goes: its experiment's id in MLflow, its study's, and the record itself."""

    id: str
    study_id: str
    parcel: Parcel


class Publisher:
    """Publishes messages; used by one thread.

    Attributes:
        runs: The runs of the MLflow that is told.
    """

    def __init__(
        self, runs: Runs, engines: Engines, *, step: Step, draw: Callable[[Path, str], bytes]
    ) -> None:
        """Publish through these.

        Args:
            runs: Runs of MLflow.
            engines: LoggedModels of MLflow.
            step: Entered around work of our own.
            draw: Draws the histogram of raw blocks under a title, as PNG.
        """
        self.runs = runs
        self._engines = engines
        self._step = step
        self._draw = draw
        self._searches: dict[str, str] = {}  # runs of searches, which every trial adds a point to

    def publish(self, parcel: Parcel) -> Result:
        """Tell one message.

        Returns:
            ``found`` where MLflow had it already, ``deleted`` where its run was deleted there.

        Raises:
            UnavailableError: MLflow does not answer, or refuses whatever it is told.
            TrackingError: It refuses this message, or a file of it is missing.
        """
        wanted = parcel.envelope.experiment
        experiment_id = self.runs.experiment(wanted)
        place = _Address(id=experiment_id, study_id=wanted.study_id, parcel=parcel)
        result: Result
        match parcel.envelope.message:
            case SearchBegan() as told:
                result = self._search(place, told)
            case EngineBuilt() as told:
                result = self._engine(place, told)
            case TrialEnded() as told:
                result = self._trial(place, told)
            case VerdictGiven() as told:
                result = self._verdict(place, told)
            case FrontFound() as told:
                result = self._front(place, told)
            case CertificateGiven() as told:
                changed = tell_certificate(self.runs, place.id, place.study_id, told)
                result = "delivered" if changed else "found"
            case SearchEnded() as told:
                result = self._end(place, told)
            case _ as unreachable:
                assert_never(unreachable)
        return result

    def _search(self, place: _Address, told: SearchBegan) -> Result:
        run = self.runs.of_uid(place.id, told.uid)
        if run is not None and not is_active(run):
            return "deleted"
        if run is None:
            run = self.runs.create(
                place.id, name=told.name, started_ms=told.started_ms, tags=told.tags
            )
        run_id = run.info.run_id
        with self._staged(place.parcel, told.texts) as folder:
            self.runs.log_files(run_id, folder)
        known = run.data.params
        params = tuple(pair for pair in told.params if pair[0] not in known)  # written once
        self.runs.log(run_id, params=params, tags=told.tags)
        self.runs.log_datasets(run_id, told.datasets)
        if is_finished(run):
            self.runs.set_status(run_id, "RUNNING")
        return "delivered"

    def _engine(self, place: _Address, told: EngineBuilt) -> Result:
        about = {"engine_digest": told.uid, **dict(told.tags), **dict(told.params)}
        texts = (("about.json", json.dumps(about, indent=1)),)
        with self._staged(place.parcel, texts, told.file) as folder:
            return self._engines.publish(place.id, told, folder)

    def _trial(self, place: _Address, told: TrialEnded) -> Result:
        result = self._run_of_trial(place, told)
        if told.point is not None:
            self._point(place, told.point)
        return result

    def _run_of_trial(self, place: _Address, told: TrialEnded) -> Result:
        run = self.runs.of_uid(place.id, told.uid)
        if run is None:
            run = self.runs.create(
                place.id, name=told.name, started_ms=told.started_ms, tags=told.tags
            )
        elif not is_active(run):
            return "deleted"
        elif is_finished(run):
            if told.blocks is None or run.data.tags.get(BLOCKS) != "missing":
                return "found"
            self._complete(place, told, run)
            return "delivered"
        self._fill(place, told, run)
        if self._is_twin(place, told.uid, run):
            self.runs.delete(run.info.run_id)
            return self._run_of_trial(place, told)
        self.runs.set_status(run.info.run_id, told.status, finished_ms=told.finished_ms)
        return "delivered"

    def _fill(self, place: _Address, told: TrialEnded, run: "Run") -> None:
        run_id = run.info.run_id
        self._log_files(place, told, run_id)
        # one time and step: a second attempt writes the same rows, not more of them
        self.runs.log(run_id, metrics=told.metrics, params=told.params, time_ms=told.finished_ms)
        self.runs.log_datasets(run_id, told.datasets)
        if told.engine is not None:
            self._engines.link(place.id, told.engine, run)

    def _complete(self, place: _Address, told: TrialEnded, run: "Run") -> None:
        """Add raw blocks to a run that was published by somebody who did not have them."""
        self._log_files(place, told, run.info.run_id)
        if told.engine is not None:
            self._engines.link(place.id, told.engine, run)
        self.runs.log(run.info.run_id, tags=((BLOCKS, "kept"),))

    def _log_files(self, place: _Address, told: TrialEnded, run_id: str) -> None:
        with self._staged(place.parcel, told.texts, *told.files) as folder:
            if told.blocks is not None:
                with self._step():
                    picture = self._draw(place.parcel.file(told.blocks), told.name)
                    _write(folder / _HISTOGRAM, picture)
            self.runs.log_files(run_id, folder)

    def _is_twin(self, place: _Address, uid: str, run: "Run") -> bool:
        """Tell whether somebody else has published, or publishes, the same trial.

        MLflow has no lock: two workspaces that share a study may both find no run and make one.
        Both look again before the end; the finished one stays, else the one of the lesser id.
        """
        others = [
            other
            for other in self.runs.tagged(place.id, UID, uid)
            if is_active(other) and other.info.run_id != run.info.run_id
        ]
        return any(is_finished(other) or other.info.run_id < run.info.run_id for other in others)

    def _verdict(self, place: _Address, told: VerdictGiven) -> Result:
        run = self.runs.of_uid(place.id, told.uid)
        if run is None or not is_active(run):
            return "deleted"
        known = run.data.metrics
        new = tuple(pair for pair in told.metrics if known.get(pair[0]) != pair[1])
        if not new:
            return "found"
        self.runs.log(run.info.run_id, metrics=new, time_ms=run.info.end_time or 0)
        self.runs.log_datasets(run.info.run_id, told.datasets)
        return "delivered"

    def _front(self, place: _Address, told: FrontFound) -> Result:
        members = set(told.members)
        marked = set()
        of_study = f"tags.`{STUDY_ID}` = '{quoted(place.study_id)}'"
        for run in list(self.runs.tagged(place.id, ON_FRONT, "true", of_study)):
            uid = run.data.tags[UID]
            if uid in members:
                marked.add(uid)
            elif is_active(run):
                self.runs.log(run.info.run_id, tags=((ON_FRONT, "false"),))
        for uid in sorted(members - marked):
            found = self.runs.of_uid(place.id, uid)
            if found is not None and is_active(found):
                self.runs.log(found.info.run_id, tags=((ON_FRONT, "true"),))
        return "found" if marked == members else "delivered"

    def _end(self, place: _Address, told: SearchEnded) -> Result:
        run = self.runs.of_uid(place.id, told.uid)
        if run is None:
            run = self._created(place, told.uid, started_ms=told.finished_ms)
        if not is_active(run):
            return "deleted"
        run_id = run.info.run_id
        with self._staged(place.parcel, told.texts, *told.files) as folder:
            self.runs.log_files(run_id, folder)
        self.runs.log(
            run_id,
            metrics=told.metrics,
            tags=told.tags,
            time_ms=told.finished_ms,
            step=told.step,
        )
        if told.status is not None:
            self.runs.set_status(run_id, told.status, finished_ms=told.finished_ms)
        return "delivered"

    def _point(self, place: _Address, point: Point) -> None:
        try:
            run_id = self._searches.get(point.search) or self._search_run(place, point)
            if run_id is not None:
                self.runs.log_point(run_id, point)
                self._searches[point.search] = run_id
        except TrackingError:
            self._searches.pop(point.search, None)  # it may have been deleted since
            raise

    def _search_run(self, place: _Address, point: Point) -> str | None:
        """Return the run of a search that can be written to; None where it was deleted."""
        run = self.runs.of_uid(place.id, point.search)
        if run is None:  # the record of the search still waits, and will find this run
            run = self._created(place, point.search, started_ms=point.time_ms)
        return str(run.info.run_id) if is_active(run) else None

    def _created(self, place: _Address, search: str, *, started_ms: int) -> "Run":
        """Make the run of a search whose own record was refused so far."""
        tags = ((UID, search), (STUDY_ID, place.study_id), ("kind", "search"))
        return self.runs.create(place.id, name="search", started_ms=started_ms, tags=tags)

    @contextmanager
    def _staged(self, parcel: Parcel, texts: Texts, *files: str) -> Iterator[Path]:
        """Put texts and files into a folder of their own, to be uploaded in one go."""
        folder = parcel.folder / _STAGED
        with self._step():
            shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was killed
            folder.mkdir()
            for name, text in texts:
                _write(folder / name, text.encode())
            for name in files:
                _link(parcel.file(name), folder / name)
        try:
            yield folder
        finally:
            with self._step():
                shutil.rmtree(folder, ignore_errors=True)


def _write(target: Path, content: bytes) -> None:
    """Write a file that is not there yet: a staged one may be a link into the engine store."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        file.write(content)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        shutil.copyfile(source, target)
