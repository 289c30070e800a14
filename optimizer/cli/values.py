"""Values that users write in options of several commands, and the code that a gate ends with."""

import re
from pathlib import Path

import typer

GATE_FAILED = 3
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600}


def seconds(text: str) -> float:
    """Read a duration such as 90, 90s, 10m or 1.5h.

    Raises:
        typer.BadParameter: Not a duration, or zero.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if match is None or float(match[1]) == 0:
        raise typer.BadParameter(f"'{text}' is no duration; write 90s, 10m or 2h")
    return float(match[1]) * _UNITS_S[match[2]]


def percent(text: str) -> float:
    """Read a share such as 10% or 2.5 as a fraction.

    Raises:
        typer.BadParameter: Not a share between 0 and 100 %.
    """
    try:
        share = float(text.strip().removesuffix("%")) / 100
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise typer.BadParameter(f"{text!r} is no share; write one such as 10%")
    return share


def png_file(path: Path | None) -> Path | None:
    """See that a picture is called what it is.

    Raises:
        typer.BadParameter: Its name ends otherwise than in .png.
    """
    if path is not None and path.suffix.lower() != ".png":
        raise typer.BadParameter(f"'{path}' is no name of a PNG file; write {path.stem}.png")
    return path
