"""What must still be there after a power cut is forced to the disk, here and nowhere else.

A rename is only as safe as what was renamed: content first, then the name, then the folder.
"""

import os
from pathlib import Path


def sync(path: Path, *, follow_symlinks: bool = True) -> None:
    """Force a file's content, or a folder's names, to the disk.

    Raises:
        OSError: The disk refuses, or the path is a link that is not to be followed.
    """
    nofollow = 0 if follow_symlinks else os.O_NOFOLLOW
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | nofollow)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_new(path: Path, content: bytes) -> None:
    """Write a file that is not there yet, never through a link to something else, and sync it.

    Raises:
        FileExistsError: Something has the name already.
        OSError: The disk refuses; part of the file may be left.
    """
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
