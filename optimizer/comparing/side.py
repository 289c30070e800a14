"""One side of a comparison: a trial, an export, or an engine file, ready to be loaded here."""

from dataclasses import dataclass
from pathlib import Path

from optimizer.errors import UsageError
from optimizer.export.gathering import Export, Preparer, gather
from optimizer.study.records import TrialRecord
from optimizer.study.study import SearchStudy
from optimizer.verification.bundle import Bundle
from optimizer.verification.readiness import ready_engine
from optimizer.workspace import load_blocks
from search_spaces.deployment import Deployment, Precision, Scalar
from search_spaces.space import SearchSpace, TaskKind
from trials.backend import Tensors
from trials.duel import ReferenceExam, SplitExam
from trials.engine_files import EngineFile, describe_machine
from trials.isolation.child import Limits
from trials.isolation.errand import run_errand
from trials.measurement import Block
from trials.measuring.load import CONTENDED
from trials.references import Wanted

_INPUTS = Wanted(samples=512, limit_bytes=64_000_000)  # that requests cycle over
_LIMITS = Limits(deadline_s=600.0, memory_bytes=None)  # of one step


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Side:
    """One side of a comparison.

    Attributes:
        name: As the user gave it.
        story: What it is, for people.
        file: Its engine.
        inputs: What requests cycle over; None where it came with none.
        exam: Labelled samples; None where it came with none.
    """

    name: str
    story: str
    file: EngineFile
    inputs: Tensors | None
    exam: SplitExam | ReferenceExam | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stored:
    """What was measured of one side back then.

    Attributes:
        contended: Others took the processor meanwhile.
    """

    name: str
    story: str
    blocks: tuple[Block, ...]
    contended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOrder:
    """How a bare engine file is to be served.

    Attributes:
        options: Of the backend.
    """

    backend: str
    batch_size: int
    concurrency: int
    options: tuple[tuple[str, Scalar], ...]


def side_of_trial(
    name: str, record: TrialRecord, study: SearchStudy, preparer: Preparer, *, blocks: Path
) -> Side:
    """Get the engine of a trial, the very one that was measured.

    Raises:
        ExportError: The trial was not measured, or its engine is another one now.
        TrialError: The engine cannot be built, loaded or run.
    """
    gathered = gather(record, study, preparer, _INPUTS, blocks=blocks)
    references = gathered.recorded.references
    return Side(
        name=name,
        story=story_of(record),
        file=_file_of(gathered, study.space),
        inputs=None if references is None else references.inputs,
        exam=SplitExam(
            task=study.space.task, source=study.space.source, seed=study.space.plan.seed
        ),
    )


def side_of_bundle(name: str, bundle: Bundle, scratch: Path) -> Side:
    """Get the engine of an export, building it anew where the measured one does not run here.

    Raises:
        TrialError: The engine cannot be built here.
    """
    machine = run_errand(describe_machine, bundle.manifest.engine.kind(), _LIMITS)
    ready = ready_engine(bundle, machine, scratch, _LIMITS)
    references = bundle.references()
    task = bundle.manifest.task.task()
    exam = None
    if references is not None and task.kind is TaskKind.CLASSIFICATION:
        exam = ReferenceExam(task=task, inputs=references.inputs, labels=references.labels)
    return Side(
        name=name,
        story=f"{bundle.manifest.deployment.deployment()}; {ready.story}",
        file=ready.file,
        inputs=None if references is None else references.inputs,
        exam=exam,
    )


def side_of_file(name: str, path: Path, order: FileOrder) -> Side:
    """Take an engine file as it is; nothing is known of it but how it is to be served."""
    deployment = Deployment(
        variant=path.stem,
        precision=Precision.FP32,
        batch_size=order.batch_size,
        concurrency=order.concurrency,
        options=order.options,
    )
    return Side(
        name=name,
        story=f"{path.name} batch_size={order.batch_size} concurrency={order.concurrency}",
        file=EngineFile(backend=order.backend, path=path, deployment=deployment),
        inputs=None,
        exam=None,
    )


def stored_of_trial(name: str, record: TrialRecord, flags: tuple[str, ...], path: Path) -> Stored:
    """Read what was measured of a trial.

    Raises:
        UsageError: Its raw blocks are not in this workspace.
    """
    if not path.is_file():
        raise _no_blocks(name)
    return Stored(
        name=name,
        story=story_of(record),
        blocks=load_blocks(path),
        contended=CONTENDED in flags,
    )


def stored_of_bundle(name: str, bundle: Bundle) -> Stored:
    """Read what was measured of an export.

    Raises:
        UsageError: It has no raw blocks.
    """
    blocks = bundle.blocks()
    if blocks is None:
        raise _no_blocks(name)
    return Stored(
        name=name,
        story=str(bundle.manifest.deployment.deployment()),
        blocks=blocks,
        contended=CONTENDED in bundle.manifest.measurement.flags,
    )


def story_of(record: TrialRecord) -> str:
    """Say which trial and which deployment."""
    return f"trial {record.number} of study {record.study}: {record.outcome.deployment}"


def _file_of(gathered: Export, space: SearchSpace) -> EngineFile:
    return EngineFile(
        backend=space.backend, path=gathered.engine, deployment=gathered.outcome.deployment
    )


def _no_blocks(name: str) -> UsageError:
    return UsageError(
        f"{name} has no raw blocks here, and an engine must be loaded to make some",
        hint="compare where it was measured, or without --stored",
    )
