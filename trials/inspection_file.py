"""Inspections in the store: written beside an engine, found again by that engine's key.

An entry's payload is one JSON document::

    {"format": 1, "engine_digest": …, "spec": {…}, "build_s": …, "layers": […], "log": {…}}

It is keyed by the engine's key alone, so whoever has an outcome can find it. It is no part of the
engine: evicted, it is not there any more, and nothing else changes.
"""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from trials.backend import EngineSpec
from trials.inspection import BuildLog, Layer, LayerOutput
from trials.store.entries import Entry, key_from_parts
from trials.store.store import Store

FORMAT = 1

_COLUMNS = ("name", "operator", "outputs", "parameter_bytes", "fused_from", "facts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What is known of how an engine came about and of what it is.

    Attributes:
        engine_digest: SHA-256 of the engine that is described.
        spec: What it was built for: options, versions and device facts.
        build_s: Seconds that building took.
        layers: In the order of execution.
    """

    engine_digest: str
    spec: EngineSpec
    build_s: float
    layers: tuple[Layer, ...]
    log: BuildLog


def keep_inspection(store: Store, engine: Entry, make: Callable[[], Inspection]) -> None:
    """Store what ``make`` says of an engine that was just built.

    What the store has of another build of the same key is replaced: builders need not make the
    same engine twice.

    Raises:
        StoreError: The store cannot be read or written.
    """
    parts = {"engine": engine.key}
    old = store.find("inspection", key_from_parts("inspection", parts))
    if old is not None and _describing(engine.sha256, old) is None:
        store.forget(old)
    store.obtain(
        "inspection",
        parts,
        lambda out: _write(json_from_inspection(make()), out),
    )


def json_from_inspection(inspection: Inspection) -> str:
    """Serialize an inspection."""
    return json.dumps({"format": FORMAT, **_fields(inspection)}, default=_fields)


def inspection_from_json(text: str) -> Inspection:
    """Read an inspection back.

    Raises:
        ValueError: It is damaged, or of another version.
    """
    from pydantic import TypeAdapter

    raw = json.loads(text)
    found = raw.pop("format", None) if isinstance(raw, dict) else None
    if found != FORMAT:
        raise ValueError(f"an inspection of format {found}; this version reads {FORMAT}")
    return TypeAdapter(Inspection).validate_python(raw)


def csv_of_layers(inspection: Inspection) -> str:
    """Write the layers as a table, one line each, for spreadsheets and data frames."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for layer in inspection.layers:
        writer.writerow(
            (
                layer.name,
                layer.operator,
                "; ".join(map(_shown, layer.outputs)),
                layer.parameter_bytes,
                "; ".join(layer.fused_from),
                "; ".join(f"{name}={value}" for name, value in layer.facts),
            )
        )
    return text.getvalue()


def _describing(engine_digest: str, entry: Entry) -> Inspection | None:
    """Read an entry, if it is of this version and of this engine; else it is as good as gone."""
    try:
        found = inspection_from_json(entry.path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # evicted under our hands, or of another version
        return None
    return found if found.engine_digest == engine_digest else None


def _write(text: str, out: Path) -> None:
    out.write_text(text, encoding="utf-8")


def _fields(one: Any) -> dict[str, Any]:
    """Name a dataclass's fields for JSON; ``asdict`` would copy every layer first."""
    return {field.name: getattr(one, field.name) for field in fields(one)}


def _shown(output: LayerOutput) -> str:
    """Write an output as ``name: float32[?, 16, 28, 28]``."""
    if output.shape is None:
        return output.name if output.dtype is None else f"{output.name}: {output.dtype}"
    shape = ", ".join("?" if one is None else str(one) for one in output.shape)
    return f"{output.name}: {output.dtype or ''}[{shape}]"
