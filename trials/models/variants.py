"""Variants as files: find or make the model file of each, and identify it by its content."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from search_spaces.errors import SpaceError
from search_spaces.space import (
    FakeSource,
    OnnxSource,
    SearchSpace,
    TorchSource,
    VariantSource,
)
from trials.backend import ModelForm
from trials.backends.fake import fake_model_bytes
from trials.errors import ModelError
from trials.models.onnx_model import ModelFacts, content_digest, read_facts
from trials.models.signature import Signature
from trials.models.torch_program import program_signature
from trials.models.torch_variant import export_program, export_torch, torch_identity
from trials.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A variant's model file.

    Attributes:
        digest: SHA-256 of the content, external data included; the variant's identity.
        convertible: False for the fake backend's JSON, which no converter understands.
        form: What the file is.
        facts: What the file says of itself; None for the fake backend's.
    """

    name: str
    path: Path
    digest: str
    convertible: bool = True
    form: ModelForm = ModelForm.ONNX
    facts: Signature | None = None


def model_from_source(
    source: VariantSource,
    *,
    space: SearchSpace,
    store: Store,
    form: ModelForm = ModelForm.ONNX,
) -> Model:
    """Resolve one variant to a checked file, of the form that the space's backend takes.

    Raises:
        ModelError: The file is missing, is not ONNX or cannot be used, or the backend takes none
            such.
        SpaceError: Its fixed batch dimension does not serve the batch sizes of the space.
        StoreError: An exported model cannot be stored.
    """
    match source:
        case FakeSource():
            content = fake_model_bytes(source)
            digest = hashlib.sha256(content).hexdigest()
            entry = store.obtain("model", {"fake": digest}, lambda out: _write(content, out)).entry
            return Model(name=source.name, path=entry.path, digest=digest, convertible=False)
        case TorchSource():
            identity = torch_identity(source, form)
            export, look = _TORCH_FORMS[form]
            entry = store.obtain(
                "model", {"torch": identity}, lambda out: export(source, out)
            ).entry
            return Model(
                name=source.name,
                path=entry.path,
                digest=entry.sha256,
                form=form,
                facts=look(entry.path),
            )
        case OnnxSource() if form is not ModelForm.ONNX:
            raise ModelError(
                f"{space.source}: variants.{source.name}: backend {space.backend!r} does not run "
                "ONNX files; name the model's factory and weights under `torch:`, or write "
                "backend: ort"
            )
        case OnnxSource():
            facts = read_facts(source.path)
            _check_batch(source, facts, space)
            return Model(
                name=source.name,
                path=source.path,
                digest=content_digest(source.path),
                facts=facts,
            )


_TORCH_FORMS: Mapping[
    ModelForm, tuple[Callable[[TorchSource, Path], None], Callable[[Path], Signature]]
] = {
    ModelForm.ONNX: (export_torch, read_facts),
    ModelForm.PROGRAM: (export_program, program_signature),
}


def _write(content: bytes, out: Path) -> None:
    out.write_bytes(content)


def _check_batch(source: OnnxSource, facts: ModelFacts, space: SearchSpace) -> None:
    sizes = space.axis("batch_size").values
    if facts.batch == "fixed" and sizes != (facts.batch_size,):
        raise SpaceError(
            f"{source.path.name} has a fixed batch of {facts.batch_size}, the space asks for "
            f"{list(sizes)}; `trifront init {source.path.name}` writes a copy with a free batch, "
            f"or set axes.batch_size to [{facts.batch_size}]",
            source=space.source,
            key=f"variants.{source.name}",
        )
