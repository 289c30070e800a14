"""Spaces, outcomes and a runner that answers at once, for tests of the search."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from optimizer.errors import WorkspaceError
from optimizer.front.front import Front
from optimizer.search.budget import Budget
from optimizer.search.sampler_name import SamplerName
from optimizer.search.samplers import sampler_named
from optimizer.search.search import Search
from optimizer.study.opening import open_study
from optimizer.study.records import TrialRecord
from optimizer.study.storage import open_storage
from optimizer.study.study import SearchStudy
from optimizer.workspace import Workspace
from search_spaces.deployment import Deployment, Precision
from search_spaces.space import SearchSpace
from trials.bench import BenchFacts
from trials.capabilities import EngineIdentity
from trials.measurement import (
    Block,
    Costs,
    DeviceTiming,
    EngineRecord,
    Estimate,
    OnDevice,
    Quality,
    Speed,
    exact,
)
from trials.measuring.statistics import proportion
from trials.outcome import Completed, Environment, Failed, Infeasible, Outcome
from trials.scoring.sample_scores import packed

SPACE = """
version: 1
name: tiny
backend: fake
task: {kind: classification}
variants:
  - {name: small, fake: {work_ms: 0.1, accuracy: 0.80, size_mb: 1}}
  - {name: large, fake: {work_ms: 1.0, accuracy: 0.95, size_mb: 9}}
axes:
  precision: [fp32, int8]
  batch_size: [1, 2, 4, 8]
  concurrency: [1, 2, 3]
  threads: [1, 2]
rules: ["concurrency * threads <= 4"]
constraints: ["accuracy >= 0.7"]
"""
ALLOWED = 80  # 2 variants x 2 precisions x 4 batches x 5 pairs of (concurrency, threads)
FACTS = BenchFacts(
    digests=(("variant:large", "b" * 64), ("variant:small", "a" * 64)),
    samples=(("search", 10),),
    environment=(),
    engines=EngineIdentity(axes=("variant", "precision")),
)

ON_DEVICE = OnDevice(
    transfers="exclude",
    uses_graphs=True,
    timing=DeviceTiming(
        depth=2,
        threads=1,
        enqueue_share=0.04,
        gpu_mean_s=0.51e-3,
        gpu_p50_s=0.5e-3,
        gpu_p99_s=0.6e-3,
        enqueue_p50_s=20e-6,
        enqueue_p99_s=30e-6,
        wall_p50_s=1e-3,
        wall_p99_s=1.2e-3,
    ),
)


def completed(
    deployment: Deployment, *, latency_ms: float, sps: float, accuracy: float
) -> Completed:
    """Make an outcome with chosen point values and narrow intervals."""
    latency = Estimate(value=latency_ms, low=latency_ms * 0.99, high=latency_ms * 1.01).scaled(
        1e-3
    )
    return Completed(
        deployment=deployment,
        engine=EngineRecord(
            variant_digest="v",
            model_digest="m",
            engine_digest="e",
            engine_key=f"{deployment.variant} {deployment.precision}",
            size_bytes=1,
        ),
        speed=Speed(
            latency_mean_s=latency,
            latency_p50_s=latency,
            latency_p90_s=latency,
            latency_p99_s=latency,
            latency_p999_s=latency,
            throughput_sps=Estimate(value=sps, low=sps * 0.99, high=sps * 1.01),
            requests=100,
            blocks=8,
            target_met=True,
        ),
        quality=Quality(
            split="search",
            split_digest="d",
            samples=100,
            scores=(("accuracy", exact(accuracy)),),
        ),
        peak_memory_bytes=1,
        costs=Costs(convert_s=0, build_s=0, score_s=0, load_s=0, cold_call_s=0, measure_s=0.1),
        environment=Environment(facts=()),
        blocks=(
            Block(start_s=0.0, window_s=0.1, latencies_s=np.full(3, latency.value), batch_size=1),
        ),
    )


def with_interval(outcome: Completed, *, low_ms: float | None, high_ms: float | None) -> Completed:
    """Give the p99 other limits."""
    p99 = replace(
        outcome.speed.latency_p99_s,
        low=None if low_ms is None else low_ms * 1e-3,
        high=None if high_ms is None else high_ms * 1e-3,
    )
    return replace(outcome, speed=replace(outcome.speed, latency_p99_s=p99))


def scored(outcome: Completed, hits: NDArray[np.bool_]) -> Completed:
    """Give the engine an accuracy that rests on hits and misses."""
    assert outcome.quality is not None
    quality = replace(
        outcome.quality,
        samples=hits.size,
        scores=(("accuracy", proportion(int(hits.sum()), hits.size)),),
        per_sample=packed(hits),
    )
    return replace(outcome, quality=quality)


def measured(deployment: Deployment) -> Completed:
    """Measure a deployment by a formula: larger is slower and better, batches trade both."""
    work = 1.0 if deployment.variant == "large" else 0.1
    speed_up = 1.7 if deployment.precision is Precision.INT8 else 1.0
    threads = int(dict(deployment.options)["threads"])
    latency = work * (0.3 + 0.7 * deployment.batch_size) * deployment.concurrency**0.9
    latency /= speed_up * threads**0.5
    return completed(
        deployment,
        latency_ms=latency,
        sps=deployment.batch_size * deployment.concurrency / latency * 1e3,
        accuracy=(0.95 if work == 1.0 else 0.80) - (0.01 if speed_up > 1 else 0.0),
    )


@dataclass
class FormulaRunner:
    """A runner that answers by :func:`measured`, or by what a test puts in its way."""

    answer: Callable[[Deployment], Outcome] = measured
    phases: tuple[str, ...] = ("prepare", "score", "load", "measure", "memory")
    ran: list[Deployment] = field(default_factory=list)

    def run(self, deployment: Deployment, *, on_phase: Callable[[str], None]) -> Outcome:
        """Answer at once."""
        for phase in self.phases:
            on_phase(phase)
        self.ran.append(deployment)
        return self.answer(deployment)

    def report(self, deployment: Deployment) -> Quality:
        """Answer with the formula's accuracy, as if on the report split."""
        quality = measured(deployment).quality
        assert quality is not None
        return Quality(
            split="report", split_digest="r", samples=quality.samples, scores=quality.scores
        )


