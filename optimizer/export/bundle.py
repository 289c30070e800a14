"""Export: the model that was measured, with a manifest that says everything about it.

The bundle is written beside its place and renamed into it, so that it is there whole or not. What
an export leaves there that was killed is removed by the next one of that name.
"""

import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from optimizer.errors import ExportError
from optimizer.export.bundle_readme import readme_of
from optimizer.front.data import data_of_trial
from optimizer.study.records import TrialRecord
from optimizer.study.study import SearchStudy
from optimizer.workspace import writing
from trials.bench import Prepared
from trials.outcome import Completed

MANIFEST_FORMAT = 1

_SUFFIXES = {"ort": "onnx", "fake": "json"}  # of engines and models; others keep a plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """An exported deployment on disk."""

    folder: Path
    files: tuple[Path, ...]


def export_bundle(
    record: TrialRecord, study: SearchStudy, prepare: Callable[[], Prepared], folder: Path
) -> Bundle:
    """Write the measured engine, the portable model it was built from, and the manifest.

    Args:
        record: A completed trial.
        study: Its study.
        prepare: Puts its engine into the store, or finds it there.
        folder: Must not exist, or be empty.

    Raises:
        ExportError: The trial was not measured, the engine is not the measured one, or the folder
            is in use.
        WorkspaceError: The disk refuses.
    """
    outcome = record.outcome
    if not isinstance(outcome, Completed):
        raise ExportError(
            f"trial {record.number} is {outcome.state}: {outcome.reason}",
            hint="`trifront front` lists what can be exported",
        )
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder} is not empty", hint="name a new folder with --to")
    prepared = prepare()
    _refuse_another(prepared, outcome)
    with writing(folder):
        _sweep(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{_draft(folder)}{os.getpid()}."))
        try:
            _fill(draft, record, study, prepared)
            draft.chmod(0o755)
            draft.replace(folder)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    return Bundle(folder=folder, files=tuple(sorted(folder.iterdir())))


def _refuse_another(prepared: Prepared, measured: Completed) -> None:
    """Refuse an engine that is not, bit by bit, the one that was measured."""
    if prepared.variant_digest != measured.engine.variant_digest:
        raise ExportError(
            f"the model of variant '{measured.deployment.variant}' has changed since it was "
            f"measured (it was {measured.engine.variant_digest[:12]}, it is "
            f"{prepared.variant_digest[:12]})",
            hint="put the old file back, or search again under a new --study name",
        )
    if prepared.engine.sha256 != measured.engine.engine_digest:
        raise ExportError(
            f"the engine that was measured ({measured.engine.engine_digest[:12]}) is no longer in "
            f"the store, and building it again gave another one ({prepared.engine.sha256[:12]})",
            hint="search again with --repeat and export the new trial",
        )


def _draft(folder: Path) -> str:
    """Begin the name of a folder that a bundle is written in; its writer's process id follows."""
    return f".{folder.name}.export-"


def _sweep(folder: Path) -> None:
    """Remove what killed exports to this place left."""
    for draft in folder.parent.glob(f"{glob.escape(_draft(folder))}*"):
        owner = draft.name.removeprefix(_draft(folder)).partition(".")[0]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(draft, ignore_errors=True)


def _fill(draft: Path, record: TrialRecord, study: SearchStudy, prepared: Prepared) -> None:
    """Copy the files, then write the manifest that names each with its digest."""
    suffix = _SUFFIXES.get(study.space.backend, "plan")
    copies = {f"engine.{suffix}": prepared.engine.path, f"model.{suffix}": prepared.model.path}
    for name, source in copies.items():
        shutil.copyfile(source, draft / name)
    (draft / "space.yaml").write_text(study.space_file, encoding="utf-8")
    (draft / "README.md").write_text(readme_of(record, study.space), encoding="utf-8")
    manifest = manifest_of(record, study)
    manifest["files"] = {
        path.name: {"sha256": _sha256(path), "bytes": path.stat().st_size}
        for path in sorted(draft.iterdir())
    }
    text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False)
    (draft / "manifest.json").write_text(text + "\n", encoding="utf-8")
    for path in draft.iterdir():
        _sync(path)


def manifest_of(record: TrialRecord, study: SearchStudy) -> dict[str, object]:
    """Say everything about an exported trial: what, how good, on what, from what."""
    outcome = record.outcome
    assert isinstance(outcome, Completed)
    verdict = study.verdicts().get(record.number)
    return {
        "format": MANIFEST_FORMAT,
        "trifront": version("trifront"),
        "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **data_of_trial(record, verdict),
        "precision": outcome.deployment.precision.value,
        "backend": study.space.backend,
        "engine": asdict(outcome.engine),
        "inputs": study.digests,
        "preprocessing": asdict(study.space.task.preprocessing),
        "constraints": [str(constraint) for constraint in study.space.constraints],
        "measured_on": dict(outcome.environment.facts),
    }


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
