"""Which entries of the store go when it is too large: the least recently used, unpinned ones.

Works on folders alone, so that an entry whose record cannot be read is evicted like any other.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trials.store.entries import KINDS, PAYLOAD, RECORD, Kind
from trials.store.leases import exclusive, pinned


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What was removed: the number of entries and the bytes of their payloads."""

    entries: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An entry's folder.

    Attributes:
        used_s: Last use, seconds since the epoch; 0.0 without a record, of no use to anybody.
    """

    kind: Kind
    folder: Path
    size_bytes: int
    used_s: float

    @property
    def reference(self) -> str:
        """Name the entry as pins do."""
        return f"{self.kind}/{self.folder.name}"


def stored_in(root: Path) -> Iterator[Stored]:
    """Yield the entries' folders under ``root``, a resolved path; links are passed over."""
    for kind in KINDS:
        for folder in sorted((root / kind).glob("??/*")):
            if folder.resolve() == folder and folder.is_dir():
                payload, record = _status(folder / PAYLOAD), _status(folder / RECORD)
                yield Stored(
                    kind=kind,
                    folder=folder,
                    size_bytes=0 if payload is None else payload.st_size,
                    used_s=0.0 if record is None else record.st_mtime,
                )


def evict(root: Path, *, limit_bytes: int) -> Pruned:
    """Remove unpinned entries until the payloads have ``limit_bytes`` at most.

    Args:
        root: The store, a resolved path.
        limit_bytes: Negative for none at all, not even empty payloads.

    Raises:
        OSError: An entry cannot be removed.
    """
    removed = []
    with exclusive(root):
        stored = sorted(stored_in(root), key=lambda one: one.used_s)
        total_bytes = sum(one.size_bytes for one in stored)
        in_use = pinned(root)
        for one in stored:
            if total_bytes <= limit_bytes:
                break
            if one.reference not in in_use:
                remove(one.folder)
                removed.append(one.size_bytes)
                total_bytes -= one.size_bytes
    return Pruned(entries=len(removed), size_bytes=sum(removed))


def remove(folder: Path) -> None:
    """Remove an entry's folder, or what stands in its place."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    else:
        shutil.rmtree(folder)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None
