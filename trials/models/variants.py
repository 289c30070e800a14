"""Variants as files: find or make the ONNX file of each, and identify it by its content."""

import hashlib
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
from trials.backends.fake import fake_model_bytes
from trials.models.onnx_model import ModelFacts, content_digest, read_facts
from trials.models.torch_variant import export_torch, torch_identity
from trials.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A variant's model file.

    Attributes:
        digest: SHA-256 of the content, external data included; the variant's identity.
        convertible: False for the fake backend's JSON, which no converter understands.
        facts: What the file says of itself; None for the fake backend's.
    """

    name: str
    path: Path
    digest: str
    convertible: bool = True
    facts: ModelFacts | None = None


def model_from_source(source: VariantSource, *, space: SearchSpace, store: Store) -> Model:
    """Resolve one variant to a checked file.

    Raises:
        ModelError: The file is missing, is not ONNX or cannot be used.
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
            identity = torch_identity(source)
            entry = store.obtain(
                "model", {"torch": identity}, lambda out: export_torch(source, out)
            ).entry
            return Model(
                name=source.name,
                path=entry.path,
                digest=entry.sha256,
                facts=read_facts(entry.path),
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
