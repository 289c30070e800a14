"""Trials that were measured for real, and their exports, for tests of what is exported."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from real_spaces import bench_in, write_space
from search_fakes import SPACE

from optimizer.export.bundle import BundleFormat
from optimizer.export.export import Exported, Format, write_export
from optimizer.export.gathering import Export, Preparer, gather
from optimizer.search.sampler_name import SamplerName
from optimizer.search.samplers import sampler_named
from optimizer.study.opening import open_study
from optimizer.study.records import TrialRecord
from optimizer.study.storage import open_storage
from optimizer.study.study import SearchStudy
from optimizer.workspace import Workspace, save_blocks
from search_spaces.deployment import Deployment, Precision
from search_spaces.files import space_from_yaml
from search_spaces.space import SearchSpace
from trials.bench import Bench, BenchFacts, Prepared
from trials.measuring.statistics import summarize
from trials.outcome import Completed, Environment, Outcome
from trials.recording import record_references
from trials.references import Recorded, Wanted
from trials.run import run_trial, score_report

SAMPLES = 24
PLENTY_BYTES = 10**9


@dataclass(frozen=True, kw_only=True)
class InProcess:
    """A preparer that works in this process, on a bench."""

    bench: Bench

    def prepare(self, deployment: Deployment) -> Prepared:
        """Put the engine into the bench's store."""
        return self.bench.prepare(deployment)

    def record(self, deployment: Deployment, wanted: Wanted) -> Recorded:
        """Record references on the bench."""
        return record_references(deployment, self.bench, wanted)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A measured trial, its study and workspace, and the bench that it was measured on."""

    study: SearchStudy
    workspace: Workspace
    bench: Bench
    record: TrialRecord

    @property
    def deployment(self) -> Deployment:
        """What was deployed."""
        return self.record.outcome.deployment

    @property
    def outcome(self) -> Completed:
        """What was measured."""
        assert isinstance(self.record.outcome, Completed)
        return self.record.outcome

    @property
    def blocks(self) -> Path:
        """Where the trial's raw blocks lie."""
        return self.workspace.blocks(self.record.uid)

    def gathered(self, *, preparer: Preparer | None = None, samples: int = SAMPLES) -> Export:
        """Gather what an export is written from, on the trial's own bench unless told."""
        wanted = Wanted(samples=samples, limit_bytes=PLENTY_BYTES)
        has = preparer or InProcess(bench=self.bench)
        return gather(self.record, self.study, has, wanted, blocks=self.blocks)

    def export(
        self, folder: Path, form: Format | None = None, *, samples: int = SAMPLES
    ) -> Exported:
        """Export the trial, as a bundle unless told otherwise."""
        gathered = self.gathered(samples=samples)
        return write_export(gathered, form or BundleFormat(), folder, by="Ada")


def study_of(space: SearchSpace, workspace: Workspace, *, facts: BenchFacts) -> SearchStudy:
    """Open a study that proposes deployments at random."""
    workspace.create()
    storage = open_storage(workspace.storage_url, workspace)
    study = open_study(storage, workspace.storage_url, "real", space=space, facts=facts)
    study.study.sampler, _ = sampler_named(
        SamplerName.RANDOM, study.encoding, seed=0, trials=None, repeats=False
    )
    return study


def record_in(study: SearchStudy, answer: Callable[[Deployment], Outcome]) -> TrialRecord:
    """Run one trial of a study by an answer to its deployment."""
    asked = study.ask()
    return study.tell(asked, answer(asked.deployment))


def measured_case(
    folder: Path,
    *,
    space: SearchSpace | None = None,
    deployment: Deployment | None = None,
    changed: Callable[[Completed], Completed] = lambda outcome: outcome,
) -> Case:
    """Measure one trial of a space, keep its blocks, and score it on the report split.

    Args:
        folder: Gets a workspace, and a real space where none is given.
        space: What is measured.
        deployment: Which one; None for the one that the sampler proposes first.
        changed: What is recorded of it, as if it had been measured otherwise.
    """
    if space is None:
        (folder / "user").mkdir()
        space = write_space(folder / "user")
    bench = bench_in(folder, space)
    workspace = Workspace(root=folder / "work")
    study = study_of(space, workspace, facts=bench.facts)
    if deployment is not None:
        study.study.enqueue_trial(study.encoding.params(deployment))
    asked = study.ask()
    outcome = run_trial(asked.deployment, bench, on_phase=lambda _: None)
    assert isinstance(outcome, Completed), outcome
    outcome = changed(outcome)
    record = study.tell(asked, outcome)
    save_blocks(outcome.blocks, workspace.blocks(record.uid))
    study.keep_verdict(record.number, score_report(asked.deployment, bench))
    return Case(study=study, workspace=workspace, bench=bench, record=record)


def fake_case(
    folder: Path, *, changed: Callable[[Completed], Completed] = lambda outcome: outcome
) -> Case:
    """Measure a deployment of the fake backend, whose every measurement is the same."""
    (folder / "tiny.yaml").write_text(SPACE, encoding="utf-8")
    space = space_from_yaml(folder / "tiny.yaml")
    deployment = Deployment(
        variant="small",
        precision=Precision.INT8,
        batch_size=2,
        concurrency=2,
        options=(("threads", 1),),
    )
    return measured_case(folder, space=space, deployment=deployment, changed=changed)


def on_machine(**facts: str) -> Callable[[Completed], Completed]:
    """Record an outcome as of a machine with other facts."""

    def changed(outcome: Completed) -> Completed:
        known = dict(outcome.environment.facts) | facts
        return replace(outcome, environment=Environment(facts=tuple(sorted(known.items()))))

    return changed


def at_pace(factor: float, *, flags: tuple[str, ...] = ()) -> Callable[[Completed], Completed]:
    """Record an outcome as if every request had taken ``factor`` times as long."""

    def changed(outcome: Completed) -> Completed:
        blocks = tuple(
            replace(
                one,
                start_s=one.start_s * factor,
                window_s=one.window_s * factor,
                latencies_s=one.latencies_s * factor,
            )
            for one in outcome.blocks
        )
        speed = summarize(blocks, target_met=True)
        return replace(outcome, blocks=blocks, speed=speed, flags=flags)

    return changed
