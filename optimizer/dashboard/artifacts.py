"""Files about a trial that are made when somebody asks for them, and never stored.

Who makes them is a provider: the latency histogram and the raw blocks here, others elsewhere. A
search spends nothing on a picture that nobody looks at, and the trials of the past have theirs. A
trial whose raw blocks are on another machine simply has none here.

Nothing here is ever a page: a browser gets pictures, tables and text by a list of types, and what
is not on the list as a download.
"""

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from threading import Lock
from typing import Protocol

from optimizer.front.histogram import png_of_latencies
from optimizer.front.words import short
from optimizer.study.records import TrialRecord
from optimizer.workspace import Workspace, load_blocks
from trials.outcome import Completed

HISTOGRAM = "latencies.png"
BLOCKS = "blocks.parquet"

_TYPES = {
    ".png": "image/png",
    ".csv": "text/csv; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".log": "text/plain; charset=utf-8",
}
_DOWNLOAD = "application/octet-stream"
_IDENTITY = re.compile(r"([0-9]+)-((?:[0-9a-f]{2})+)")
_KEPT_BYTES = 64 * 1024**2  # some hundred pictures


class ArtifactProvider(Protocol):
    """Makes one sort of file about trials; used by one thread at a time."""

    def names(self, record: TrialRecord) -> tuple[str, ...]:
        """Name the files that there are for an ended trial on this machine, without making any.

        Asked for every trial of a study at once, so a look at the disk is the most it may cost.
        The suffix says how a file is shown.
        """
        ...

    def content(self, record: TrialRecord, name: str) -> bytes:
        """Make one of the named files.

        Raises:
            FileNotFoundError: What it is made from has gone.
        """
        ...


class BlocksProvider:
    """The raw blocks of a measured trial, and their histogram."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def names(self, record: TrialRecord) -> tuple[str, ...]:
        """Name the histogram and the blocks, where the blocks are on this machine."""
        is_here = isinstance(record.outcome, Completed) and (
            self._workspace.blocks(record.uid).is_file()
        )
        return (HISTOGRAM, BLOCKS) if is_here else ()

    def content(self, record: TrialRecord, name: str) -> bytes:
        """Draw the histogram, or read the blocks.

        Raises:
            FileNotFoundError: The blocks have gone.
            WorkspaceError: The blocks are of another version.
        """
        path = self._workspace.blocks(record.uid)
        if name == BLOCKS:
            return path.read_bytes()
        title = f"trial {record.number}: {short(record.outcome.deployment)}"
        return png_of_latencies(load_blocks(path), title)


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file as it is served."""

    name: str
    content_type: str
    content: bytes


class TrialArtifacts:
    """The files of all providers, the latest ones kept; safe to use from several threads."""

    def __init__(self, providers: Sequence[ArtifactProvider]) -> None:
        self._providers = tuple(providers)
        self._lock = Lock()
        self._kept: OrderedDict[tuple[str, str], bytes] = OrderedDict()

    def names(self, record: TrialRecord) -> tuple[str, ...]:
        """Name the files that there are for a trial on this machine."""
        with self._lock:
            return tuple(name for provider in self._providers for name in provider.names(record))

    def artifact(self, record: TrialRecord, name: str) -> Artifact | None:
        """Make a file, or return the one that was made before; None where there is none.

        Raises:
            WorkspaceError: What it is made from is of another version.
        """
        content_type = type_of(name)
        with self._lock:  # drawing is not made for several threads
            content = self._kept.get((record.uid, name)) or self._made(record, name)
            if content is None:
                return None
            self._keep((record.uid, name), content)
        return Artifact(name=name, content_type=content_type, content=content)

    def _made(self, record: TrialRecord, name: str) -> bytes | None:
        for provider in self._providers:
            if name in provider.names(record):
                try:
                    return provider.content(record, name)
                except FileNotFoundError:  # removed since it was named
                    return None
        return None

    def _keep(self, key: tuple[str, str], content: bytes) -> None:
        self._kept[key] = content
        self._kept.move_to_end(key)
        while sum(map(len, self._kept.values())) > _KEPT_BYTES:
            self._kept.popitem(last=False)


def type_of(name: str) -> str:
    """Say as what a file is served: never as a page, whatever its name."""
    return _TYPES.get(PurePath(name).suffix.lower(), _DOWNLOAD)


def identity_of(trial_id: int, name: str) -> str:
    """Name an artifact as the page's addresses can: hexadecimal digits and hyphens."""
    return f"{trial_id}-{name.encode().hex()}"


def name_from_identity(identity: str, trial_id: int) -> str | None:
    """Return the name in an artifact's identity; None where it is not one of this trial."""
    match = _IDENTITY.fullmatch(identity)
    if match is None or int(match[1]) != trial_id:
        return None
    try:
        return bytes.fromhex(match[2]).decode()
    except UnicodeDecodeError:
        return None
