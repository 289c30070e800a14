"""Where the seconds of measured trials went: into what is shared, or into the trial itself.

A model is converted once, an engine built and scored once, by whichever trial comes first; every
later one finds them in the store. A table must know these seconds all the same. They are taken,
in this order, from the trial that spent them, from the store's record of what it keeps, and for
engines from the inspection that is kept with them.

A trial that was infeasible does not tell its seconds one by one. What it spent on shared things is
what the store says was made in its time; the rest is its own. Where a builder refused all
deployments of an engine, the first trial found that out and the others were told at once: what it
took beyond their median is the engine's price.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from optimizer.errors import TableError
from optimizer.study.records import TrialRecord
from search_spaces.deployment import Deployment
from trials.backend import Capabilities, Scope
from trials.capabilities import batch_in_engine, engine_options
from trials.outcome import Completed
from trials.store.entries import Entry

_MADE_ONCE = ("model", "engine", "quality")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What a deployment shares with others.

    Attributes:
        model: Names its converted model; equal names, one price. Likewise ``engine``.
        convert_s: Seconds of the conversion; likewise ``build_s``, ``score_s`` of the engine.
    """

    model: str
    engine: str
    convert_s: float
    build_s: float
    score_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """Seconds that a deployment costs each time."""

    load_s: float
    measure_s: float
    other_s: float


