"""Messages, records in a spool and an MLflow of one's own, for tests of what MLflow is told."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
from untraced import untraced

from optimizer.study.records import TrialRecord
from optimizer.tracking.client import open_publisher
from optimizer.tracking.database import legacy_tables
from optimizer.tracking.destination import Destination, destination_of
from optimizer.tracking.messages import EngineBuilt, Envelope, Experiment, Message, TrialEnded
from optimizer.tracking.publisher import Publisher, Result
from optimizer.tracking.run_content import StudyFacts, content_of_record
from optimizer.tracking.spool import Attachment, Parcel, Spool
from optimizer.workspace import Workspace, save_blocks
from search_spaces.deployment import Deployment, Precision
from trials.measurement import Block, Costs, EngineRecord, Estimate, Speed, exact
from trials.outcome import Completed, Environment, Failed, Outcome

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

STUDY_ID = "0123456789ab"
EXPERIMENT = Experiment(name="demo", study_id=STUDY_ID, description="a *demo*")
DEPLOYMENT = Deployment(
    variant="small",
    precision=Precision.INT8,
    batch_size=4,
    concurrency=2,
    options=(("threads", 1),),
)
ENVIRONMENT = Environment(facts=(("cpu_model", "a fast one"), ("gpu", "H0"), ("host", "h1")))
FACTS = StudyFacts(
    study_id=STUDY_ID,
    backend="ort",
    digests={
        f"data:{split}": sha256(split.encode()).hexdigest()
        for split in ("calibration", "search", "report")
    },
    objectives=("latency_p99_ms", "throughput_sps"),
)


def an_estimate(value: float) -> Estimate:
    """Make an estimate with an interval of ten percent either way."""
    return Estimate(value=value, low=value * 0.9, high=value * 1.1)


def a_measurement(engine: str = "e" * 64) -> Completed:
    """Measure something made up, by an engine of this digest."""
    latency = an_estimate(0.002)
    return Completed(
        deployment=DEPLOYMENT,
        engine=EngineRecord(
            variant_digest="v" * 64,
            model_digest="m" * 64,
            engine_digest=engine,
            engine_key="k" * 64,
            size_bytes=1_000_000,
        ),
        speed=Speed(
            latency_mean_s=latency,
            latency_p50_s=latency,
            latency_p90_s=latency,
            latency_p99_s=replace(latency, high=None),
            latency_p999_s=exact(float("inf")),
            throughput_sps=an_estimate(1000.0),
            requests=1000,
            blocks=10,
            target_met=True,
        ),
        quality=None,
        peak_memory_bytes=2_000_000,
        costs=Costs(
            convert_s=1.5, build_s=0.5, score_s=0.0, load_s=0.01, cold_call_s=0.02, measure_s=1.0
        ),
        environment=ENVIRONMENT,
        flags=("contended", "target_not_met"),
    )


def a_failure() -> Failed:
    """Break."""
    return Failed(
        deployment=DEPLOYMENT, kind="crash", reason="killed by SIGSEGV", environment=ENVIRONMENT
    )


def a_record(uid: str, outcome: Outcome | None = None) -> TrialRecord:
    """End a trial."""
    return TrialRecord(
        uid=uid,
        number=7,
        study="demo",
        outcome=outcome or a_measurement(),
        started_s=1_700_000_000.5,
        finished_s=1_700_000_003.25,
    )


def a_trial(uid: str, outcome: Outcome | None = None, **more: Any) -> TrialEnded:
    """Tell of a trial."""
    return content_of_record(a_record(uid, outcome), FACTS, **more)


def an_engine(digest: str) -> EngineBuilt:
    """Tell of an engine."""
    return EngineBuilt(
        uid=digest,
        name=f"small-int8-{digest[:8]}",
        backend="ort",
        tags=(("study_id", STUDY_ID),),
        params=(("variant", "small"),),
        file="engine.onnx",
    )


def some_blocks(path: Path) -> Path:
    """Write raw blocks."""
    latencies_s = np.random.default_rng(0).lognormal(-7, 0.1, 100)
    block = Block(start_s=0.0, window_s=0.1, latencies_s=latencies_s, batch_size=1)
    save_blocks((block,) * 4, path)
    return path


def put(spool: Spool, message: Message, files: Mapping[str, Path | bytes] | None = None) -> str:
    """Spool a message with files; return the record's name."""
    attachments = [Attachment(name=name, source=it) for name, it in (files or {}).items()]
    return spool.put(Envelope(experiment=EXPERIMENT, message=message), attachments)


