"""The spaces that ship with trifront, and how a space is named on a command line."""

from pathlib import Path

from search_spaces.errors import SpaceError
from search_spaces.spelling import nearest

SHIPPED = ("fake", "fashion-mnist", "resnet-tensorrt")

_FOLDER = Path(__file__).parent / "shipped"


def space_path(name_or_path: str) -> Path:
    """Find a space file by the name of a shipped space, else by its path.

    A shipped name wins over a file of that name; write ``./fake`` for the file.

    Raises:
        SpaceError: Neither, or a folder.
    """
    if name_or_path in SHIPPED:
        return _FOLDER / f"{name_or_path}.yaml"
    path = Path(name_or_path)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:
        raise SpaceError(f"cannot be read ({error.strerror})", source=name_or_path) from error
    if is_folder:
        inside = sorted(each.name for each in path.glob("*.y*ml"))
        mend = f"name a file in it: {', '.join(inside)}" if inside else "name a YAML file"
        raise SpaceError(f"is a folder; {mend}", source=name_or_path)
    if not is_file:
        meant = nearest(name_or_path, SHIPPED)
        mend = "" if meant is None else f"did you mean {meant!r}? "
        raise SpaceError(
            f"there is no such space file; {mend}shipped spaces: {', '.join(SHIPPED)}",
            source=name_or_path,
        )
    return path
