"""Wiring: the one place where a search is put together from its parts."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna

from optimizer.errors import StudyError
from optimizer.study.opening import find_study
from optimizer.study.storage import check_reachable, existing_storage, public_url, storage_errors
from optimizer.study.study import SearchStudy
from optimizer.workspace import STORE_LIMIT_BYTES, Workspace
from search_spaces.space import SearchSpace
from trials.isolation.worker import Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a command works.

    Attributes:
        storage_url: None for the workspace's own SQLite file.
    """

    workspace: Workspace
    storage_url: str | None = None

    @property
    def url(self) -> str:
        """URL of Optuna's storage."""
        return self.storage_url or self.workspace.storage_url

    def check(self) -> None:
        """See that the workspace can be written and the storage reached, writing nothing.

        Raises:
            WorkspaceError: The workspace cannot be written.
            StorageError: The storage cannot be reached.
        """
        self.workspace.check_writable()
        if self.storage_url:
            check_reachable(self.storage_url)


def place_at(root: Path, storage_url: str | None) -> Place:
    """Name a place; nothing is created."""
    return Place(workspace=Workspace(root=root.resolve()), storage_url=storage_url)


@contextmanager
def opened_worker(space: SearchSpace, place: Place) -> Iterator[Worker]:
    """Start a worker for a space, and end it whatever happens.

    Raises:
        WorkspaceError: The workspace cannot be written.
        StorageError: The storage cannot be reached.
    """
    place.check()
    worker = Worker(space, store_root=place.workspace.store, store_limit_bytes=STORE_LIMIT_BYTES)
    with worker:
        yield worker


def study_at(place: Place, name: str | None) -> SearchStudy:
    """Open a study to read it; without a name, the latest.

    Raises:
        StudyError: There is none.
        StorageError: The storage is out of reach.
    """
    _refuse_empty(place)
    return find_study(existing_storage(place.url), place.url, name)


def _refuse_empty(place: Place) -> None:
    if not place.storage_url and not (place.workspace.root / "studies.db").exists():
        raise StudyError(
            f"there is no study in {place.workspace.root}",
            hint="`trifront search fake` makes one in seconds; --workspace names another place",
        )


def names_of_studies(place: Place) -> list[str]:
    """List the studies of a place by name.

    Raises:
        StudyError: There is none.
        StorageError: The storage is out of reach.
    """
    _refuse_empty(place)
    storage = existing_storage(place.url)
    with storage_errors(place.url):
        names = sorted(optuna.get_all_study_names(storage))
    if not names:
        raise StudyError(
            f"there is no study in {public_url(place.url)} yet",
            hint="`trifront search fake` makes one in seconds",
        )
    return names
