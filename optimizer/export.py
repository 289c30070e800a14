"""Export: the model that was measured, with a manifest that says everything about it.

The bundle is written beside its place and renamed into it, so that it is there whole or not.
"""

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

from optimizer.errors import ExportError
from optimizer.records import TrialRecord
from optimizer.study import SearchStudy
from optimizer.tables import data_of_trial
from optimizer.workspace import writing
from trials.bench import Prepared
from trials.outcome import Completed

MANIFEST_FORMAT = 1


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
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder} is not empty", hint="name a new folder with --to")
    prepared = prepare()
    if prepared.engine.sha256 != outcome.engine.engine_digest:
        raise ExportError(
            f"the engine that was measured ({outcome.engine.engine_digest[:12]}) is no longer in "
            f"the store, and building it again gave another one ({prepared.engine.sha256[:12]})",
            hint="search again with --repeat and export the new trial",
        )
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            _fill(draft, record, study, prepared)
            draft.chmod(0o755)
            draft.replace(folder)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    return Bundle(folder=folder, files=tuple(sorted(folder.iterdir())))


def _fill(draft: Path, record: TrialRecord, study: SearchStudy, prepared: Prepared) -> None:
    """Copy the files, then write the manifest that names each with its digest."""
    backend = study.space.backend
    suffix = {"ort": "onnx", "fake": "json"}.get(backend, "plan")
    copies = {f"engine.{suffix}": prepared.engine.path, f"model.{suffix}": prepared.model.path}
    for name, source in copies.items():
        _copy_synced(source, draft / name)
    (draft / "space.yaml").write_text(study.space_file, encoding="utf-8")
    manifest = manifest_of(record, study)
    manifest["files"] = {
        path.name: {"sha256": _sha256(path), "bytes": path.stat().st_size}
        for path in sorted(draft.iterdir())
    }
    text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False)
    (draft / "manifest.json").write_text(text + "\n", encoding="utf-8")


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
        "constraints": [str(constraint) for constraint in study.space.constraints],
        "measured_on": dict(outcome.environment.facts),
    }


def _copy_synced(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
