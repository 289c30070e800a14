"""What travels beside a model so that it can be checked: answers, blocks, space file, trace."""

import shutil
from pathlib import Path

from optimizer.export.gathering import Export
from optimizer.export.manifest import Role
from optimizer.export.references_file import REFERENCES, write_references
from search_spaces.arrivals import TraceArrivals
from trials.measuring.schedules import trace_of

BLOCKS = "blocks.parquet"
SPACE = "space.yaml"
TRACE = "arrivals.csv"


def write_attachments(export: Export, folder: Path) -> dict[str, Role]:
    """Write references, blocks, the space file and its trace, as far as there are any.

    Returns:
        Role by file name.

    Raises:
        InputChangedError: The trace is no longer the one that was measured with.
        OSError: The disk refuses.
    """
    roles = {SPACE: Role.SPACE}
    (folder / SPACE).write_text(export.space_file, encoding="utf-8")
    if export.recorded.references is not None:
        write_references(export.recorded.references, folder / REFERENCES)
        roles[REFERENCES] = Role.REFERENCES
    if export.blocks is not None:
        shutil.copyfile(export.blocks, folder / BLOCKS)
        roles[BLOCKS] = Role.BLOCKS
    arrivals = export.space.plan.arrivals
    if export.outcome.deployment.load is not None and isinstance(arrivals, TraceArrivals):
        trace_of(arrivals)  # it may have changed since
        shutil.copyfile(arrivals.path, folder / TRACE)
        roles[TRACE] = Role.TRACE
    return roles
