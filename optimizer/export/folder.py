"""A folder that appears whole or not at all, whatever dies when, and however many write to it.

It is filled under another name beside its place, forced to the disk, and renamed. Whoever fills
one for a place holds a lock of that place, which the kernel ends with the process; so what lies
beside it unfinished while the lock is ours was left by the dead, and is removed.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from optimizer.errors import ExportError
from optimizer.export.checksums import SUMS
from optimizer.export.manifest import MANIFEST
from trials.disk import sync
from trials.store.locks import locked

_FULL = "free some space, or name a place on another disk with --to"
_HINTS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EROFS: "name a folder that you may write with --to",
    errno.EACCES: "name a folder that you may write with --to",
    errno.EPERM: "name a folder that you may write with --to",
    errno.ENOTDIR: "a file is in the way; name another folder with --to",
    errno.EEXIST: "a file is in the way; name another folder with --to",
    errno.ENAMETOOLONG: "name a shorter one with --to",
    errno.ENOLCK: "its file system has no locks; name a place on a local disk with --to",
    errno.EOPNOTSUPP: "its file system has no locks; name a place on a local disk with --to",
}


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to fill, which becomes ``folder`` when the block ends without error.

    Args:
        folder: A resolved path that does not exist, or is an empty folder.

    Raises:
        ExportError: The folder is in use, or the disk refuses; nothing is left behind.
    """
    refuse_used(folder)
    draft = folder.with_name(f".{folder.name}.draft")
    lock = folder.with_name(f".{folder.name}.lock")
    with _explained(folder), _parents(folder), locked(lock):
        refuse_used(folder)  # whoever had the lock before may have filled it
        if draft.exists():
            shutil.rmtree(draft)
        draft.mkdir()
        try:
            yield draft
            _sync_tree(draft)
            draft.replace(folder)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        sync(folder.parent)


def refuse_used(folder: Path) -> None:
    """See that a folder can be exported to, before anything is prepared.

    Args:
        folder: A resolved path.

    Raises:
        ExportError: It holds something, is a file or the working folder, or lies in an export.
    """
    for above in folder.parents:
        if (above / SUMS).is_file() and (above / MANIFEST).is_file():
            raise ExportError(
                f"{folder} lies in the export {above}, which would no longer be what it was",
                hint="name a folder beside it with --to",
            )
    if not os.path.lexists(folder):
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise ExportError(f"{folder} is not empty", hint="name a new folder with --to")
    if folder.samefile(Path.cwd()):  # it would be replaced under our feet
        raise ExportError(f"{folder} is the working folder", hint="name a new folder with --to")


@contextmanager
def _parents(folder: Path) -> Iterator[None]:
    """Make the folders above, and take those that we made away again where it comes to nothing."""
    missing = [one for one in folder.parents if not one.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for made in missing:
            with suppress(OSError):  # somebody else uses it by now
                made.rmdir()
        raise


def _sync_tree(root: Path) -> None:
    for folder, _, files in os.walk(root):
        for name in files:
            sync(Path(folder) / name)
        sync(Path(folder))


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        about = f" ({error.filename})" if error.errno == errno.ENOENT and error.filename else ""
        raise ExportError(
            f"cannot write {folder}: {error.strerror}{about}",
            hint=_HINTS.get(error.errno or 0, ""),
        ) from error
