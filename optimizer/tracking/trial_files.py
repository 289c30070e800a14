"""Which files go to MLflow with a trial, beside what is computed from its record.

A new kind of file is one more line in :func:`files_of_trial`. Its name there is its name among the
run's artifacts.
"""

from collections.abc import Iterator

from optimizer.inspections import LAYERS, LOG, inspection_of
from optimizer.study.records import TrialRecord
from optimizer.tracking.spool import Attachment
from optimizer.workspace import Workspace
from trials.inspection_file import csv_of_layers
from trials.outcome import Completed

BLOCKS = "blocks.parquet"


def files_of_trial(record: TrialRecord, workspace: Workspace) -> Iterator[Attachment]:
    """Yield the files of a trial that are here; another workspace may have others."""
    blocks = workspace.blocks(record.uid)
    if blocks.is_file():
        yield Attachment(name=BLOCKS, source=blocks)
    if not isinstance(record.outcome, Completed):
        return
    found = inspection_of(record.outcome.engine, workspace)
    if found is not None:
        yield Attachment(name=LAYERS, source=csv_of_layers(found).encode())
        if found.log.text:
            yield Attachment(name=LOG, source=found.log.text.encode())
