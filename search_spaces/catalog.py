"""The spaces that ship with trifront, and how a space is named on a command line."""

from pathlib import Path

from search_spaces.errors import SpaceError
from search_spaces.spelling import nearest

SHIPPED = ("fake", "fashion-mnist", "fashion-mnist-torch", "resnet-tensorrt")

_KNOWN = f"shipped spaces: {', '.join(SHIPPED)}; `trifront init` drafts one for a model"
_FOLDER = Path(__file__).parent / "shipped"


def space_path(name_or_path: str) -> Path:
    """Find a space file by the name of a shipped space, else by its path.

    A shipped name wins over a file of that name; write ``./fake`` for the file.

    Raises:
        SpaceError: Neither, or a folder.
    """
    if name_or_path in SHIPPED:
        return _FOLDER / f"{name_or_path}.yaml"
    if not name_or_path:
        raise SpaceError(f"the space has no name; {_KNOWN}")
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
        raise SpaceError(f"there is no such space file; {_mend(path)}", source=name_or_path)
    return path


def _mend(path: Path) -> str:
    """Name what is alike: a shipped space, or a YAML file in the same folder."""
    beside = {str(each): each.name for each in path.parent.glob("*.y*ml")}
    names = {**beside, **{each.removesuffix(".yaml"): each for each in beside}}
    meant = nearest(str(path), [*SHIPPED, *names])
    guess = "" if meant is None else f"did you mean {names.get(meant, meant)!r}? "
    return f"{guess}{_KNOWN}"
