"""An export as it is read back: whole, understood, and without contradictions."""

from dataclasses import dataclass, replace
from pathlib import Path

from optimizer.errors import BundleError
from optimizer.export.checksums import SUMS, check_sums
from optimizer.export.manifest import MANIFEST, Manifest, Role, manifest_from_json
from optimizer.export.references_file import read_references
from optimizer.workspace import load_blocks
from search_spaces.arrivals import TraceArrivals
from search_spaces.space import MeasuringPlan
from trials.measurement import Block
from trials.references import References

_HINT = "copy it again from where it was exported, or export it again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """An exported folder whose every byte is as it was written.

    Attributes:
        fingerprint: SHA-256 of ``SHA256SUMS``.
    """

    folder: Path
    manifest: Manifest
    fingerprint: str

    def file(self, role: Role) -> Path | None:
        """Return the file of a role, None where the export has none."""
        path = self.manifest.path_of(role)
        return None if path is None else self.folder / path

    def plan(self) -> MeasuringPlan:
        """Return how it was measured; a trace of arrivals is the one that travelled with it."""
        plan = self.manifest.measurement.measuring_plan()
        trace = self.file(Role.TRACE)
        if trace is None or not isinstance(plan.arrivals, TraceArrivals):
            return plan
        return replace(plan, arrivals=replace(plan.arrivals, path=trace))

    def references(self) -> References | None:
        """Read the references, where there are any.

        Raises:
            BundleError: They cannot be read.
        """
        path, section = self.file(Role.REFERENCES), self.manifest.references
        if path is None or section is None:
            return None
        return read_references(path, batch_size=section.batch_size)

    def blocks(self) -> tuple[Block, ...] | None:
        """Read the raw blocks, where there are any.

        Raises:
            WorkspaceError: They are of another version.
        """
        path = self.file(Role.BLOCKS)
        return None if path is None else load_blocks(path)


def open_bundle(folder: Path) -> Bundle:
    """Read an export and see that it is whole.

    Raises:
        BundleError: It is none, a byte was changed, a file was added or removed, the manifest is
            of another version, or it contradicts the files.
    """
    folder = folder.resolve()
    if not folder.is_dir():
        problem = "is no folder" if folder.exists() else "there is no such folder"
        raise BundleError(f"{folder}: {problem}", hint="name a folder that was exported")
    try:
        fingerprint = check_sums(folder)
        text = (folder / MANIFEST).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{folder}: cannot be read ({error})", hint=_HINT) from error
    manifest = manifest_from_json(text, source=folder / MANIFEST)
    _refuse_contradictions(folder, manifest)
    return Bundle(folder=folder, manifest=manifest, fingerprint=fingerprint)


def _refuse_contradictions(folder: Path, manifest: Manifest) -> None:
    """Hold the manifest against the files: somebody may have rewritten both it and the sums."""
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    named = {*manifest.files, MANIFEST, SUMS}
    if there != named:
        odd = min(there ^ named)
        problem = "is not in the folder" if odd in named else "is not in the manifest"
        raise BundleError(f"{folder}: {odd} {problem}", hint=_HINT)
    sums = dict(
        line.split("  ", 1)[::-1] for line in (folder / SUMS).read_text("utf-8").splitlines()
    )
    digests = {Role.ENGINE: manifest.engine.sha256, Role.MODEL: manifest.engine.model_sha256}
    for path, file in manifest.files.items():
        if file.sha256 != sums[path] or digests.get(file.role, file.sha256) != file.sha256:
            raise BundleError(
                f"{folder / MANIFEST}: files.{path}.sha256 is not that of the file", hint=_HINT
            )
    if manifest.path_of(Role.MODEL) is None:
        raise BundleError(f"{folder / MANIFEST}: names no model", hint=_HINT)
