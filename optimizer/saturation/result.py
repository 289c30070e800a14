"""What a saturation sweep found, and the file that keeps it with its trial."""

import shutil
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from optimizer.errors import WorkspaceError
from optimizer.workspace import Workspace, write_atomically, writing
from search_spaces.deployment import Deployment
from search_spaces.space import Constraint
from trials.measurement import Estimate, Queueing, Speed
from trials.measuring.scalability import Scalability

FORMAT: Literal[1] = 1
_MS_PER_S = 1e3


class Standing(StrEnum):
    """What a rate did to the promise."""

    MEETS = "meets"
    UNDECIDED = "undecided"
    MISSES = "misses"
    SATURATED = "saturated"
    NO_NUMBER = "no number"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedPoint:
    """One concurrency under a closed loop."""

    concurrency: int
    speed: Speed
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPoint:
    """One rate under an open loop.

    Attributes:
        rate_rps: Requests of one sample each, requests/s.
        speed: None where there is no number, and ``reason`` says why.
    """

    rate_rps: float
    standing: Standing
    speed: Speed | None
    queueing: Queueing | None
    flags: tuple[str, ...]
    reason: str

    def latency_ms(self, metric: str) -> Estimate | None:
        """Return a latency by its name in space files, milliseconds; None without a number."""
        if self.speed is None:
            return None
        found: Estimate = getattr(self.speed, metric.removesuffix("_ms") + "_s")
        return found.scaled(_MS_PER_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Saturation:
    """How far a deployment can be loaded.

    Attributes:
        deployment: As it was measured under open loops, but for the rate.
        made_at: When, in UTC, ISO 8601; also names the folder of the raw blocks.
        slo: What was promised.
        closed: In ascending order of concurrency.
        open: In ascending order of rate.
        scalability: None where there were too few concurrencies for it.
        kept_rps: The highest rate at which, and below which, the whole interval of every latency
            meets its bound; None where even the lowest one tried does not.
        lost_rps: The lowest rate that was tried and is not kept; None where all are.
        environment: Facts of the machine, as (name, value).
    """

    study: str
    trial: int
    deployment: Deployment
    made_at: str
    slo: tuple[Constraint, ...]
    closed: tuple[ClosedPoint, ...]
    open: tuple[OpenPoint, ...]
    scalability: Scalability | None
    kept_rps: float | None
    lost_rps: float | None
    environment: tuple[tuple[str, str], ...]
    format: Literal[1] = FORMAT


_SATURATION: TypeAdapter[Saturation] = TypeAdapter(Saturation)


def json_from_saturation(found: Saturation) -> str:
    """Write a result as indented JSON."""
    return _SATURATION.dump_json(found, indent=2).decode()


def data_of_saturation(found: Saturation) -> object:
    """Return a result as JSON data."""
    return _SATURATION.dump_python(found, mode="json")


def folder_of(workspace: Workspace, uid: str) -> Path:
    """Where the saturation of a trial lies: the result, and a folder of its raw blocks."""
    return workspace.root / "saturation" / uid


def blocks_of_point(workspace: Workspace, uid: str, made_at: str, *, point: str) -> Path:
    """Where the raw blocks of one point lie, ``closed-<in flight>`` or ``open-<requests/s>``."""
    return folder_of(workspace, uid) / _folder_name(made_at) / f"{point}.parquet"


def _folder_name(made_at: str) -> str:
    return made_at.replace(":", "")  # which not every file system takes


def save_saturation(found: Saturation, workspace: Workspace, uid: str) -> Path:
    """Write a result in the place of an earlier one, whose blocks then go; returns its file.

    Raises:
        WorkspaceError: It cannot be written.
    """
    folder = folder_of(workspace, uid)
    path = folder / "saturation.json"
    write_atomically(path, f"{json_from_saturation(found)}\n".encode())
    with writing(folder):
        for other in folder.iterdir():
            if other.is_dir() and other.name != _folder_name(found.made_at):
                shutil.rmtree(other)
    return path


def load_saturation(workspace: Workspace, uid: str) -> Saturation | None:
    """Read the saturation of a trial; None where it is not known.

    Raises:
        WorkspaceError: The file is not as this version writes it.
    """
    path = folder_of(workspace, uid) / "saturation.json"
    try:
        found = _SATURATION.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise WorkspaceError(
            f"{path} cannot be read as this version writes it",
            hint="measure it again with `trifront saturate`",
        ) from error
    return found


def limits_of(points: tuple[OpenPoint, ...]) -> tuple[float | None, float | None]:
    """Return the highest rate that is kept with all below it, and the lowest that is not.

    Args:
        points: In ascending order of rate.
    """
    kept = None
    for point in points:
        if point.standing is not Standing.MEETS:
            return kept, point.rate_rps
        kept = point.rate_rps
    return kept, None
