"""The engine store: what is expensive to make is made once, whoever asks.

Content-addressed: an entry's key is the digest of everything that changes its payload, so a
changed model, option or library version is another entry and never an old number. Several
processes may share one store, and any of them may be killed at any moment::

    <root>/<kind>/<key[:2]>/<key>/payload, entry.json     the entries
    <root>/locks/                                         one lock per key being made
    <root>/processes/<id>/                                pins and unfinished work of a process
    <root>/shelves/<backend>/                             what makes a backend's builds faster

A payload is checked against its checksum before each use; within a process only again when the
file changed. The limit on size is kept after each new entry by evicting the least recently used
ones that no living process has pinned (see ``leases``), so pins may exceed it for a while.
"""

import errno
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from trials.errors import StoreError
from trials.store.entries import (
    PAYLOAD,
    RECORD,
    Entry,
    Kind,
    Stamp,
    check_payload,
    key_from_parts,
    read_entry,
    seal,
    stamp_of,
)
from trials.store.eviction import Pruned, evict, remove, stored_in
from trials.store.leases import Lease, exclusive, open_lease, sweep
from trials.store.locks import locked

_LOG = logging.getLogger(__name__)
_SHELVES = "shelves"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Obtained:
    """An entry and what it cost.

    Attributes:
        made: It was made just now, not found.
        seconds: What making it cost, now or back then.
    """

    entry: Entry
    made: bool
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrupt:
    """An entry that cannot be used and will be rebuilt when it is next asked for."""

    kind: Kind
    key: str
    problem: str


