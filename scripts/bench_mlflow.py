"""Measure what finding a run costs in MLflow when an experiment has thousands of them.

Fills an experiment with runs that carry the tags of trials, and asks for some of them by their
``trial_uid`` as a courier does before it tells of a trial, straight in SQLite and over MLflow's
own server; and times the telling of one whole trial, which finds, makes, fills and ends a run. To
reach: at most 1 s a look-up at 5,000 runs.

    python scripts/bench_mlflow.py [--runs 5000] [--tries 50]
"""

import argparse
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np

from optimizer.tracking.client import open_publisher
from optimizer.tracking.database import make_sqlite
from optimizer.tracking.destination import destination_of
from optimizer.tracking.messages import Envelope, Experiment, TrialEnded
from optimizer.tracking.publisher import Publisher
from optimizer.tracking.spool import Spool
from optimizer.workspace import Workspace

EXPERIMENT = Experiment(name="many", study_id="0123456789ab", description="for a benchmark")
TAGS = tuple((f"tag_{number}", "x" * 20) for number in range(10))
METRICS = tuple((f"metric_{number}", float(number)) for number in range(50))


def trial(uid: str) -> TrialEnded:
    """Make a trial up, as large as a real one but for its raw blocks."""
    return TrialEnded(
        uid=uid,
        name=uid,
        started_ms=1,
        finished_ms=2,
        status="FINISHED",
        tags=(("trial_uid", uid), ("study_id", EXPERIMENT.study_id), *TAGS),
        params=tuple((f"param_{number}", "1") for number in range(6)),
        metrics=METRICS,
        texts=(("outcome.json", "x" * 5_000), ("environment.json", "x" * 2_000)),
    )


def fill(publisher: Publisher, runs: int) -> str:
    """Make so many runs; return their experiment's id."""
    experiment_id = publisher.runs.experiment(EXPERIMENT)
    for number in range(runs):
        told = trial(f"old-{number}")
        made = publisher.runs.create(experiment_id, name=told.name, started_ms=1, tags=told.tags)
        publisher.runs.set_status(made.info.run_id, "FINISHED", finished_ms=2)
    return experiment_id


def timed_ms(work: Callable[[int], object], tries: int) -> str:
    """Time something; return its median and largest time."""
    spent_ms = []
    for number in range(tries):
        started = perf_counter()
        work(number)
        spent_ms.append((perf_counter() - started) * 1e3)
    return f"median {np.median(spent_ms):7.1f} ms, largest {max(spent_ms):7.1f} ms"


def measure(publisher: Publisher, folder: Path, *, runs: int, tries: int, name: str) -> None:
    """Print what look-ups and tellings take."""
    experiment_id = publisher.runs.experiment(EXPERIMENT)
    chance = np.random.default_rng(0)
    spool = Spool(folder)

    def find(_: int) -> None:
        wanted = f"old-{chance.integers(runs)}"
        assert publisher.runs.of_uid(experiment_id, wanted) is not None

    def miss(number: int) -> None:
        assert publisher.runs.of_uid(experiment_id, f"none-{number}") is None

    def tell(number: int) -> None:
        envelope = Envelope(experiment=EXPERIMENT, message=trial(f"{name}-{runs}-{number}"))
        assert publisher.publish(spool.read(spool.put(envelope))) == "delivered"

    for what, work in (("find a run", find), ("find none", miss), ("tell a trial", tell)):
        if runs or work is not find:
            print(f"{name:7} {runs:6d} runs  {what:13} {timed_ms(work, tries)}", flush=True)


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Run MLflow's server over the database of a folder."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    where = ("--host", "127.0.0.1", "--port", str(port), "--workers", "1")
    stores = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    stores += ["--artifacts-destination", str(folder / "served")]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *where, *stores],
        cwd=folder,
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_for(f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(url: str) -> None:
    while True:
        try:
            with urlopen(url):  # noqa: S310 - our own server's address
                return
        except (URLError, ConnectionError):
            time.sleep(0.2)


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5_000)
    parser.add_argument("--tries", type=int, default=50)
    arguments = parser.parse_args()
    runs, tries = arguments.runs, arguments.tries
    print(f"{platform.machine()}, {os.cpu_count()} cores, mlflow {version('mlflow')}")
    print(f"load average {os.getloadavg()[0]:.2f}")
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(root=Path(folder))
        own = destination_of(None, workspace)
        make_sqlite(own.uri)
        direct = open_publisher(own, nullcontext)
        measure(direct, workspace.root / "spool", runs=0, tries=tries, name="sqlite")
        fill(direct, runs)
        measure(direct, workspace.root / "spool", runs=runs, tries=tries, name="sqlite")
        with server(workspace.root) as uri:
            served = open_publisher(destination_of(uri, workspace), nullcontext)
            measure(served, workspace.root / "spool", runs=runs, tries=tries, name="server")
    print(f"load average {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
