"""Time every request that a page of the dashboard makes, ours beside the unmodified one.

Makes a study of 5,000 trials in SQLite with everything that a search writes (outcomes, raw blocks,
owners), serves it twice, by us and by optuna-dashboard as it is installed, each in a process of
its own, and asks both for the same paths in turn. *First* is the first answer after the start of
the server, *again* the median of later ones. To reach: at most 500 ms for each path but the first
look at a study. optuna-dashboard keeps its trials for ten seconds and shows neither constraints,
notes, plots nor artifacts of such a study; ours looks anew each time.

    python scripts/bench_dashboard.py [--trials 5000] [--rounds 7]
"""

import argparse
import http.client
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from time import perf_counter
from urllib.parse import urlsplit

import numpy as np
import optuna
import psutil
from sqlalchemy import event

from optimizer.dashboard.artifacts import HISTOGRAM, identity_of
from optimizer.study.objectives import told_of_completed, told_of_infeasible
from optimizer.study.opening import open_study
from optimizer.study.records import json_from_outcome
from optimizer.study.storage import open_storage
from optimizer.study.study import SearchStudy
from optimizer.workspace import Workspace, save_blocks
from search_spaces.catalog import space_path
from search_spaces.deployment import Deployment
from search_spaces.files import space_from_yaml
from trials.bench import BenchFacts
from trials.capabilities import EngineIdentity
from trials.machine.environment import environment
from trials.measurement import Block, Costs, EngineRecord, Quality
from trials.measuring.statistics import proportion, summarize
from trials.outcome import Completed, Infeasible, Outcome

