"""Everything that an export is written from, gathered and checked before anything is written."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from optimizer.certifying.certificate import Certificate, certificate_of
from optimizer.errors import ExportError
from optimizer.study.records import TrialRecord
from optimizer.study.study import SearchStudy
from optimizer.workspace import load_blocks
from search_spaces.deployment import Deployment
from search_spaces.space import SearchSpace
from trials.backend import EngineSpec
from trials.bench import Prepared
from trials.measurement import Quality
from trials.outcome import Completed
from trials.references import Recorded, Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A deployment with everything that an export is written from.

    Attributes:
        digests: SHA-256 by ``variant:<name>`` and ``data:<split>``, as the study has them.
        verdict: Its quality on the report split, where it was scored.
        certificate: Of the study's front, where it was certified.
        engine: The engine file that was measured.
        model: The portable model that it was built from.
        blocks: The raw blocks behind its speed; None where they are not in this workspace.
    """

    record: TrialRecord
    outcome: Completed
    space: SearchSpace
    space_file: str
    digests: Mapping[str, str]
    verdict: Quality | None
    certificate: Certificate | None
    spec: EngineSpec
    engine: Path
    model: Path
    recorded: Recorded
    blocks: Path | None


class Preparer(Protocol):
    """Who has the engine: a worker process, or anything that answers alike."""

    def prepare(self, deployment: Deployment) -> Prepared:
        """Put the engine into the store, or find it there.

        Raises:
            TrialError: It cannot be built.
        """
        ...

    def record(self, deployment: Deployment, wanted: Wanted) -> Recorded:
        """Describe the engine and record what it answers.

        Raises:
            TrialError: It cannot be loaded or run.
        """
        ...


def measured(record: TrialRecord) -> Completed:
    """Return what was measured of a trial.

    Raises:
        ExportError: Nothing was.
    """
    outcome = record.outcome
    if not isinstance(outcome, Completed):
        raise ExportError(
            f"trial {record.number} is {outcome.state}: {outcome.reason}",
            hint="`trifront front` lists the trials that were measured",
        )
    return outcome


def gather(
    record: TrialRecord, study: SearchStudy, preparer: Preparer, wanted: Wanted, *, blocks: Path
) -> Export:
    """Collect everything that an export is written from.

    Args:
        record: A completed trial.
        study: Its study.
        preparer: Has or builds its engine.
        wanted: References to record.
        blocks: Where the trial's raw blocks would lie.

    Raises:
        ExportError: The trial was not measured, or the engine is not the measured one.
        WorkspaceError: Its raw blocks are damaged.
        TrialError: The engine cannot be built, loaded or run.
    """
    outcome = measured(record)
    if blocks.is_file():
        load_blocks(blocks)  # sealed as they are, damaged ones would pass for measured
    prepared = preparer.prepare(outcome.deployment)
    _refuse_another(prepared, outcome)
    return Export(
        record=record,
        outcome=outcome,
        space=study.space,
        space_file=study.space_file,
        digests=study.digests,
        verdict=study.verdicts().get(record.number),
        certificate=certificate_of(study),
        spec=prepared.spec,
        engine=prepared.engine.path,
        model=prepared.model.path,
        recorded=preparer.record(outcome.deployment, wanted),
        blocks=blocks if blocks.is_file() else None,
    )


def _refuse_another(prepared: Prepared, measured: Completed) -> None:
    """Refuse an engine that is not, bit by bit, the one that was measured."""
    if prepared.variant_digest != measured.engine.variant_digest:
        raise ExportError(
            f"the model of variant '{measured.deployment.variant}' has changed since it was "
            f"measured (it was {measured.engine.variant_digest[:12]}, it is "
            f"{prepared.variant_digest[:12]})",
            hint="put the old file back, or search again under a new --study name",
        )
    if prepared.engine.sha256 != measured.engine.engine_digest:
        raise ExportError(
            f"the engine that was measured ({measured.engine.engine_digest[:12]}) is no longer in "
            f"the store, and building it again gave another one ({prepared.engine.sha256[:12]})",
            hint="search again with --repeat and export the new trial",
        )