@dataclass
class ListeningView:
    """A view that remembers what it heard."""

    notes: list[str] = field(default_factory=list)
    records: list[TrialRecord] = field(default_factory=list)
    fronts: list[Front] = field(default_factory=list)

    def began(self, number: int, deployment: Deployment) -> None:
        """Hear that a trial begins."""

    def phase(self, name: str) -> None:
        """Hear which step it is in."""

    def ended(self, record: TrialRecord, front: Front) -> None:
        """Remember the record."""
        assert front.objectives
        self.records.append(record)
        self.fronts.append(front)

    def note(self, text: str) -> None:
        """Remember the note."""
        self.notes.append(text)


def searched(
    workspace: Workspace,
    space: SearchSpace,
    *,
    trials: int,
    answer: Callable[[Deployment], Outcome] = measured,
) -> SearchStudy:
    """Search a space in a workspace with a :class:`FormulaRunner`, in random order."""
    workspace.create()
    url = workspace.storage_url
    study = open_study(open_storage(url, workspace), url, "tiny", space=space, facts=FACTS)
    study.study.sampler, _ = sampler_named(
        SamplerName.RANDOM, study.encoding, seed=0, trials=None, repeats=False
    )
    runner, view = FormulaRunner(answer=answer), ListeningView()
    search = Search(
        study,
        runner=runner,
        workspace=workspace,
        tracker=None,
        quiet=ListeningQuiet(),
        view=view,
    )
    search.run(Budget(trials=trials))
    study.refresh()
    return study


@dataclass
class ListeningQuiet:
    """A gate that notes when it is shut and opened, among what else a test notes."""

    heard: list[str] = field(default_factory=list)

    @property
    def is_shut(self) -> bool:
        """Whether it is shut now."""
        return self.heard[-1:] == ["shut"]

    def shut(self) -> None:
        """Note it."""
        self.heard.append("shut")

    def open(self) -> None:
        """Note it."""
        self.heard.append("open")


@dataclass
class ListeningTracker:
    """A tracker that remembers what it was told, or cannot keep it."""

    full: bool = False
    begun: list[int] = field(default_factory=list)
    records: list[TrialRecord] = field(default_factory=list)

    def begin(self, records: Sequence[TrialRecord]) -> int:
        """Remember how many trials there were; none is news."""
        self.begun.append(len(records))
        return 0

    def record(self, record: TrialRecord, front: Front) -> None:
        """Remember the record."""
        if self.full:
            raise WorkspaceError("no space left on device")
        assert front.objectives
        self.records.append(record)


def infeasible(deployment: Deployment) -> Infeasible:
    """Say that a deployment does not fit."""
    return Infeasible(
        deployment=deployment,
        kind="memory",
        reason="needs 25 GB of 24 GB",
        environment=Environment(facts=()),
    )


def failed(deployment: Deployment) -> Failed:
    """Say that a trial broke tonight."""
    return Failed(
        deployment=deployment,
        kind="crash",
        reason="killed by SIGSEGV",
        environment=Environment(facts=()),
    )


def record_of(number: int, outcome: Outcome) -> TrialRecord:
    """Wrap an outcome as an ended trial."""
    return TrialRecord(
        uid=f"u-{number}",
        number=number,
        study="tiny",
        outcome=outcome,
        started_s=float(number),
        finished_s=number + 0.5,
    )


def value(record: TrialRecord, metric: str) -> float:
    """Return the point value of a completed record's metric."""
    assert isinstance(record.outcome, Completed)
    return record.outcome.metric(metric).value
