"""Which files go to MLflow with a trial, beside what is computed from its record.

A new kind of file is one more line in :func:`files_of_trial`. Its name there is its name among the
run's artifacts.
"""

from collections.abc import Iterator

from optimizer.study.records import TrialRecord
from optimizer.tracking.spool import Attachment
from optimizer.workspace import Workspace

BLOCKS = "blocks.parquet"


def files_of_trial(record: TrialRecord, workspace: Workspace) -> Iterator[Attachment]:
    """Yield the files of a trial that are here; another workspace may have others."""
    for name, path in ((BLOCKS, workspace.blocks(record.uid)),):
        if path.is_file():
            yield Attachment(name=name, source=path)
