"""Which sessions of which searches go on, so that the run of a killed one does not stay RUNNING.

A session signs a file in the destination's folder when it begins, marks it when it is about to
end, and removes it when its end is in the spool. Of two that end at once both are marked before
either asks whether the other goes on, so that one of them at least says that the search has
ended. Whoever comes next, a session or ``trifront sync``, tells MLflow of those that were killed
in between.
"""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from optimizer.study.owner import is_alive, this_process
from optimizer.tracking.messages import Experiment
from optimizer.workspace import sweep_drafts, write_atomically, writing

SESSION_FORMAT: Literal[1] = 1


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session that goes on, or was killed.

    Attributes:
        owner: Signature of its process.
        uid: Of the run of its search.
        ending: It searches no more, and is about to tell how it ended.
    """

    version: Literal[1] = SESSION_FORMAT
    owner: str
    uid: str
    experiment: Experiment
    ending: bool = False


_SESSION = TypeAdapter(Session)


class Sessions:
    """The sessions of one destination; safe to use from several processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "sessions"

    def begin(self, uid: str, experiment: Experiment) -> str:
        """Sign a session of this process; return its name.

        Raises:
            WorkspaceError: The disk refuses.
        """
        name = uuid.uuid4().hex
        self._write(name, Session(owner=this_process(), uid=uid, experiment=experiment))
        return name

    def mark_ending(self, name: str) -> None:
        """Say that a session searches no more; one that was taken for killed may be gone.

        Raises:
            WorkspaceError: The disk refuses.
        """
        for other, session in self._all():
            if other == name:
                self._write(name, replace(session, ending=True))

    def end(self, name: str) -> None:
        """Strike a session out.

        Raises:
            WorkspaceError: The disk refuses.
        """
        with writing(self._folder):
            (self._folder / f"{name}.json").unlink(missing_ok=True)

    def others(self, name: str, uid: str) -> bool:
        """Tell whether another session of the same search goes on and is not about to end."""
        return any(
            other != name
            and session.uid == uid
            and not session.ending
            and is_alive(session.owner) is not False
            for other, session in self._all()
        )

    def killed(self) -> Iterator[tuple[str, Session]]:
        """Yield the sessions whose process is dead, by name."""
        for name, session in self._all():
            if is_alive(session.owner) is False:
                yield name, session

    def sweep(self) -> None:
        """Remove what sessions left unfinished that were killed as they signed.

        Raises:
            WorkspaceError: The disk refuses.
        """
        sweep_drafts(self._folder)

    def _write(self, name: str, session: Session) -> None:
        write_atomically(self._folder / f"{name}.json", _SESSION.dump_json(session))

    def _all(self) -> Iterator[tuple[str, Session]]:
        for path in sorted(self._folder.glob("*.json")):
            try:
                yield path.stem, _SESSION.validate_json(path.read_bytes())
            except FileNotFoundError:
                continue  # it has just ended
            except ValidationError:
                path.unlink(missing_ok=True)  # it says nothing that could be told
