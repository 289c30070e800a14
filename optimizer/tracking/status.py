"""How a courier stands, in a file of its destination: for whoever waits for it, or asks."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

STATUS_FORMAT: Literal[1] = 1


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How a courier stands.

    Attributes:
        courier: Its signature, see ``owner.this_process``.
        steps: Steps that it took: where they grow, it moves.
        delivered: Records that MLflow was told; ``found``, that it had already.
        refused: (record, why), of those that could not be delivered when they were last tried.
        trouble: Why nothing can be delivered now; ``hint`` is the mend.
    """

    version: Literal[1] = STATUS_FORMAT
    courier: str
    steps: int = 0
    delivered: int = 0
    found: int = 0
    refused: tuple[tuple[str, str], ...] = ()
    trouble: str = ""
    hint: str = ""


_STATUS = TypeAdapter(Status)


def write_status(folder: Path, status: Status) -> None:
    """Replace the status of a destination; nothing is lost where that fails."""
    draft = folder / ".status.json"
    with contextlib.suppress(OSError):  # a full disk must not end the courier too
        draft.write_bytes(_STATUS.dump_json(status))
        draft.rename(folder / "status.json")


def read_status(folder: Path) -> Status | None:
    """Return the latest status; None where no courier of this version left one."""
    try:
        return _STATUS.validate_json((folder / "status.json").read_bytes())
    except (OSError, ValidationError):
        return None