BLOCKS, REQUESTS = 20, 250  # of the one trial whose raw blocks all share
SAMPLES = 3_000
VARIANTS = ("tiny", "small", "medium", "large", "greedy", "brittle")  # of the shipped space
FACTS = BenchFacts(
    digests=(
        ("data:report", "e" * 64),
        ("data:search", "d" * 64),
        *((f"variant:{name}", name[0] * 64) for name in VARIANTS),
    ),
    samples=(("search", SAMPLES),),
    environment=(("backend", "fake"), ("host", "0123456789ab")),
    engines=EngineIdentity(axes=("variant", "precision")),
)
ENVIRONMENT = environment()
_OURS = (
    "import sys\n"
    "from pathlib import Path\n"
    "from optimizer.dashboard.server import Door, opened_dashboard\n"
    "from optimizer.workspace import Workspace\n"
    "workspace = Workspace(root=Path(sys.argv[2]))\n"
    "with opened_dashboard(sys.argv[1], workspace, Door(port=0)) as page:\n"
    "    print(page.address, flush=True)\n"
    "    page.serve()"
)
_THEIRS = (
    "import sys\n"
    "from socketserver import ThreadingMixIn\n"
    "from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server\n"
    "from optuna_dashboard import wsgi\n"
    "class Server(ThreadingMixIn, WSGIServer): daemon_threads = True\n"
    "class Quiet(WSGIRequestHandler):\n"
    "    def log_message(self, *_): pass\n"
    "server = make_server('127.0.0.1', 0, wsgi(sys.argv[1]), Server, Quiet)\n"
    "print(f'http://127.0.0.1:{server.server_port}/dashboard/', flush=True)\n"
    "server.serve_forever()"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Milliseconds from the request to the last byte.

    Attributes:
        again_ms: Later answers, in order.
        size_bytes: Length of the last answer's body.
    """

    first_ms: float
    again_ms: tuple[float, ...]
    status: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request of the page.

    Attributes:
        before: Called before each time.
    """

    name: str
    path: str
    before: Callable[[], None] = lambda: None


class StudyMaker:
    """Writes a study as a search would, without the time that a search takes."""

    def __init__(self, workspace: Workspace) -> None:
        workspace.create()
        space = space_from_yaml(space_path("fake"))
        url = workspace.storage_url
        storage = open_storage(url, workspace)
        assert isinstance(storage, optuna.storages.RDBStorage)
        _hurry(storage)
        self.study = open_study(storage, url, "made-up", space=space, facts=FACTS)
        self.study_id: int = self.study.study._study_id  # noqa: SLF001 - the page's address has it
        self._storage = storage
        self._workspace = workspace
        self._rng = np.random.default_rng(0)
        self._blocks = _blocks(self._rng)
        self._first = workspace.blocks(self.study.uid(0))
        save_blocks(self._blocks, self._first)
        self._deployments = cycle(space.deployments())
        self._number = 0

    def add(self) -> None:
        """Write one trial; all share the raw blocks of the first."""
        outcome = _outcome(next(self._deployments), self._blocks, self._rng)
        self._storage.create_new_trial(self.study_id, _frozen(outcome, self.study))
        if self._number and isinstance(outcome, Completed):
            self._workspace.blocks(self.study.uid(self._number)).hardlink_to(self._first)
        self._number += 1


def _hurry(storage: optuna.storages.RDBStorage) -> None:
    """Let SQLite answer before the disk has it: a benchmark may lose its study."""

    @event.listens_for(storage.engine, "connect")
    def _(connection: object, _record: object) -> None:
        connection.execute("PRAGMA synchronous=OFF")  # type: ignore[attr-defined]

    storage.engine.dispose()  # what is open was opened patiently


def _frozen(outcome: Outcome, study: SearchStudy) -> optuna.trial.FrozenTrial:
    if isinstance(outcome, Completed):
        told = told_of_completed(outcome, study.space)
    else:
        assert isinstance(outcome, Infeasible)
        told = told_of_infeasible(outcome, study.space, [])
    return optuna.create_trial(
        values=list(told.values),
        params=study.encoding.params(outcome.deployment),
        distributions=study.encoding.distributions,
        constraints=dict(told.constraints),
        user_attrs={
            "owner": '["host", "boot", 1, 1.0]',
            "outcome": json_from_outcome(outcome),
        },
    )


def _blocks(rng: np.random.Generator) -> tuple[Block, ...]:
    return tuple(
        Block(
            start_s=number * 0.1,
            window_s=REQUESTS * 1e-3,
            latencies_s=1e-3 * rng.lognormal(0.0, 0.1, REQUESTS),
            batch_size=1,
        )
        for number in range(BLOCKS)
    )


def _outcome(deployment: Deployment, blocks: Sequence[Block], rng: np.random.Generator) -> Outcome:
    """Make an outcome up: latency grows with work, batch and concurrency, and some cannot run."""
    if rng.random() < 0.1:  # noqa: PLR2004 - as many as a space with large batches has
        return Infeasible(
            deployment=deployment,
            kind="memory",
            reason="needs 25.0 GB of 24.0 GB",
            environment=ENVIRONMENT,
        )
    index = VARIANTS.index(deployment.variant)
    slower = 2.0**index * (0.3 + 0.7 * deployment.batch_size) * deployment.concurrency**0.8
    slower *= rng.lognormal(0.0, 0.2)
    unit = summarize(blocks, target_met=True)
    rate = deployment.batch_size * deployment.concurrency / slower
    speed = replace(
        unit,
        latency_mean_s=unit.latency_mean_s.scaled(slower),
        latency_p50_s=unit.latency_p50_s.scaled(slower),
        latency_p90_s=unit.latency_p90_s.scaled(slower),
        latency_p99_s=unit.latency_p99_s.scaled(slower),
        latency_p999_s=unit.latency_p999_s.scaled(slower),
        throughput_sps=unit.throughput_sps.scaled(rate),
    )
    right = round((0.84 + 0.02 * index) * SAMPLES - rng.integers(100))
    return Completed(
        deployment=deployment,
        engine=EngineRecord(
            variant_digest="v" * 64,
            model_digest="m" * 64,
            engine_digest="e" * 64,
            engine_key="k" * 64,
            size_bytes=10**6,
        ),
        speed=speed,
        quality=Quality(
            split="search",
            split_digest="d" * 64,
            samples=SAMPLES,
            scores=(("accuracy", proportion(right, SAMPLES)),),
        ),
        peak_memory_bytes=10**8,
        costs=Costs(
            convert_s=0.1, build_s=0.1, score_s=0.1, load_s=0.1, cold_call_s=0.1, measure_s=2.0
        ),
        environment=ENVIRONMENT,
    )


@contextmanager
def serving(program: str, *arguments: str) -> Iterator[tuple[psutil.Process, int]]:
    """Serve in a process of its own; give the process and its port."""
    server = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        port = urlsplit(server.stdout.readline().strip()).port
        assert port is not None, "the server did not start"
        yield psutil.Process(server.pid), port
    finally:
        server.kill()
        server.wait()


def requests_of(maker: StudyMaker, trials: int) -> tuple[Request, ...]:
    """Name what a browser asks for: on opening a study, and then with every poll."""
    study = f"/api/studies/{maker.study_id}"
    return (
        Request(name="page", path="/dashboard"),
        Request(name="script", path="/static/bundle.js"),
        Request(name="abilities", path="/api/meta"),
        Request(name="list of studies", path="/api/studies"),
        Request(name="study, opened", path=f"{study}?after=0"),
        Request(name="study, polled", path=f"{study}?after={trials}"),
        Request(name="importances", path=f"{study}/param_importances"),
        Request(name="polled, 1 new", path=f"{study}?after={trials}", before=maker.add),
        Request(name="imp., 1 new", path=f"{study}/param_importances", before=maker.add),
    )


def time_requests(port: int, requests: Sequence[Request], rounds: int) -> dict[str, Timing]:
    """Make each request in turn, ``rounds`` times after the first."""
    asked: dict[str, list[tuple[float, int, int]]] = {request.name: [] for request in requests}
    for _ in range(1 + rounds):
        for request in requests:
            request.before()
            asked[request.name].append(_ask(port, request.path))
    return {
        name: Timing(
            first_ms=answers[0][0],
            again_ms=tuple(answer[0] for answer in answers[1:]),
            status=answers[-1][1],
            size_bytes=answers[-1][2],
        )
        for name, answers in asked.items()
    }


def time_histograms(port: int, maker: StudyMaker, rounds: int) -> list[float]:
    """Ask for the histograms of several trials, each of which is drawn for this; milliseconds."""
    path = f"/artifacts/{maker.study_id}"
    with_blocks = [
        number
        for number, record in enumerate(maker.study.records()[: 4 * rounds])
        if isinstance(record.outcome, Completed)
    ]
    found = []
    for number in with_blocks[: 1 + rounds]:
        trial_id = number + 1  # SQLite counts from one, and this is the only study
        took_ms, status, _ = _ask(port, f"{path}/{trial_id}/{identity_of(trial_id, HISTOGRAM)}")
        assert status == http.client.OK, status
        found.append(took_ms)
    return found


def _ask(port: int, path: str) -> tuple[float, int, int]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        began_s = perf_counter()
        connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
        answer = connection.getresponse()
        body = answer.read()
        return (perf_counter() - began_s) * 1e3, answer.status, len(body)
    finally:
        connection.close()


def _print_table(ours: dict[str, Timing], theirs: dict[str, Timing]) -> None:
    print(f"{'ms a request':16} {'ours first':>11} {'again':>7} {'worst':>7} {'MB':>6}", end="")
    print(f" {'theirs first':>13} {'again':>7} {'worst':>7} {'MB':>6}")
    for name, mine in ours.items():
        other = theirs[name]
        print(f"{name:16}", end="")
        for timing, width in ((mine, 11), (other, 13)):
            again = statistics.median(timing.again_ms)
            print(
                f" {timing.first_ms:{width}.0f} {again:7.1f} {max(timing.again_ms):7.0f}", end=""
            )
            print(f" {timing.size_bytes / 1e6:6.2f}", end="")
        print("" if mine.status == other.status == 200 else f"  {mine.status} {other.status}")  # noqa: PLR2004


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    packages = " ".join(f"{name} {version(name)}" for name in ("optuna", "optuna-dashboard"))
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {packages}")
    print(f"Python {platform.python_version()}, load average {os.getloadavg()[0]:.2f}")
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(root=Path(folder) / "trifront")
        maker = StudyMaker(workspace)
        for _ in range(arguments.trials):
            maker.add()
        maker.study.refresh()
        requests = requests_of(maker, arguments.trials)
        found = {}
        drawn_ms: list[float] = []
        for program in (_OURS, _THEIRS):
            with serving(program, workspace.storage_url, str(workspace.root)) as (process, port):
                found[program] = time_requests(port, requests, arguments.rounds)
                if program is _OURS:
                    drawn_ms = time_histograms(port, maker, arguments.rounds)
                print(f"server: {process.memory_info().rss / 1e6:.0f} MB resident")
    _print_table(found[_OURS], found[_THEIRS])
    print(f"a histogram: first {drawn_ms[0]:.0f} ms, then {statistics.median(drawn_ms[1:]):.0f}")
    print(f"load average {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
