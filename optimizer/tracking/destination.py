"""Destinations: the MLflow that a tracking URI leads to, and the folder of what waits for it.

A destination is known by its URI without user, password and other secrets, which are never
written: two users of one server, or one whose password has changed, tell the same MLflow. The
workspace's own database is known as such and not by its path, so that a workspace may move.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from optimizer.addresses import without_secrets
from optimizer.errors import TrackingError, UsageError
from optimizer.tracking.database import artifacts_beside
from optimizer.workspace import Workspace, write_atomically

DESTINATION_FORMAT: Literal[1] = 1
NO_MLFLOW = "none"  # what users say who want none

_FILE = "destination.json"
_OWN = "the workspace's own mlflow.db"
_SERVERS = ("http", "https", "databricks", "databricks-uc", "uc")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_SQLITE = "sqlite:///"
_FOLDERS_ALLOWED = "MLFLOW_ALLOW_FILE_STORE"  # MLflow's own word
_FOLDER_FORM = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """One MLflow.

    Attributes:
        uri: How MLflow is reached, secrets included; never written or shown.
        name: The same without secrets.
        folder: What waits for it, and what it was told.
        own: It is the workspace's own database.
        artifacts: URI of the folder of artifacts; None where a server chooses it.
    """

    uri: str
    name: str
    folder: Path
    own: bool = False
    artifacts: str | None = None

    def create(self) -> None:
        """Make the folder and note whose it is.

        Raises:
            WorkspaceError: It cannot be written.
        """
        if not (self.folder / _FILE).exists():
            noted = _Noted(version=DESTINATION_FORMAT, mlflow=None if self.own else self.name)
            write_atomically(self.folder / _FILE, noted.model_dump_json(indent=1).encode())


class _Noted(BaseModel):
    """The file that names a destination; ``mlflow`` is null for the workspace's own."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[1]
    mlflow: str | None


def destination_of(uri: str | None, workspace: Workspace) -> Destination:
    """Name the MLflow of a tracking URI; None is the workspace's own database."""
    own = f"{_SQLITE}{workspace.mlflow.resolve()}"
    resolved = own if uri is None else _resolved(uri)
    name = without_secrets(resolved)
    known_as = _OWN if resolved == own else name
    return Destination(
        uri=resolved,
        name=name,
        folder=workspace.spool / sha256(known_as.encode()).hexdigest()[:16],
        own=resolved == own,
        artifacts=artifacts_beside(workspace.mlflow) if _is_database(resolved) else None,
    )


def destination_folders(workspace: Workspace) -> Iterator[Path]:
    """Yield the folders of all destinations that anything was ever spooled for."""
    for folder in sorted(workspace.spool.glob("*")):
        if _FOLDER_FORM.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
            yield folder


def destination_in(folder: Path, workspace: Workspace) -> Destination:
    """Read whose folder it is; the URI is without secrets.

    Raises:
        TrackingError: The file that says so is missing or not ours.
    """
    try:
        noted = _Noted.model_validate_json((folder / _FILE).read_bytes())
    except (OSError, ValidationError) as error:
        cause = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        raise TrackingError(
            f"{folder / _FILE} does not say which MLflow the records are for: {cause}",
            hint=f"write it again: {_Noted(version=1, mlflow='http://host:5000').model_dump_json()}",
        ) from error
    found = destination_of(noted.mlflow, workspace)
    if found.folder != folder:
        raise TrackingError(
            f"{folder / _FILE} names {found.name}, whose records are in {found.folder.name}",
            hint="put the file back as it was; trifront sync --mlflow sends records elsewhere",
        )
    return found


def check_uri(uri: str | None) -> None:
    """See that a tracking URI means something, without asking MLflow, which takes seconds.

    Raises:
        UsageError: MLflow knows no such scheme.
    """
    if not uri:
        return
    scheme = uri.partition(":")[0]
    if scheme in _SERVERS or _is_database(uri):
        return
    if _is_folder(uri):
        if os.environ.get(_FOLDERS_ALLOWED, "").lower() in ("true", "1"):
            return
        problem = f"MLflow keeps runs in folders only where {_FOLDERS_ALLOWED}=true is set"
    elif scheme in entry_points(group="mlflow.tracking_store").names:
        return
    else:
        problem = f"there is no tracking by {scheme!r}"
    raise UsageError(
        f"MLflow {without_secrets(uri)}: {problem}",
        hint="write http://host:port, sqlite:///mlflow.db, or none",
    )


def _resolved(uri: str) -> str:
    """Make a path absolute, because a later command may run in another folder."""
    if uri.startswith(_SQLITE):
        path, mark, query = uri.removeprefix(_SQLITE).partition("?")
        return f"{_SQLITE}{Path(path).resolve()}{mark}{query}"
    if _is_folder(uri):
        return Path(uri.removeprefix("file:").removeprefix("//")).resolve().as_uri()
    return uri.rstrip("/")


def _is_database(uri: str) -> bool:
    return uri.partition(":")[0].partition("+")[0] in _DATABASES


def is_server_database(uri: str) -> bool:
    """Tell whether a tracking URI is of a database that a server keeps."""
    return _is_database(uri) and not uri.startswith("sqlite")


def _is_folder(uri: str) -> bool:
    return uri.startswith("file:") or ("://" not in uri and not uri.startswith("databricks"))
