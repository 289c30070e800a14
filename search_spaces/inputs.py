"""The files that a space names: found beside it, or missed in one clear line."""

from dataclasses import dataclass
from pathlib import Path

from search_spaces.errors import SpaceError
from search_spaces.spelling import nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Paths as a space file means them: absolute, or relative to its own folder.

    Attributes:
        folder: Folder of the space file.
    """

    folder: Path

    def file(self, text: str, *, key: str) -> Path:
        """Resolve a path that must be a file.

        Raises:
            SpaceError: There is none.
        """
        path = self.data(text, key=key)
        if not path.is_file():
            raise SpaceError(f"{text!r} is a folder; name a file", key=key)
        return path

    def data(self, text: str, *, key: str) -> Path:
        """Resolve a path that must be a file or a folder.

        Raises:
            SpaceError: There is neither.
        """
        if "\0" in text:
            raise SpaceError(f"{text!r} is no path; remove the null character", key=key)
        # absolute, because workers may run elsewhere; not resolved, because the target of a link
        # may lack the suffix that says what it is
        path = (self.folder / text).absolute()
        try:
            found = path.exists()
        except OSError as error:
            raise SpaceError(f"{text!r} cannot be read ({error.strerror})", key=key) from error
        if not found:
            raise SpaceError(f"there is no file {text!r}; {_mend(path)}", key=key)
        return path


def _mend(path: Path) -> str:
    try:
        beside = [each.name for each in path.parent.iterdir()]
    except OSError:  # no such folder, or closed to us: then there is nothing to propose
        beside = []
    meant = nearest(path.name, beside)
    if meant is not None:
        return f"did you mean {meant!r} in the same folder?"
    return f"paths start at the space file's folder, so it was looked for at {str(path)!r}"
