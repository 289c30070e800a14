"""Layers and build log of the engine that a trial measured, as artifacts of the trial."""

from optimizer.inspections import LAYERS, LOG, inspection_file, inspection_of
from optimizer.study.records import TrialRecord
from optimizer.workspace import Workspace
from trials.inspection_file import csv_of_layers
from trials.outcome import Completed


class InspectionProvider:
    """The layers and the build log of the engine that a trial measured."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._described: dict[tuple[str, str], tuple[str, ...]] = {}

    def names(self, record: TrialRecord) -> tuple[str, ...]:
        """Name the table, and the log where the builder said anything."""
        if not isinstance(record.outcome, Completed):
            return ()
        engine = record.outcome.engine
        if not inspection_file(engine, self._workspace).is_file():
            return ()
        key = (engine.engine_key, engine.engine_digest)
        if key not in self._described:  # many trials share an engine
            found = inspection_of(engine, self._workspace)
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
        found = inspection_of(record.outcome.engine, self._workspace)
        if found is None:
            raise FileNotFoundError(name)
        return (found.log.text if name == LOG else csv_of_layers(found)).encode()
