"""The ledger of one destination: what was delivered, so that nobody need ask the server.

One JSON line a record, appended and forced to the disk before the record leaves the spool. A line
that a kill cut short, or that is not ours, is passed over: what it spoke of is delivered once
more, and found to be there.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from optimizer.workspace import writing
from trials.disk import sync

LEDGER_FORMAT: Literal[1] = 1


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """One record that MLflow has.

    Attributes:
        label: ``<kind>-<uid>`` of the record.
        result: ``deleted`` where somebody has deleted its run in MLflow, which is respected.
        blocks: Its raw blocks went along; False too where it has none.
    """

    version: Literal[1] = LEDGER_FORMAT
    label: str
    result: Literal["delivered", "found", "deleted"]
    blocks: bool = False


_DELIVERED = TypeAdapter(Delivered)


class Ledger:
    """The ledger in a destination's folder; one process appends, any may read."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "delivered.jsonl"

    def append(self, entry: Delivered) -> None:
        """Remember a delivery, on the disk.

        Raises:
            WorkspaceError: The disk refuses.
        """
        line = _DELIVERED.dump_json(entry) + b"\n"
        with writing(self._path), self._path.open("a+b") as file:
            if file.tell() and not _ends_a_line(file.fileno(), file.tell()):
                line = b"\n" + line
            file.write(line)
            file.flush()
            sync(self._path)

    def read(self) -> dict[str, Delivered]:
        """Return what was delivered, by label; the latest of each."""
        if not self._path.exists():
            return {}
        found = {}
        for line in self._path.read_bytes().splitlines():
            try:
                entry = _DELIVERED.validate_json(line)
            except ValidationError:
                continue  # cut short by a kill, or of another version: see above
            found[entry.label] = entry
        return found


def _ends_a_line(descriptor: int, size: int) -> bool:
    return os.pread(descriptor, 1, size - 1) == b"\n"
