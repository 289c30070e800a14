"""Export: a gathered deployment, written in one of several formats, and sealed.

What is written appears whole or not at all (``folder``), with a manifest that names each file and
sums that cover every byte.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from optimizer.export.checksums import SUMS, sha256_of, sums_of
from optimizer.export.description import manifest_of
from optimizer.export.folder import refuse_used, whole_folder
from optimizer.export.gathering import Export
from optimizer.export.manifest import MANIFEST, FileSection, Role, json_from_manifest
from search_spaces.space import SearchSpace


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """An export on disk.

    Attributes:
        files: All of its files, sorted.
        fingerprint: SHA-256 of ``SHA256SUMS``: kept elsewhere, it tells this export from others.
    """

    folder: Path
    files: tuple[Path, ...]
    fingerprint: str


class Format(Protocol):
    """A way to lay an export out. Holds no state of a single export."""

    @property
    def name(self) -> str:
        """Name on the command line and in the manifest."""
        ...

    def refuse(self, space: SearchSpace) -> None:
        """See that a study's deployments can be exported so, before anything is prepared.

        Raises:
            ExportError: It cannot; the hint says what can.
        """
        ...

    def write(self, export: Export, folder: Path) -> Mapping[str, Role]:
        """Write all files but the manifest and the sums into an empty folder.

        Returns:
            Role by path, relative to the folder.

        Raises:
            OSError: The disk refuses.
        """
        ...


def check_place(folder: Path) -> Path:
    """Resolve the place of an export and see that it is free, before anything is prepared.

    Raises:
        ExportError: It is in use.
    """
    resolved = folder.resolve()
    refuse_used(resolved)
    return resolved


def write_export(export: Export, form: Format, folder: Path, *, by: str) -> Exported:
    """Write an export, whole or not at all.

    Args:
        export: What was gathered.
        form: How it is laid out.
        folder: A resolved path; must not exist, or be an empty folder.
        by: Who exports.

    Raises:
        ExportError: The folder is in use, or the disk refuses.
    """
    with whole_folder(folder) as draft:
        roles = form.write(export, draft)
        files = {
            path: FileSection(
                sha256=sha256_of(draft / path),
                size_bytes=(draft / path).stat().st_size,
                role=role,
            )
            for path, role in sorted(roles.items())
        }
        manifest = manifest_of(export, kind=form.name, files=files, by=by)
        (draft / MANIFEST).write_text(json_from_manifest(manifest), encoding="utf-8")
        (draft / SUMS).write_text(sums_of(draft), encoding="utf-8")
    return Exported(
        folder=folder,
        files=tuple(sorted(path for path in folder.rglob("*") if path.is_file())),
        fingerprint=sha256_of(folder / SUMS),
    )
