"""The format ``onnx``: the converted model alone, for whoever has an engine of their own."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from optimizer.errors import ExportError
from optimizer.export.gathering import Export
from optimizer.export.manifest import Role
from search_spaces.space import SearchSpace

MODEL = "model.onnx"


class OnnxFormat:
    """One ONNX file, in the deployment's precision; any backend that takes ONNX."""

    @property
    def name(self) -> str:
        """Name on the command line and in the manifest."""
        return "onnx"

    def refuse(self, space: SearchSpace) -> None:
        """Refuse a deployment that has no ONNX model.

        Raises:
            ExportError: Of the fake backend, or of torch.
        """
        refuse_fake(space, what="an ONNX file")
        if space.backend == "torch":
            raise ExportError(
                "study of backend 'torch': its models are programs of torch.export, not ONNX",
                hint="--format bundle exports the program; backend: ort searches ONNX",
            )

    def write(self, export: Export, folder: Path) -> Mapping[str, Role]:
        """Write the model.

        Raises:
            OSError: The disk refuses.
        """
        shutil.copyfile(export.model, folder / MODEL)
        return {MODEL: Role.MODEL}


def refuse_fake(space: SearchSpace, *, what: str) -> None:
    """Refuse a made-up model where a real one is wanted.

    Raises:
        ExportError: The space's backend is the fake one.
    """
    if space.backend == "fake":
        raise ExportError(
            f"study of backend 'fake': there is no model to make {what} of",
            hint="--format bundle exports its numbers; search fashion-mnist for real models",
        )
