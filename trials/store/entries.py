"""One entry of the store: a folder with a payload and a record of what it is.

The record holds the parts that the key was made of, so that an entry explains itself, and the
payload's checksum, so that a damaged one is noticed.
"""

import hashlib
import json
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from trials.disk import sync

Kind: TypeAlias = Literal["model", "engine", "quality", "inspection", "layers", "sensitivity"]

KINDS: tuple[Kind, ...] = get_args(Kind)
PAYLOAD = "payload"
RECORD = "entry.json"
FORMAT = 1  # part of every key: another layout or meaning of entries starts afresh


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Something that was made once and is kept.

    Attributes:
        path: The payload; valid while this process uses the entry.
        parts: Canonical JSON of what the key was made of.
        sha256: Checksum of the payload, hexadecimal.
        created_s: When it was made, seconds since the epoch; likewise ``used_s``, its last use.
        make_s: Seconds that making it took.
    """

    kind: Kind
    key: str
    path: Path
    parts: str
    sha256: str
    size_bytes: int
    created_s: float
    used_s: float
    make_s: float


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells a file that was checked from one that was replaced or changed since."""

    inode: int
    size_bytes: int
    modified_ns: int


def key_from_parts(kind: str, parts: Mapping[str, object]) -> str:
    """Name content by everything that changes it.

    Returns:
        SHA-256 of the canonical JSON of kind, store format and parts, hexadecimal.

    Raises:
        TypeError: A part that JSON cannot hold.
        ValueError: A part that is NaN or infinite, which equals nothing or hides a fault.
    """
    named = {"format": FORMAT, "kind": kind, "parts": parts}
    return hashlib.sha256(_canonical(named).encode()).hexdigest()


def seal(folder: Path, kind: Kind, parts: Mapping[str, object], *, make_s: float) -> None:
    """Write the record of the payload in ``folder`` and force both to the disk.

    Raises:
        RuntimeError: The maker left no payload, or something beside it.
        OSError: The disk refuses.
    """
    made = sorted(path.name for path in folder.iterdir())
    if made != [PAYLOAD]:
        raise RuntimeError(f"the maker of a {kind} must write one file, it wrote {made}")
    payload = folder / PAYLOAD
    sync(payload, follow_symlinks=False)
    record = {
        "format": FORMAT,
        "kind": kind,
        "key": key_from_parts(kind, parts),
        "parts": _canonical(parts),
        "sha256": _checksum(payload),
        "size_bytes": payload.stat().st_size,
        "created_s": time.time(),
        "make_s": make_s,
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
    sync(folder / RECORD, follow_symlinks=False)
    sync(folder, follow_symlinks=False)


def read_entry(folder: Path, kind: Kind) -> Entry:
    """Read an entry's record, without looking at the payload.

    Raises:
        ValueError: It cannot be trusted; the message says why.
        OSError: The disk refuses.
    """
    try:
        path = folder / RECORD
        if path.is_symlink():
            raise ValueError(f"{RECORD} is a link")
        entry = _entry(json.loads(path.read_text(encoding="utf-8")), folder)
    except FileNotFoundError as error:
        raise ValueError(f"{RECORD} is missing") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{RECORD} is not a record of this version ({error})") from error
    expected = key_from_parts(kind, json.loads(entry.parts))
    if (entry.kind, entry.key) != (kind, folder.name) or entry.key != expected:
        raise ValueError(f"{RECORD} belongs to another entry")
    return entry


def stamp_of(entry: Entry) -> Stamp:
    """Look at the payload without reading it.

    Raises:
        ValueError: It is missing, not a regular file, or of another size.
    """
    try:
        status = entry.path.lstat()
    except FileNotFoundError as error:
        raise ValueError("the payload is missing") from error
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("the payload is not a regular file")
    if status.st_size != entry.size_bytes:
        raise ValueError(f"the payload has {status.st_size} of {entry.size_bytes} bytes")
    return Stamp(status.st_ino, status.st_size, status.st_mtime_ns)


def check_payload(entry: Entry) -> None:
    """Read the whole payload and compare its checksum.

    Raises:
        ValueError: It is not what was stored.
        OSError: The disk refuses.
    """
    if _checksum(entry.path) != entry.sha256:
        raise ValueError("the payload's checksum does not match")


def _entry(record: Any, folder: Path) -> Entry:
    if record["format"] != FORMAT:
        raise ValueError(f"{RECORD} has format {record['format']}, this version reads {FORMAT}")
    return Entry(
        kind=record["kind"],
        key=record["key"],
        path=folder / PAYLOAD,
        parts=record["parts"],
        sha256=record["sha256"],
        size_bytes=int(record["size_bytes"]),
        created_s=float(record["created_s"]),
        used_s=(folder / RECORD).stat().st_mtime,
        make_s=float(record["make_s"]),
    )


def _canonical(value: object) -> str:
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def _checksum(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as payload:
        return hashlib.file_digest(payload, "sha256").hexdigest()
