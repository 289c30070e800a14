"""The format ``bundle``: the engine as it was measured, and all that is needed to check it."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from optimizer.export.attachments import write_attachments
from optimizer.export.gathering import Export
from optimizer.export.manifest import Role
from optimizer.export.readme import bundle_readme
from search_spaces.space import SearchSpace
from trials.backends.catalog import engine_suffix

_README = "README.md"
_MODELS = {"fake": "json", "torch": "pt2"}  # suffixes; every other model is ONNX


class BundleFormat:
    """A flat folder; any backend."""

    @property
    def name(self) -> str:
        """Name on the command line and in the manifest."""
        return "bundle"

    def refuse(self, space: SearchSpace) -> None:
        """Refuse nothing: what was measured can be bundled."""

    def write(self, export: Export, folder: Path) -> Mapping[str, Role]:
        """Write engine, portable model, references, blocks, space file and README.

        Raises:
            OSError: The disk refuses.
        """
        backend = export.spec.backend
        engine = f"engine.{engine_suffix(backend)}"
        model = f"model.{_MODELS.get(backend, 'onnx')}"
        shutil.copyfile(export.engine, folder / engine)
        shutil.copyfile(export.model, folder / model)
        readme = bundle_readme(export, engine=engine, model=model)
        (folder / _README).write_text(readme, encoding="utf-8")
        return {
            engine: Role.ENGINE,
            model: Role.MODEL,
            _README: Role.README,
            **write_attachments(export, folder),
        }