class Pricing:
    """Prices of the deployments of one study.

    Args:
        records: All its ended trials.
        capabilities: Those of the space's backend: they say what an engine serves.
        entries: What the store has.
        built_s: (engine's key, seconds) of builds whose engines the store need not have.
    """

    def __init__(
        self,
        records: Sequence[TrialRecord],
        capabilities: Capabilities,
        entries: Iterable[Entry],
        built_s: Iterable[tuple[str, float]] = (),
    ) -> None:
        self._capabilities = capabilities
        self._entries = [one for one in entries if one.kind in _MADE_ONCE]
        self._built_s = dict(built_s)
        self._of_engine: dict[str, list[TrialRecord]] = {}
        self._of_model: dict[str, list[TrialRecord]] = {}
        self._aliases: dict[str, str] = {}  # digest of a model to the first name that it had
        for record in records:
            model, engine = self._names(record.outcome.deployment)
            self._of_engine.setdefault(engine, []).append(record)
            if isinstance(record.outcome, Completed):
                digest = record.outcome.engine.model_digest
                model = self._aliases.setdefault(digest, model)
            self._of_model.setdefault(model, []).append(record)
        self._known: dict[str, Shared] = {}

    def shared(self, deployment: Deployment) -> Shared:
        """Price what a deployment shares with others.

        Raises:
            TableError: Nobody knows any more; names the trial that found it made.
        """
        model, engine = self._names(deployment)
        if engine not in self._known:
            self._known[engine] = self._priced(model, engine)
        return self._known[engine]

    def own(self, records: Sequence[TrialRecord]) -> Own:
        """Price what the trials of one deployment spent beside what is shared.

        Args:
            records: Its only trial, or those that failed, as a search tries these again.
        """
        paid_s = sum(self._paid_s(record) for record in records)
        spent_s = sum(record.finished_s - record.started_s for record in records)
        outcome = records[-1].outcome
        load_s = measure_s = 0.0
        if isinstance(outcome, Completed):
            load_s, measure_s = outcome.costs.load_s, outcome.costs.measure_s
        elif outcome.state == "infeasible":
            paid_s += self._refused_s(records[-1])
        return Own(
            load_s=load_s,
            measure_s=measure_s,
            other_s=max(0.0, spent_s - paid_s - load_s - measure_s),
        )

    def _names(self, deployment: Deployment) -> tuple[str, str]:
        """Name a deployment's model and engine by what they are made of."""
        in_model = {one.name for one in self._capabilities.options if one.scope is Scope.MODEL}
        options = engine_options(deployment, self._capabilities)
        model = [deployment.variant, deployment.precision.value]
        model += [f"{name}={value}" for name, value in options if name in in_model]
        batch_size = batch_in_engine(deployment, self._capabilities)
        engine = [*model, *([] if batch_size is None else [f"b{batch_size}"])]
        engine += [f"{name}={value}" for name, value in options if name not in in_model]
        return " ".join(model), " ".join(engine)

    def _priced(self, model: str, engine: str) -> Shared:
        completed = _completed(self._of_engine[engine])
        if not completed:
            return self._priced_by_time(model, engine)
        model = self._aliases[completed[0].engine.model_digest]
        return Shared(
            model=model,
            engine=engine,
            convert_s=self._convert_s(model),
            build_s=self._build_s(engine, completed),
            score_s=self._score_s(engine, completed),
        )

    def _priced_by_time(self, model: str, engine: str) -> Shared:
        """Price an engine that never ran by what was made while its trials lasted."""
        records = self._of_engine[engine]
        made = {kind: sum(self._made_s(record, kind) for record in records) for kind in _MADE_ONCE}
        elsewhere = _completed(self._of_model.get(model, []))
        refused_s = sum(self._refused_s(record) for record in records)
        return Shared(
            model=model,
            engine=engine,
            convert_s=self._convert_s(model) if elsewhere else self._model_made_s(model),
            build_s=made["engine"] + refused_s,
            score_s=made["quality"],
        )

    def _model_made_s(self, model: str) -> float:
        return sum(self._made_s(record, "model") for record in self._of_model[model])

    def _convert_s(self, model: str) -> float:
        records = self._of_model[model]
        completed = _completed(records)
        paid = [one.costs.convert_s for one in completed if one.costs.convert_s > 0]
        digest = completed[0].engine.model_digest
        kept = [one for one in self._entries if one.kind == "model" and one.sha256 == digest]
        # what a conversion leaves as it is was there before, under the name of its source
        latest = sorted(kept, key=lambda one: one.created_s)[-1:]
        return self._first(
            (*paid, *(one.make_s for one in latest)), f"converting model '{model}'", records
        )

    def _build_s(self, engine: str, completed: Sequence[Completed]) -> float:
        keys = {one.engine.engine_key for one in completed}
        paid = [one.costs.build_s for one in completed if one.costs.build_s > 0]
        kept = [one.make_s for one in self._entries if one.kind == "engine" and one.key in keys]
        seen = [seconds for key, seconds in self._built_s.items() if key in keys]
        what = f"building engine '{engine}'"
        return self._first((*paid, *kept, *seen), what, self._of_engine[engine])

    def _score_s(self, engine: str, completed: Sequence[Completed]) -> float:
        if all(one.quality is None for one in completed):
            return 0.0
        paid = [one.costs.score_s for one in completed if one.costs.score_s > 0]
        kept = list(self._scored_s(completed))
        return self._first((*paid, *kept), f"scoring engine '{engine}'", self._of_engine[engine])

    def _scored_s(self, completed: Sequence[Completed]) -> Iterator[float]:
        """Yield what scoring cost by the store: it names the engine by its parts."""
        keys = {one.engine.engine_key for one in completed}
        splits = {one.quality.split_digest for one in completed if one.quality is not None}
        engines = [
            json.loads(one.parts)
            for one in self._entries
            if one.kind == "engine" and one.key in keys
        ]
        for entry in self._entries:
            if entry.kind == "quality":
                parts = json.loads(entry.parts)
                if parts.get("engine") in engines and parts.get("split") in splits:
                    yield entry.make_s

    def _first(self, found: Sequence[float], what: str, records: Sequence[TrialRecord]) -> float:
        if not found:
            finder = next(one for one in records if isinstance(one.outcome, Completed))
            raise TableError(
                f"what {what} costs is unknown: trial {finder.number} found it in the store, "
                "which has dropped it since",
                hint="record the space in an empty --workspace",
            )
        return found[0]

    def _paid_s(self, record: TrialRecord) -> float:
        """Say what a trial spent on what is shared."""
        if isinstance(record.outcome, Completed):
            costs = record.outcome.costs
            return costs.convert_s + costs.build_s + costs.score_s
        return sum(self._made_s(record, kind) for kind in _MADE_ONCE)

    def _made_s(self, record: TrialRecord, kind: str) -> float:
        return sum(
            entry.make_s
            for entry in self._entries
            if entry.kind == kind and record.started_s <= entry.created_s <= record.finished_s
        )

    def _refused_s(self, record: TrialRecord) -> float:
        """Say what a trial spent to find out that its engine cannot be built."""
        _, engine = self._names(record.outcome.deployment)
        alike = self._of_engine[engine]
        if len(alike) == 1 or any(_kind(one) != "unsupported" for one in alike):
            return 0.0
        if record is not alike[0]:
            return 0.0
        spent = [one.finished_s - one.started_s - self._paid_s(one) for one in alike]
        return max(0.0, spent[0] - median(spent[1:]))


def _completed(records: Sequence[TrialRecord]) -> list[Completed]:
    return [one.outcome for one in records if isinstance(one.outcome, Completed)]


def _kind(record: TrialRecord) -> str:
    return "" if isinstance(record.outcome, Completed) else record.outcome.kind
