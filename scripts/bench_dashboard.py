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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from time import perf_counter, process_time
from urllib.parse import urlsplit

import numpy as np
import optuna
import psutil
from sqlalchemy import event

from optimizer.study.objectives import told_of_completed, told_of_infeasible
from optimizer.study.records import json_from_outcome
from optimizer.study.storage import open_storage
from optimizer.study.study import SearchStudy, open_study
from optimizer.workspace import Workspace, save_blocks
from search_spaces.catalog import space_path
from search_spaces.deployment import Deployment
from search_spaces.files import space_from_yaml
from trials.bench import BenchFacts
from trials.machine.environment import environment
from trials.measurement import Block, Costs, EngineRecord, Quality
from trials.measuring.statistics import proportion, summarize
from trials.outcome import Completed, Infeasible, Outcome

LIMIT_MS = 500.0
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


def make_study(trials: int, workspace: Workspace) -> SearchStudy:
    """Write a study as a search would, without the time that a search takes."""
    space = space_from_yaml(space_path("fake"))
    storage = open_storage(workspace.storage_url, workspace)
    assert isinstance(storage, optuna.storages.RDBStorage)
    _hurry(storage)
    study = open_study(storage, workspace.storage_url, "five-thousand", space=space, facts=FACTS)
    rng = np.random.default_rng(0)
    blocks = _blocks(rng)
    first = workspace.blocks(study.uid(0))
    save_blocks(blocks, first)
    deployments = cycle(space.deployments())
    for number in range(trials):
        outcome = _outcome(next(deployments), blocks, rng)
        storage.create_new_trial(study.study._study_id, _frozen(outcome, study))  # noqa: SLF001
        if number and isinstance(outcome, Completed):
            workspace.blocks(study.uid(number)).hardlink_to(first)
    study.refresh()
    return study


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


def paths_of(study: SearchStudy, trials: int) -> dict[str, str]:
    """Name what a browser asks for: on opening a study, and then with every poll."""
    study_id = study.study._study_id  # noqa: SLF001 - the page's address has it
    return {
        "the page": "/dashboard",
        "script": "/static/bundle.js",
        "what is there": "/api/meta",
        "list of studies": "/api/studies",
        "study, opened": f"/api/studies/{study_id}?after=0",
        "study, polled": f"/api/studies/{study_id}?after={trials}",
        "importances": f"/api/studies/{study_id}/param_importances",
    }


def time_paths(port: int, paths: dict[str, str], rounds: int) -> dict[str, Timing]:
    """Ask for each path in turn, ``rounds`` times after the first."""
    asked = {name: [_ask(port, path)] for name, path in paths.items()}
    for _ in range(rounds):
        for name, path in paths.items():
            asked[name].append(_ask(port, path))
    return {
        name: Timing(
            first_ms=answers[0][0],
            again_ms=tuple(answer[0] for answer in answers[1:]),
            status=answers[-1][1],
            size_bytes=answers[-1][2],
        )
        for name, answers in asked.items()
    }


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
        workspace.create()
        began_s = process_time()
        study = make_study(arguments.trials, workspace)
        print(
            f"study of {arguments.trials} trials made in {process_time() - began_s:.0f} s of CPU"
        )
        paths = paths_of(study, arguments.trials)
        found = {}
        for program in (_OURS, _THEIRS):
            with serving(program, workspace.storage_url, str(workspace.root)) as (process, port):
                found[program] = time_paths(port, paths, arguments.rounds)
                print(f"server: {process.memory_info().rss / 1e6:.0f} MB resident")
    _print_table(found[_OURS], found[_THEIRS])
    print(f"load average {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