def parcel(
    folder: Path,
    message: Message,
    files: Mapping[str, Path | bytes] | None = None,
    *,
    experiment: Experiment = EXPERIMENT,
) -> Parcel:
    """Spool a message and take it out again."""
    spool = Spool(folder)
    attachments = [Attachment(name=name, source=it) for name, it in (files or {}).items()]
    return spool.read(spool.put(Envelope(experiment=experiment, message=message), attachments))


@dataclass
class ListeningPublisher:
    """A publisher that remembers what it was told, and raises what a test puts in its way."""

    troubles: dict[str, Exception] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)

    def publish(self, parcel: Parcel) -> Result:
        """Remember the message, or raise the trouble of its uid."""
        message = parcel.envelope.message
        self.tried.append(f"{message.kind} {message.uid}")
        if message.uid in self.troubles:
            raise self.troubles[message.uid]
        self.told.append(f"{message.kind} {message.uid}")
        return "delivered"


@dataclass
class OwnMlflow:
    """An MLflow that a test publishes to, and looks into."""

    destination: Destination
    publisher: Publisher

    @property
    def client(self) -> "MlflowClient":
        """MLflow's own client."""
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.destination.uri)

    @property
    def experiment_id(self) -> str:
        """Of the demo."""
        return self.publisher.runs.experiment(EXPERIMENT)

    def publish(self, message: Message, files: Mapping[str, Path | bytes] | None = None) -> Result:
        """Spool a message and publish it."""
        return self.publisher.publish(parcel(self.destination.folder, message, files))

    def runs(self, uid: str) -> "list[Run]":
        """Return the active runs of a trial or search."""
        query = f"tags.trial_uid = '{uid}'"
        return list(self.client.search_runs([self.experiment_id], query))

    def run(self, uid: str) -> "Run":
        """Return the one active run of a trial or search."""
        (run,) = self.runs(uid)
        return run

    def folder(self, uid: str) -> Path:
        """Return where the files of a run lie."""
        return Path(self.run(uid).info.artifact_uri.removeprefix("file://"))


def own_mlflow(root: Path) -> OwnMlflow:
    """Make the own MLflow of a workspace; seconds, for its database."""
    workspace = Workspace(root=root)
    workspace.create()
    destination = destination_of(None, workspace)
    return OwnMlflow(destination, open_publisher(destination, nullcontext))


def a_free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


class Server:
    """MLflow's own server, as small as it gets; may be killed and started again."""

    def __init__(self, folder: Path, *, options: Sequence[str] = ()) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.port = a_free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers; the test's time limit ends the waiting."""
        where = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        stores = ["--backend-store-uri", f"sqlite:///{self.folder}/db"]
        stores += ["--artifacts-destination", str(self.folder / "files")]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *where, *stores, *self._options],
            cwd=self.folder,
            env=untraced()
            | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # it has children, which end with the group
        )
        wait_for(f"{self.uri}/health")

    def look_in(self) -> "MlflowClient":
        """Look into its database from behind, so that no connection to it stays open here."""
        with legacy_tables():
            from mlflow import MlflowClient

            return MlflowClient(tracking_uri=f"sqlite:///{self.folder}/db")

    def kill(self) -> None:
        """Kill it, as a power cut would."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextmanager
def a_server(folder: Path, *, options: Sequence[str] = ()) -> Iterator[Server]:
    """Run MLflow's server for the length of a test."""
    server = Server(folder, options=options)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def wait_for(url: str) -> None:
    """Wait until an address answers."""
    while True:
        try:
            with urlopen(url):  # noqa: S310 - our own server's address
                return
        except (URLError, ConnectionError):
            time.sleep(0.1)
