"""What a builder made of a trial's model: its layers as a table, and its own words.

The engine store keeps them with each engine. They are read here without a pin, which is a write:
looking must not decide what is evicted, and a workspace may be read-only. An entry that is evicted
meanwhile, or that describes another build of the same key, is not there.
"""

from pathlib import Path

from optimizer.workspace import Workspace
from trials.inspection_file import Inspection, inspection_from_json
from trials.measurement import EngineRecord
from trials.store.entries import PAYLOAD, key_from_parts

LAYERS = "layers.csv"
LOG = "build.log"


def inspection_of(engine: EngineRecord, workspace: Workspace) -> Inspection | None:
    """Read the inspection of an engine; None where the store has none of this very engine."""
    try:
        text = inspection_file(engine, workspace).read_text(encoding="utf-8")
        found = inspection_from_json(text)
    except (FileNotFoundError, ValueError):  # evicted meanwhile, or of another version
        return None
    return found if found.engine_digest == engine.engine_digest else None


def inspection_file(engine: EngineRecord, workspace: Workspace) -> Path:
    """Return where the inspection of an engine lies, if it is there."""
    key = key_from_parts("inspection", {"engine": engine.engine_key})
    return workspace.store / "inspection" / key[:2] / key / PAYLOAD
