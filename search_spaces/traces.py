"""A recorded trace: a CSV file whose first column holds arrival times in seconds."""

import csv
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

from search_spaces.errors import SpaceError

_LEAST = 10  # arrivals below that are no pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Recorded arrivals.

    Attributes:
        times_s: Ascending, the first at 0, seconds; at least ten, not all at once.
        digest: SHA-256 of the file.
    """

    times_s: tuple[float, ...]
    digest: str


def trace_from_csv(path: Path, *, key: str) -> Trace:
    """Read arrival times; a first line that is no number is taken for a heading.

    Args:
        path: The file.
        key: What names the file in the space, for messages.

    Raises:
        SpaceError: It cannot be read, is empty, unsorted, or holds something else; the message
            names the line.
    """
    try:
        content = path.read_bytes()
        rows = list(csv.reader(content.decode("utf-8").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SpaceError(f"{path.name!r} is no readable CSV file ({error})", key=key) from error
    times: list[float] = []
    for line, row in enumerate(rows, start=1):
        if row and not (line == 1 and _number(row[0]) is None):
            times.append(_time(row[0], times, where=f"{path.name!r} line {line}", key=key))
    if len(times) < _LEAST or times[-1] == times[0]:
        raise SpaceError(
            f"{path.name!r} holds {len(times)} arrivals; a trace needs at least {_LEAST}, and not "
            "all at one time",
            key=key,
        )
    shifted = tuple(time - times[0] for time in times)
    return Trace(times_s=shifted, digest=hashlib.sha256(content).hexdigest())


def _time(text: str, before: list[float], *, where: str, key: str) -> float:
    value = _number(text)
    if value is None:
        raise SpaceError(f"{where}: {text!r} is no time; write seconds as 0.25", key=key)
    if before and value < before[-1]:
        raise SpaceError(
            f"{where}: {value:g} s comes after {before[-1]:g} s; sort the arrival times", key=key
        )
    return value


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
