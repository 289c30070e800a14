"""What travels beside a model so that it can be checked: answers, raw blocks, the space file."""

import shutil
from pathlib import Path

from optimizer.export.gathering import Export
from optimizer.export.manifest import Role
from optimizer.export.references_file import REFERENCES, write_references

BLOCKS = "blocks.parquet"
SPACE = "space.yaml"


def write_attachments(export: Export, folder: Path) -> dict[str, Role]:
    """Write references, blocks and the space file, as far as there are any.

    Returns:
        Role by file name.

    Raises:
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
    return roles
