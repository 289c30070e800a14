"""The spool of one destination: records on disk that wait to be delivered, in order.

::

    <spool>/<destination>/
    ├── destination.json   which MLflow
    ├── waiting/           <number>-<kind>-<uid>/ : envelope.json and the files that it names
    ├── drafts/            a record that is being written, by whoever holds ``lock``
    ├── gone/              a record that is being removed, by whoever delivers
    └── delivered.jsonl    what was delivered (see ``ledger``)

A record is a folder, renamed into place when all of it is on the disk, so that it is there whole
or not at all. Files are hard links where the file system can: the engine store may evict what a
record still needs. Numbers only grow while anything waits, so that what one search writes after
another's record is delivered after it.
"""

import os
import re
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from optimizer.errors import TrackingError
from optimizer.tracking.messages import Envelope, envelope_from_json, json_from_envelope
from optimizer.workspace import writing
from trials.disk import sync, write_new
from trials.store.locks import locked

_ENVELOPE = "envelope.json"
_FORM = re.compile(r"(\d{10})-(.+)")
_UNSAFE = re.compile(r"[^A-Za-z0-9.-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A file that goes with a record: its name there, and where it lies now or what it holds."""

    name: str
    source: Path | bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A record as it is delivered.

    Attributes:
        folder: Where its files lie.
    """

    envelope: Envelope
    folder: Path

    def file(self, name: str) -> Path:
        """Find a file of the record.

        Raises:
            TrackingError: It is missing, or a link that leads elsewhere.
        """
        return _own_file(self.folder, name)


class Spool:
    """The spool of one destination; safe to use from several processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._waiting = folder / "waiting"

    def put(self, envelope: Envelope, attachments: Iterable[Attachment] = ()) -> str:
        """Write a record, to the disk and behind all that wait; return its name.

        Raises:
            WorkspaceError: The disk refuses; nothing is left.
        """
        message = envelope.message
        label = _UNSAFE.sub("_", f"{message.kind}-{message.uid}")
        with writing(self.folder):
            self._waiting.mkdir(parents=True, exist_ok=True)
            with locked(self.folder / "lock"):
                drafts = self.folder / "drafts"
                shutil.rmtree(drafts, ignore_errors=True)  # of a process that was killed
                name = f"{self._next():010d}-{label}"
                try:
                    _fill(drafts / name, envelope, attachments)
                    (drafts / name).rename(self._waiting / name)
                finally:
                    shutil.rmtree(drafts, ignore_errors=True)
                sync(self._waiting)
        return name

    def waiting(self) -> tuple[str, ...]:
        """Return the names of the records that wait, in order."""
        if not self._waiting.is_dir():
            return ()
        with os.scandir(self._waiting) as entries:
            return tuple(sorted(one.name for one in entries if _FORM.fullmatch(one.name)))

    def labels(self) -> set[str]:
        """Return ``<kind>-<uid>`` of the records that wait."""
        return {label_of(name) for name in self.waiting()}

    def read(self, name: str) -> Parcel:
        """Read a record.

        Raises:
            TrackingError: It is not as it was written, or of another version.
        """
        folder = self._waiting / name
        path = _own_file(folder, _ENVELOPE)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise TrackingError(f"{path} cannot be read: {error.strerror}") from error
        return Parcel(envelope=envelope_from_json(content, source=str(path)), folder=folder)

    def remove(self, name: str) -> None:
        """Remove a record, at once as far as others see it.

        Raises:
            WorkspaceError: The disk refuses.
        """
        gone = self.folder / "gone"
        with writing(gone):
            gone.mkdir(exist_ok=True)
            (self._waiting / name).rename(gone / name)
            shutil.rmtree(gone)

    def adopt(self, other: "Spool") -> int:
        """Take over what waits in another spool, behind what waits here; return how much.

        Raises:
            WorkspaceError: The disk refuses; what was taken is here, the rest there.
        """
        names = other.waiting()
        with writing(self.folder):
            self._waiting.mkdir(parents=True, exist_ok=True)
            with locked(self.folder / "lock"):
                for name in names:
                    mine = f"{self._next():010d}-{label_of(name)}"
                    (other.folder / "waiting" / name).rename(self._waiting / mine)
                sync(self._waiting)
        return len(names)

    def sweep(self) -> None:
        """Finish removals that a kill cut short; for whoever delivers."""
        shutil.rmtree(self.folder / "gone", ignore_errors=True)

    def _next(self) -> int:
        names = self.waiting()
        return 1 + (int(names[-1].partition("-")[0]) if names else 0)


def label_of(name: str) -> str:
    """Return ``<kind>-<uid>`` of a record's name."""
    return name.partition("-")[2]


def _own_file(folder: Path, name: str) -> Path:
    path = folder / name
    if path.resolve() != folder.parent.resolve() / folder.name / name:
        raise TrackingError(
            f"{path} is a link, which is not followed",
            hint="put the file itself in its place, or remove the record's folder",
        )
    if not path.is_file():
        raise TrackingError(
            f"{path} is missing", hint="put it back, or remove the record's folder"
        )
    return path


def _fill(folder: Path, envelope: Envelope, attachments: Iterable[Attachment]) -> None:
    folder.mkdir(parents=True)
    for attachment in attachments:
        _attach(attachment.source, folder / attachment.name)
    write_new(folder / _ENVELOPE, json_from_envelope(envelope))
    sync(folder)


def _attach(source: Path | bytes, target: Path) -> None:
    """Link a file, or copy it where it lies on another file system; never follow a link."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, bytes):
        write_new(target, source)
        return
    if not stat.S_ISREG(source.lstat().st_mode):
        raise OSError(0, "is not a regular file", str(source))
    try:
        target.hardlink_to(source)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
        sync(target)
