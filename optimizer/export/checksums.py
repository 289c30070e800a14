"""``SHA256SUMS``: every file of an export with its digest, the manifest included.

The format is that of GNU coreutils, so ``sha256sum --check SHA256SUMS`` reads it anywhere. The
check here is stricter: the file must be, byte for byte, what would be written for the folder as it
is now. So a changed byte is found wherever it is, in ``SHA256SUMS`` too, and so is a file that was
added, removed or renamed. Links and other special files are refused unread: they could name
anything. What holds an export together this way is no signature; whoever can write all of its
files can write another export. The digest of ``SHA256SUMS``, kept elsewhere, tells them apart.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from optimizer.errors import BundleError

SUMS = "SHA256SUMS"

_HINT = "copy it again from where it was exported, or export it again"


def sums_of(folder: Path) -> str:
    """Write the sums of a folder as it is now, sorted by path.

    Raises:
        BundleError: It holds a link, a special file or an empty folder.
        OSError: A file cannot be read.
    """
    lines = [
        f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n"
        for path in _files(folder)
        if path != folder / SUMS
    ]
    return "".join(lines)


def check_sums(folder: Path) -> str:
    """See that a folder is what was exported; returns the digest of its ``SHA256SUMS``.

    Raises:
        BundleError: It is not; the message names the first file.
        OSError: A file cannot be read.
    """
    path = folder / SUMS
    if not path.is_file() or path.is_symlink():
        raise BundleError(
            f"{folder}: has no file {SUMS}, so it is no export, or an old one", hint=_HINT
        )
    written = path.read_bytes()
    actual = sums_of(folder)
    if written != actual.encode(errors="surrogateescape"):
        problem = _difference(written.decode(errors="replace"), actual)
        raise BundleError(f"{folder}: {problem}", hint=_HINT)
    return hashlib.sha256(written).hexdigest()


def sha256_of(path: Path) -> str:
    """Digest a file, hexadecimal; a link is not followed.

    Raises:
        OSError: It cannot be read, or is a link.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    """Yield regular files in the order of their names, part by part."""
    found = sorted(folder.iterdir())
    if not found:
        raise BundleError(f"{_shown(folder)}: is an empty folder, which no export has", hint=_HINT)
    for path in found:
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            yield from _files(path)
        elif stat.S_ISREG(mode):
            yield path
        else:
            kind = "a symbolic link" if stat.S_ISLNK(mode) else "no regular file"
            raise BundleError(f"{_shown(path)}: is {kind}, which no export has", hint=_HINT)


def _difference(written: str, actual: str) -> str:
    """Say what first differs between the sums that are written and those that are."""
    then, now = _digests(written), _digests(actual)
    for name in sorted(then.keys() | now.keys()):
        if name not in now:
            return f"{name!r} is in {SUMS} and not in the folder"
        if name not in then:
            return f"{_shown(name)} was added after the export; {SUMS} does not name it"
        if then[name] != now[name]:
            return f"{_shown(name)} is not what {SUMS} says"
    return f"{SUMS} is not as it was written: its lines, their order or their ends were changed"


def _digests(text: str) -> dict[str, str]:
    """Read lines as path and digest; what is no such line has no path."""
    pairs = (line.partition("  ") for line in text.splitlines())
    return {path: digest for digest, _, path in pairs}


def _shown(path: Path | str) -> str:
    """Write a path so that a terminal can show it, whatever bytes it is made of."""
    return str(path).encode(errors="backslashreplace").decode()
