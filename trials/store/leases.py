"""What one process has in the store besides entries: its pins and its unfinished work.

Each process that writes to a store owns one folder, ``<root>/processes/<id>``, and holds the lock
file in it for as long as it lives. Whatever lies in a folder whose lock nobody holds was left by
a dead process and is swept. The kernel answers that question, so it holds for ``kill -9``, for
reused process ids and for containers that share a folder but not a process table.

An entry that a living process has pinned is not evicted. Models are pinned for the life of the
process, because a search keeps their paths; of the rest the most recent are, because a trial uses
a handful at once and a long search must not pin all that it ever built.
"""

import errno
import os
import re
import shutil
import tempfile
import uuid
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from trials.store.locks import drop_dead, held_file, is_held, locked

_RECENT_PINS = 16  # a trial touches four entries; the rest is margin for a caller's own paths
_LASTING = "model/"
_LOCK = "alive"
_PINS = "pins"
_OURS = re.compile("[0-9a-f]{32}")


class Lease:
    """The folder of this process in a store, made by :func:`open_lease`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pins: OrderedDict[str, None] = OrderedDict()
        # the lock goes with the object; the folder itself is left to the next sweep
        weakref.finalize(self, os.close, held_file(folder / _LOCK))

    def has_pinned(self, reference: str) -> bool:
        """Tell whether this process holds ``kind/key``, and count it as its latest use."""
        if reference not in self._pins:
            return False
        self._pins.move_to_end(reference)
        return True

    def pin(self, reference: str) -> None:
        """Keep ``kind/key`` from eviction; call it under :func:`exclusive`.

        Raises:
            OSError: The pins cannot be written.
        """
        self._pins[reference] = None
        self._pins.move_to_end(reference)
        passing = [pin for pin in self._pins if not pin.startswith(_LASTING)]
        for oldest in passing[:-_RECENT_PINS]:
            del self._pins[oldest]
        (self.folder / _PINS).write_text("\n".join(self._pins), encoding="utf-8")

    def scratch(self) -> Path:
        """Make an empty folder on the store's file system that goes when this process is gone."""
        return Path(tempfile.mkdtemp(dir=self.folder))


def open_lease(root: Path) -> Lease:
    """Give this process its folder, sweeping away what dead ones left.

    Raises:
        OSError: The store cannot be written.
    """
    parent = root / "processes"
    parent.mkdir(parents=True, exist_ok=True)
    if parent.is_symlink():
        raise NotADirectoryError(errno.ENOTDIR, "is a link, not a folder", str(parent))
    with exclusive(root):
        sweep(root)
        folder = parent / uuid.uuid4().hex
        folder.mkdir()
        return Lease(folder)


def exclusive(root: Path) -> AbstractContextManager[None]:
    """Hold the store's own lock: entries appear, are pinned and vanish only under it."""
    return locked(root / "lock")


def sweep(root: Path) -> None:
    """Remove the folders and locks of dead processes; call it under :func:`exclusive`."""
    for folder in _folders(root):
        if not is_held(folder / _LOCK):
            shutil.rmtree(folder)
    for lock in (root / "locks").glob("*-*"):
        if lock.is_file() and not lock.is_symlink():
            drop_dead(lock)


def pinned(root: Path) -> frozenset[str]:
    """Return ``kind/key`` of every entry in use; call it under :func:`exclusive`."""
    held = (folder / _PINS for folder in _folders(root) if is_held(folder / _LOCK))
    return frozenset(
        line
        for pins in held
        if pins.exists()
        for line in pins.read_text(encoding="utf-8").splitlines()
    )


def _folders(root: Path) -> Iterator[Path]:
    """Yield the folders that we made; anything else is left alone."""
    parent = root / "processes"
    if parent.is_dir() and not parent.is_symlink():
        for folder in parent.iterdir():
            if _OURS.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
                yield folder
