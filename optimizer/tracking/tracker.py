"""MLflow's view of a search: one experiment per study, one flat run per trial.

Runs are flat and tagged, not nested, because MLflow's page collapses nested runs and draws no
charts of them. A run is found by its tag ``trial_uid`` before it is made, so that recording a
trial twice gives one run, and a run that a kill left RUNNING is finished by the next attempt.

What a run says is decided in ``run_content``; only this module talks to MLflow. Nothing here runs
by itself: whoever calls :meth:`MlflowTracker.record` chooses a moment when nothing is measured.
"""

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from optimizer.errors import TrackingError
from optimizer.study.records import TrialRecord
from optimizer.tracking.complaints import LOCK_TIMEOUT_S, tracking_errors
from optimizer.tracking.database import legacy_tables, make_sqlite
from optimizer.tracking.run_content import (
    RunContent,
    content_of_record,
    content_of_search,
    metrics_of_verdict,
)
from trials.measurement import Quality

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

_PAGE = 1000  # runs per page of a search; a page is held in memory
_DIGEST_LENGTH = 36  # longest that MLflow takes for a data set; the whole one is in a tag
_LOCAL_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql")  # no server stands in between


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How long to bear with an MLflow server that does not answer.

    MLflow's own defaults keep a caller waiting for four minutes. Where its environment variables
    are set, they win.

    Attributes:
        attempts: Requests after the first, >= 0.
        timeout_s: Longest wait for one answer, whole seconds.
    """

    attempts: int = 0
    timeout_s: int = 10


ONCE = Retry()


class MlflowTracker:
    """One study's experiment in MLflow; made by :func:`open_tracker`.

    Safe to use from several processes of one workspace: a file lock lets one write at a time,
    which also spares SQLite its own waiting. A tracker belongs to one thread at a time.
    """

    def __init__(
        self,
        client: "MlflowClient",
        experiment_id: str,
        *,
        uri: str,
        lock: FileLock,
        backend: str,
        digests: Mapping[str, str],
    ) -> None:
        self.uri = uri
        self.experiment_id = experiment_id
        self._client = client
        self._lock = lock
        self._backend = backend
        self._digests = dict(digests)
        self._engine_runs: dict[str, str] = {}  # run that keeps the file, by engine digest

    def record(self, record: TrialRecord, *, blocks: Path | None, model: Path | None) -> str:
        """Write one trial, once, whatever happened to earlier attempts.

        Args:
            record: What came of the trial.
            blocks: Its raw blocks; the artifact is called ``blocks`` with the file's own suffix.
            model: The engine file that was measured. It is kept with the first run of its digest;
                later runs name that run in the tag ``engine_run``.

        Returns:
            The id of the run.

        Raises:
            TrackingError: MLflow refuses or cannot be reached; call again later.
        """
        with tracking_errors(self.uri), self._lock:
            content = content_of_record(
                record, backend=self._backend, digests=self._digests, blocks=blocks
            )
            return self._deliver(content, model=model)

    def record_search(self, space_text: str) -> str:
        """Write the run that stands for the search: the space file and all digests, once per text.

        Returns:
            The id of the run.

        Raises:
            TrackingError: MLflow refuses or cannot be reached.
        """
        with tracking_errors(self.uri), self._lock:
            content = content_of_search(
                space_text, backend=self._backend, digests=self._digests, now_s=time.time()
            )
            return self._deliver(content, model=None)

    def record_verdict(self, uid: str, quality: Quality) -> None:
        """Write the scores on the report split to a trial's run, once however often it is called.

        A trial without a run, or whose run was deleted, is passed over.

        Raises:
            TrackingError: MLflow refuses or cannot be reached.
        """
        from mlflow.entities import Metric

        with tracking_errors(self.uri), self._lock:
            run = self._find(uid)
            if run is None or not _is_active(run):
                return
            known = run.data.metrics
            # one time stamp and step: a second attempt writes the same rows, not more of them
            new = [
                Metric(name, value, timestamp=run.info.end_time or 0, step=0)
                for name, value in metrics_of_verdict(quality)
                if known.get(name) != value
            ]
            if new:
                self._client.log_batch(run.info.run_id, metrics=new)

    def mark_front(self, uids: Iterable[str]) -> None:
        """Tag the runs of these trials ``on_front=true``, and those of former members ``false``.

        Raises:
            TrackingError: MLflow refuses or cannot be reached.
        """
        members = set(uids)
        with tracking_errors(self.uri), self._lock:
            marked = set()
            for run in list(self._search("tags.on_front = 'true'", page=_PAGE)):
                uid = run.data.tags["trial_uid"]
                if uid in members:
                    marked.add(uid)
                elif _is_active(run):
                    self._client.set_tag(run.info.run_id, "on_front", "false")
            for uid in sorted(members - marked):
                found = self._find(uid)
                if found is not None and _is_active(found):
                    self._client.set_tag(found.info.run_id, "on_front", "true")

    def missing(self, uids: Iterable[str]) -> set[str]:
        """Return those trials that have no finished run, so that they can be recorded again.

        A run that somebody deleted in MLflow counts as there: it was deleted on purpose.

        Raises:
            TrackingError: MLflow refuses or cannot be reached.
        """
        wanted = set(uids)
        with tracking_errors(self.uri):
            finished = {
                run.data.tags.get("trial_uid")
                for run in self._search("attributes.status != 'RUNNING'", page=_PAGE)
            }
        return {uid for uid in wanted if uid not in finished}

    def _deliver(self, content: RunContent, *, model: Path | None) -> str:
        run = self._find(content.uid)
        if run is not None and run.info.status != "RUNNING":
            return str(run.info.run_id)
        if run is None:
            run = self._client.create_run(
                self.experiment_id,
                start_time=content.started_ms,
                tags=dict(content.tags),
                run_name=content.name,
            )
        run_id = str(run.info.run_id)
        holder, files = None, content.files
        if model is not None and content.engine_digest is not None:
            holder = self._engine_run(content.engine_digest) or run_id
            if holder == run_id:
                files = (*files, (f"model/engine{model.suffix}", model))
        self._log_files(run_id, content.texts, files)
        self._log_batch(run_id, content, engine_run=holder)
        self._client.log_inputs(run_id, datasets=_dataset_inputs(content.datasets))
        self._client.set_terminated(run_id, content.status, end_time=content.finished_ms)
        return run_id

    def _log_batch(self, run_id: str, content: RunContent, *, engine_run: str | None) -> None:
        from mlflow.entities import Metric, Param, RunTag

        self._client.log_batch(
            run_id,
            # one time stamp and step: a second attempt writes the same rows, not more of them
            metrics=[
                Metric(name, value, timestamp=content.finished_ms, step=0)
                for name, value in content.metrics
            ],
            params=[Param(name, value) for name, value in content.params],
            # all other tags came with the run
            tags=[] if engine_run is None else [RunTag("engine_run", engine_run)],
        )

    def _log_files(
        self,
        run_id: str,
        texts: Iterable[tuple[str, str]],
        files: Iterable[tuple[str, Path]],
    ) -> None:
        """Upload everything in one go, from a folder of links that gives the files their names."""
        with self._staging() as staged:
            for name, text in texts:
                (staged / name).write_text(text, encoding="utf-8")
            for name, source in files:
                link = staged / name
                link.parent.mkdir(exist_ok=True)
                link.symlink_to(source.resolve(strict=True))
            self._client.log_artifacts(run_id, str(staged))

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        """Make an empty folder for whoever holds the lock; what a kill left in it goes first."""
        folder = Path(self._lock.lock_file).with_suffix(".files")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _find(self, uid: str) -> "Run | None":
        return next(self._search(f"tags.trial_uid = '{_quoted(uid)}'", page=1), None)

    def _engine_run(self, digest: str) -> str | None:
        """Return the run that keeps the engine file, if one does."""
        if digest not in self._engine_runs:
            query = f"tags.engine_digest = '{_quoted(digest)}' and tags.engine_run != ''"
            run = next(self._search(query, page=1), None)
            if run is None:
                return None
            self._engine_runs[digest] = run.data.tags["engine_run"]
        return self._engine_runs[digest]

    def _search(self, query: str, *, page: int) -> "Iterator[Run]":
        from mlflow.entities import ViewType

        token = None
        while True:
            found = self._client.search_runs(
                [self.experiment_id],
                query,
                run_view_type=ViewType.ALL,
                max_results=page,
                page_token=token,
            )
            yield from found
            token = found.token
            if not token:
                return


def open_tracker(
    uri: str | None,
    *,
    workspace: Path,
    study: str,
    backend: str,
    space_text: str,
    digests: Mapping[str, str],
    retry: Retry = ONCE,
) -> MlflowTracker:
    """Open MLflow, making the database, the experiment and the search's own run where needed.

    Args:
        uri: MLflow's tracking URI; None is SQLite in the workspace.
        workspace: Folder of the lock, of the default database and of local artifacts.
        study: Name of the study, which names the experiment.
        backend: Name of the backend, for a tag.
        space_text: The space file as it was read.
        digests: SHA-256 by ``data:<split>`` and ``variant:<name>``.
        retry: Patience with a server.

    Raises:
        TrackingError: The URI is wrong, or the server or folder refuses.
    """
    uri = uri or f"sqlite:///{workspace.resolve() / 'mlflow.db'}"
    with tracking_errors(uri):
        _calm(retry)
        workspace.mkdir(parents=True, exist_ok=True)
        lock = FileLock(workspace / ".mlflow.lock", timeout=LOCK_TIMEOUT_S)
        with lock:  # two processes that fill one fresh database break it
            make_sqlite(uri)
            client = _client(uri)
            experiment_id = _experiment(client, study, uri=uri, workspace=workspace)
    tracker = MlflowTracker(
        client, experiment_id, uri=uri, lock=lock, backend=backend, digests=digests
    )
    tracker.record_search(space_text)
    return tracker


def _calm(retry: Retry) -> None:
    """Keep MLflow from calling home, chatting and waiting.

    MLflow takes all this from the environment only, and the first two before it is imported.
    Variables that are set stay as they are.
    """
    for variable, value in (
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("MLFLOW_LOGGING_LEVEL", "WARNING"),
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", str(retry.attempts)),
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", str(retry.timeout_s)),
        # results go to stdout, where MLflow would print two lines per run
        ("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"),
    ):
        os.environ.setdefault(variable, value)


def _client(uri: str) -> "MlflowClient":
    with legacy_tables():
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=uri)


def _experiment(client: "MlflowClient", study: str, *, uri: str, workspace: Path) -> str:
    found = client.get_experiment_by_name(study)
    if found is not None and found.lifecycle_stage == "deleted":
        raise TrackingError(
            f"MLflow experiment {study!r} was deleted",
            hint=f"bring it back: mlflow experiments restore -x {found.experiment_id}",
        )
    if found is not None:
        return str(found.experiment_id)
    local = uri.split(":", 1)[0].split("+", 1)[0] in _LOCAL_SCHEMES
    root = (workspace.resolve() / "mlartifacts").as_uri() if local else None
    return str(client.create_experiment(study, artifact_location=root))


def _dataset_inputs(datasets: Iterable[tuple[str, str]]) -> "list[DatasetInput]":
    from mlflow.entities import Dataset, DatasetInput, InputTag

    return [
        DatasetInput(
            Dataset(
                name=split,
                digest=digest[:_DIGEST_LENGTH],
                source_type="trifront",
                source=json.dumps({"sha256": digest}),
            ),
            tags=[InputTag("mlflow.data.context", split), InputTag("sha256", digest)],
        )
        for split, digest in datasets
    ]


def _is_active(run: "Run") -> bool:
    """Tell whether a run was not deleted: MLflow writes to no other."""
    return bool(run.info.lifecycle_stage == "active")


def _quoted(text: str) -> str:
    r"""Make text safe between single quotes in a query; MLflow's queries know no escape.

    Raises:
        TrackingError: A quote in an identifier, which none of ours has.
    """
    if "'" in text or "\\" in text:
        raise TrackingError(f"identifier {text!r} cannot be looked up in MLflow")
    return text
