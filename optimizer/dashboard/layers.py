"""What a builder made of a trial's model: its layers as a table, and its own words.

The engine store keeps them with each engine. They are read here without a pin, which is a write:
looking must not decide what is evicted, and a workspace may be read-only. An entry that is evicted
meanwhile, or that describes another build of the same key, is not there.
"""

from pathlib import Path

from optimizer.study.records import TrialRecord
from optimizer.workspace import Workspace
from trials.inspection_file import Inspection, csv_of_layers, inspection_from_json
from trials.measurement import EngineRecord
from trials.outcome import Completed
from trials.store.entries import PAYLOAD, key_from_parts

LAYERS = "layers.csv"
LOG = "build.log"


class InspectionProvider:
    """The layers and the build log of the engine that a trial measured."""

    def __init__(self, workspace: Workspace) -> None:
        self._store = workspace.store
        self._described: dict[tuple[str, str], tuple[str, ...]] = {}

    def names(self, record: TrialRecord) -> tuple[str, ...]:
        """Name the table, and the log where the builder said anything."""
        if not isinstance(record.outcome, Completed):
            return ()
        engine = record.outcome.engine
        if not self._file(engine).is_file():
            return ()
        key = (engine.engine_key, engine.engine_digest)
        if key not in self._described:  # many trials share an engine
            found = self._inspection(engine)
            if found is None:
                return ()
            self._described[key] = (LAYERS, LOG) if found.log.text else (LAYERS,)
        return self._described[key]

    def content(self, record: TrialRecord, name: str) -> bytes:
        """Write the table, or the log.

        Raises:
            FileNotFoundError: The store has let go of it.
        """
        assert isinstance(record.outcome, Completed)
        found = self._inspection(record.outcome.engine)
        if found is None:
            raise FileNotFoundError(name)
        return (found.log.text if name == LOG else csv_of_layers(found)).encode()

    def _inspection(self, engine: EngineRecord) -> Inspection | None:
        try:
            found = inspection_from_json(self._file(engine).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # evicted meanwhile, or of another version
            return None
        return found if found.engine_digest == engine.engine_digest else None

    def _file(self, engine: EngineRecord) -> Path:
        key = key_from_parts("inspection", {"engine": engine.engine_key})
        return self._store / "inspection" / key[:2] / key / PAYLOAD