class Store:
    """A content-addressed store in a folder; opening it touches nothing on the disk.

    Belongs to one process and one thread; other processes may open the same folder.
    """

    def __init__(self, root: Path, *, limit_bytes: int) -> None:
        self.root = root.resolve()
        self.limit_bytes = limit_bytes
        self._lease: Lease | None = None
        self._checked: dict[str, tuple[Stamp, str]] = {}

    def find(self, kind: Kind, key: str) -> Entry | None:
        """Return a sound entry and count it as used; a corrupt one is removed and is not there.

        Raises:
            StoreError: The store cannot be read or written.
        """
        folder = self._folder(kind, key)
        with self._explained():
            self._refuse_link(folder.parent)
            if not os.path.lexists(folder) or not self._pin(folder, f"{kind}/{key}"):
                return None
            try:
                entry = self._sound(folder, kind)
            except ValueError as error:
                self._discard(folder, kind, problem=str(error))
                return None
            now_ns = time.time_ns()
            os.utime(folder / RECORD, ns=(now_ns, now_ns))
            return entry

    def obtain(
        self, kind: Kind, parts: Mapping[str, object], make: Callable[[Path], None]
    ) -> Obtained:
        """Find what ``parts`` name, or make it; only one process makes it, the others wait.

        Args:
            kind: What sort of thing it is.
            parts: Everything that changes the payload; JSON values.
            make: Writes the payload to the path that it is given. What it raises passes through,
                and nothing is kept.

        Raises:
            StoreError: The store cannot be read or written, or the disk is full.
        """
        key = key_from_parts(kind, parts)
        entry = self.find(kind, key)
        if entry is None:
            with self._key_locked(kind, key):
                entry = self.find(kind, key)  # whoever had the lock before may have made it
                if entry is None:
                    made = self._made(kind, parts, make)
                    return Obtained(entry=made, made=True, seconds=made.make_s)
        return Obtained(entry=entry, made=False, seconds=entry.make_s)

    def forget(self, entry: Entry) -> None:
        """Remove an entry, if it is still there, whoever uses it.

        Raises:
            StoreError: The store cannot be written.
        """
        folder = self._folder(entry.kind, entry.key)
        with self._explained():
            self._refuse_link(folder.parent)
            with exclusive(self.root):
                if os.path.lexists(folder):
                    remove(folder)

    def shelf(self, backend: str) -> Path:
        """Return the folder where a backend keeps what it can also do without; may not exist.

        Nothing in it is an entry: it counts for no limit, and goes when everything is pruned.
        """
        return self.root / _SHELVES / backend

    def list(self) -> tuple[Entry, ...]:
        """Return every readable entry, least recently used first, without checking payloads.

        Raises:
            StoreError: The store cannot be read.
        """
        entries = []
        with self._explained():
            for stored in stored_in(self.root):
                try:
                    entries.append(read_entry(stored.folder, stored.kind))
                except ValueError as error:
                    if os.path.lexists(stored.folder):  # else evicted under our hands
                        _LOG.warning("%s is corrupt: %s", stored.reference, error)
        return tuple(sorted(entries, key=lambda entry: (entry.used_s, entry.kind, entry.key)))

    def verify(self) -> tuple[Corrupt, ...]:
        """Read every payload again and return what cannot be used; nothing is removed.

        Raises:
            StoreError: The store cannot be read.
        """
        corrupt = []
        with self._explained():
            for stored in stored_in(self.root):
                try:
                    entry = read_entry(stored.folder, stored.kind)
                    stamp_of(entry)
                    check_payload(entry)
                except (ValueError, FileNotFoundError) as error:
                    if os.path.lexists(stored.folder):  # else evicted under our hands
                        key = stored.folder.name
                        corrupt.append(Corrupt(kind=stored.kind, key=key, problem=str(error)))
        return tuple(corrupt)

    def prune(self, limit_bytes: int | None, *, everything: bool) -> Pruned:
        """Remove what dead processes left, then the least recently used entries.

        Args:
            limit_bytes: Bytes of payloads to keep at most; None is the store's own limit.
            everything: Keep nothing; entries that a living process uses stay even then.

        Raises:
            StoreError: The store cannot be written.
        """
        limit = self.limit_bytes if limit_bytes is None else limit_bytes
        with self._explained():
            if not self.root.is_dir():
                return Pruned(entries=0, size_bytes=0)
            with exclusive(self.root):
                sweep(self.root)
                if everything:
                    shutil.rmtree(self.root / _SHELVES, ignore_errors=True)
            return evict(self.root, limit_bytes=-1 if everything else limit)

    def _folder(self, kind: Kind, key: str) -> Path:
        return self.root / kind / key[:2] / key

    def _refuse_link(self, parent: Path) -> None:
        if parent.resolve() != parent:
            raise StoreError(f"{parent} leads out of the engine store; remove that link")

    def _leased(self) -> Lease:
        if self._lease is None:
            self._lease = open_lease(self.root)
        return self._lease

    def _pin(self, folder: Path, reference: str) -> bool:
        """Pin an entry and tell whether it is still there."""
        lease = self._leased()
        if not lease.has_pinned(reference):
            with exclusive(self.root):
                if not os.path.lexists(folder):
                    return False
                lease.pin(reference)
        return True

    def _sound(self, folder: Path, kind: Kind) -> Entry:
        if folder.resolve() != folder:
            raise ValueError("it is reached through a link")
        entry = read_entry(folder, kind)
        checked = (stamp_of(entry), entry.sha256)
        if self._checked.get(entry.key) != checked:
            check_payload(entry)
            self._checked[entry.key] = checked
        return entry

    def _discard(self, folder: Path, kind: Kind, *, problem: str) -> None:
        _LOG.warning("%s %s is corrupt, will be rebuilt: %s", kind, folder.name, problem)
        with exclusive(self.root):
            try:
                self._sound(folder, kind)  # another process may have rebuilt it meanwhile
            except ValueError:
                remove(folder)

    def _made(
        self, kind: Kind, parts: Mapping[str, object], make: Callable[[Path], None]
    ) -> Entry:
        with self._explained():
            scratch = self._leased().scratch()
        try:
            started = perf_counter()
            with self._explained(only=_DISK_FULL):  # other errors of a maker are its own
                make(scratch / PAYLOAD)
            make_s = perf_counter() - started
            with self._explained():
                seal(scratch, kind, parts, make_s=make_s)
                entry = self._published(scratch, kind, key_from_parts(kind, parts))
                evict(self.root, limit_bytes=self.limit_bytes)
                return entry
        finally:
            shutil.rmtree(scratch, ignore_errors=True)  # gone already where it was published

    def _published(self, scratch: Path, kind: Kind, key: str) -> Entry:
        folder = self._folder(kind, key)
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._refuse_link(folder.parent)
        with exclusive(self.root):
            self._leased().pin(f"{kind}/{key}")
            scratch.rename(folder)
        return read_entry(folder, kind)

    @contextmanager
    def _key_locked(self, kind: Kind, key: str) -> Iterator[None]:
        with ExitStack() as stack:
            with self._explained():
                locks = self.root / "locks"
                locks.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(locks / f"{kind}-{key}"))
            yield

    @contextmanager
    def _explained(self, *, only: tuple[int, ...] = ()) -> Iterator[None]:
        """Turn the errors of the disk (of them ``only`` these codes) into StoreError."""
        try:
            yield
        except OSError as error:
            if only and error.errno not in only:
                raise
            raise StoreError(_explanation(error, self.root)) from error


def _explanation(error: OSError, root: Path) -> str:
    if error.errno in _DISK_FULL:
        return (
            f"no space left for the engine store {root}; free some, or run `trifront store prune`"
        )
    if error.errno in _NOT_WRITABLE:
        return (
            f"the engine store {root} cannot be written ({error.strerror}); choose another folder"
        )
    return f"the engine store {root} cannot be used: {error}"
