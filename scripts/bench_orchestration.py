"""Measure what a search costs beside converting, building, measuring and scoring.

Runs a whole search (Optuna on SQLite, raw blocks on disk, records for MLflow in the spool and from
there in SQLite, the plain view) with a runner that makes its outcomes up, and prints the CPU time
of the search's process per trial in windows, so that growth shows, and the part of it that telling
MLflow takes. The runner's own CPU time is taken out. Then it waits for the courier and says what
that has used, in a process of its own and never beside a measurement. To reach: at most 50 ms a
trial for telling, at 1,000 trials as at the first.

    python scripts/bench_orchestration.py [--trials 1000] [--sampler tpe] [--mlflow none]
"""

import argparse
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import psutil
from rich.console import Console

from optimizer.front.front import Front
from optimizer.search.budget import Budget
from optimizer.search.sampler_name import SamplerName
from optimizer.search.samplers import sampler_named
from optimizer.search.search import Search
from optimizer.search.views import PlainView
from optimizer.study.opening import open_study
from optimizer.study.records import TrialRecord
from optimizer.study.storage import open_storage
from optimizer.study.study import SearchStudy
from optimizer.tracking.courier import Courier, WaitLimits
from optimizer.tracking.destination import destination_of
from optimizer.tracking.gate import Gate
from optimizer.tracking.tracker import SpoolingTracker
from optimizer.workspace import Workspace
from search_spaces.deployment import Deployment
from search_spaces.files import space_from_yaml
from trials.bench import BenchFacts
from trials.capabilities import EngineIdentity
from trials.machine.environment import environment
from trials.measurement import Block, Costs, EngineRecord, Quality
from trials.measuring.statistics import proportion, summarize
from trials.outcome import Completed, Outcome

SPACE = """
version: 1
name: orchestration
backend: fake
task: {kind: classification}
variants:
  - {name: small, fake: {work_ms: 0.1, accuracy: 0.80, size_mb: 1}}
  - {name: medium, fake: {work_ms: 0.3, accuracy: 0.90, size_mb: 3}}
  - {name: large, fake: {work_ms: 1.0, accuracy: 0.95, size_mb: 9}}
axes:
  precision: [fp32, fp16, int8]
  batch_size: [1, 2, 4, 8, 16, 32, 64, 128]
  concurrency: [1, 2, 3, 4, 5, 6, 7, 8]
  threads: [1, 2, 4]
constraints: ["accuracy >= 0.7"]
"""
BLOCKS, REQUESTS = 20, 500  # of a trial
SAMPLES = 3_000
FACTS = BenchFacts(
    digests=(
        ("data:search", "d" * 64),
        ("variant:large", "c" * 64),
        ("variant:medium", "b" * 64),
        ("variant:small", "a" * 64),
    ),
    samples=(("search", SAMPLES),),
    environment=(),
    engines=EngineIdentity(axes=("variant", "precision")),
)


class MadeUpRunner:
    """Answers at once with outcomes of a realistic size, and counts its own CPU time."""

    def __init__(self) -> None:
        self.cpu_s = 0.0
        self._rng = np.random.default_rng(0)
        self._environment = environment()

    def run(self, deployment: Deployment, *, on_phase: Callable[[str], None]) -> Outcome:
        """Make an outcome up: latency grows with work, batch and concurrency."""
        started = process_time()
        on_phase("measure")
        outcome = self._made_up(deployment)
        self.cpu_s += process_time() - started
        return outcome

    def report(self, deployment: Deployment) -> Quality:
        """Make a verdict up."""
        return replace(self._quality(deployment), split="report")

    def _made_up(self, deployment: Deployment) -> Completed:
        work_s = {"small": 1e-4, "medium": 3e-4, "large": 1e-3}[deployment.variant]
        mean_s = work_s * (0.3 + 0.7 * deployment.batch_size) * deployment.concurrency**0.8
        blocks = tuple(
            Block(
                start_s=number * 0.1,
                window_s=REQUESTS * mean_s / deployment.concurrency,
                latencies_s=mean_s * self._rng.lognormal(0.0, 0.1, REQUESTS),
                batch_size=deployment.batch_size,
            )
            for number in range(BLOCKS)
        )
        return Completed(
            deployment=deployment,
            engine=EngineRecord(
                variant_digest="v" * 64,
                model_digest="m" * 64,
                engine_digest=f"{deployment.variant}-{deployment.precision}",
                engine_key="k" * 64,
                size_bytes=10**6,
            ),
            speed=summarize(blocks, target_met=True),
            quality=self._quality(deployment),
            peak_memory_bytes=10**8,
            costs=Costs(
                convert_s=0.1, build_s=0.1, score_s=0.1, load_s=0.1, cold_call_s=0.1, measure_s=2.0
            ),
            environment=self._environment,
            blocks=blocks,
        )

    def _quality(self, deployment: Deployment) -> Quality:
        share = {"small": 0.8, "medium": 0.9, "large": 0.95}[deployment.variant]
        return Quality(
            split="search",
            split_digest="d" * 64,
            samples=SAMPLES,
            scores=(("accuracy", proportion(round(share * SAMPLES), SAMPLES)),),
        )


