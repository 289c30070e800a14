"""Export a trial: from its study and store to a folder that holds all of it."""

from dataclasses import dataclass
from pathlib import Path

from optimizer.export.catalog import format_named
from optimizer.export.description import user_name
from optimizer.export.export import Exported, check_place, write_export
from optimizer.export.format_name import REFERENCES, FormatName, TritonBackend
from optimizer.export.gathering import gather
from optimizer.front.picking import record_named
from optimizer.study.study import SearchStudy
from optimizer.wiring import Place, opened_worker
from trials.references import Wanted

_REFERENCES_BYTES = 64_000_000  # of inputs and outputs, before compression


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOrder:
    """What a user asks of an export.

    Attributes:
        trial: A number, ``knee``, or ``best:METRIC``.
        to: The place of the folder.
        references: Labelled samples to export with the engine's answers, 64 MB at most.
        model_name: What Triton calls the model; None for the space's name.
        triton_backend: What runs it there; None for what suits.
        by: Who exports; None for the login name.
    """

    trial: str
    to: Path
    form: FormatName = FormatName.BUNDLE
    references: int = REFERENCES
    model_name: str | None = None
    triton_backend: TritonBackend | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedTrial:
    """An export, and the ``references`` (samples) that it got."""

    exported: Exported
    references: int


def export_trial(order: ExportOrder, study: SearchStudy, place: Place) -> ExportedTrial:
    """Export a measured trial, whole or not at all.

    Raises:
        ExportError: The trial was not measured, its engine is no longer the measured one, the
            place is in use, or the disk refuses.
        StudyError: There is no such trial.
        TrialError: The engine cannot be built, loaded or run.
        UsageError: Options that contradict each other.
    """
    chosen = format_named(
        order.form, model_name=order.model_name, triton_backend=order.triton_backend
    )
    folder = check_place(order.to)
    record = record_named(order.trial, study)
    chosen.refuse(study.space)
    wanted = Wanted(samples=order.references, limit_bytes=_REFERENCES_BYTES)
    with opened_worker(study.space, place) as worker:
        blocks = place.workspace.blocks(record.uid)
        gathered = gather(record, study, worker, wanted, blocks=blocks)
        exported = write_export(gathered, chosen, folder, by=order.by or user_name())
    return ExportedTrial(exported=exported, references=len(gathered.recorded.references or ()))