@dataclass
class CountingView:
    """The plain view, with the CPU time at the end of each trial."""

    plain: PlainView
    runner: MadeUpRunner
    spent_s: list[float]

    def began(self, number: int, deployment: Deployment) -> None:
        """Note the CPU time so far, the runner's excluded."""
        self.spent_s.append(process_time() - self.runner.cpu_s)
        self.plain.began(number, deployment)

    def phase(self, name: str) -> None:
        """Pass on."""
        self.plain.phase(name)

    def ended(self, record: TrialRecord, front: Front) -> None:
        """Pass on."""
        self.plain.ended(record, front)

    def note(self, text: str) -> None:
        """Pass on."""
        self.plain.note(text)


@dataclass
class CountingTracker:
    """The spooling tracker, with the CPU time of each record."""

    plain: SpoolingTracker
    spent_s: list[float]

    def begin(self, records: Sequence[TrialRecord]) -> int:
        """Pass on."""
        return self.plain.begin(records)

    def record(self, record: TrialRecord, front: Front) -> None:
        """Pass on, and note what it took."""
        started = process_time()
        self.plain.record(record, front)
        self.spent_s.append(process_time() - started)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a search has used.

    Attributes:
        begun_s: CPU time of the search's process at the begin of each trial, seconds.
        telling_s: CPU time that telling took, per trial; empty without MLflow.
        courier_s: CPU time of the courier.
        delivered_s: Wall time from the end of the search until all was delivered.
    """

    begun_s: Sequence[float]
    telling_s: Sequence[float] = ()
    courier_s: float = 0.0
    delivered_s: float = 0.0


def opened(root: Path, sampler: SamplerName, trials: int) -> tuple[SearchStudy, Workspace]:
    """Make the study of the benchmark."""
    workspace = Workspace(root=root / "trifront")
    workspace.create()
    file = root / "space.yaml"
    file.write_text(SPACE, encoding="utf-8")
    space = space_from_yaml(file)
    url = workspace.storage_url
    study = open_study(open_storage(url, workspace), url, space.name, space=space, facts=FACTS)
    study.study.sampler, _ = sampler_named(
        sampler, study.encoding, seed=0, trials=trials, repeats=False
    )
    return study, workspace


def searched(
    study: SearchStudy, workspace: Workspace, *, trials: int, tracker: CountingTracker | None
) -> list[float]:
    """Search; return the process' CPU time at the begin of each trial, seconds."""
    runner = MadeUpRunner()
    with (workspace.root / "log").open("w", encoding="utf-8") as log:
        view = CountingView(PlainView(Console(file=log)), runner, [])
        search = Search(
            study,
            runner=runner,
            workspace=workspace,
            tracker=tracker,
            quiet=Gate(workspace.spool),
            view=view,
        )
        search.run(Budget(trials=trials))
    return view.spent_s


def spent(trials: int, sampler: SamplerName, mlflow: str | None, root: Path) -> Spent:
    """Run one search and wait until MLflow has heard of it."""
    study, workspace = opened(root, sampler, trials)
    if mlflow == "none":
        return Spent(begun_s=searched(study, workspace, trials=trials, tracker=None))
    destination = destination_of(mlflow, workspace)
    gate = Gate(workspace.spool)
    with Courier(destination, spool=workspace.spool, gate=gate) as courier:
        plain = SpoolingTracker(
            study, destination, workspace=workspace, courier=courier, note=print
        )
        tracker = CountingTracker(plain, [])
        begun_s = searched(study, workspace, trials=trials, tracker=tracker)
        plain.break_off()
        started = perf_counter()
        left = courier.wait(plain.spooled, limits=WaitLimits(), on_progress=lambda *_: None)
        assert not left.waiting, left
        (process,) = psutil.Process().children()
        times = process.cpu_times()
        return Spent(
            begun_s=begun_s,
            telling_s=tracker.spent_s,
            courier_s=times.user + times.system,
            delivered_s=perf_counter() - started,
        )


def print_windows(found: Spent) -> None:
    """Print CPU time a trial in ten windows: all of it, and what telling took."""
    each_ms = np.diff(found.begun_s) * 1e3
    telling_ms = np.asarray(found.telling_s) * 1e3
    width = max(1, len(each_ms) // 10)
    print("trials          CPU ms a trial: median   mean   telling: median   largest")
    for first in range(0, len(each_ms), width):
        window, told = each_ms[first : first + width], telling_ms[first : first + width]
        line = f"{first:5d} to {first + len(window):5d} {np.median(window):20.1f}"
        line += f" {window.mean():6.1f}"
        if len(told):
            line += f" {np.median(told):17.1f} {told.max():9.1f}"
        print(line)


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=1_000)
    parser.add_argument("--sampler", type=SamplerName, default=SamplerName.TPE)
    parser.add_argument("--mlflow", help="tracking URI, or none; SQLite unless told")
    arguments = parser.parse_args()
    packages = " ".join(f"{name} {version(name)}" for name in ("optuna", "mlflow-skinny"))
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {packages}")
    print(f"load average {os.getloadavg()[0]:.2f}, sampler {arguments.sampler}")
    with tempfile.TemporaryDirectory() as folder:
        found = spent(arguments.trials, arguments.sampler, arguments.mlflow, Path(folder))
    print_windows(found)
    if found.telling_s:
        each_ms = 1e3 * found.courier_s / len(found.telling_s)
        print(f"courier: {each_ms:.1f} CPU ms a trial, its start included;", end=" ")
        print(f"{found.delivered_s:.1f} s from the end of the search to the last record")
    print(f"load average {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
