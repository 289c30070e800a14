"""The bench as a worker process serves it: open once, then answer one request at a time."""

from pathlib import Path

from search_spaces.deployment import Deployment
from search_spaces.space import MeasuringPlan, SearchSpace
from trials.bench import Bench, BenchFacts, Prepared, open_bench
from trials.isolation.messages import LayerQuestion
from trials.isolation.telling import Teller
from trials.measurement import Quality
from trials.measuring.load import Driven
from trials.models.layers import Product
from trials.outcome import Outcome
from trials.recording import record_references
from trials.references import Recorded, Wanted
from trials.run import measure_speed, run_trial, score_report
from trials.sensitivity import LayerEffect
from trials.store.store import Store


class BenchSession:
    """Answers to a worker's requests over one opened bench."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def run(self, deployment: Deployment, teller: Teller) -> Outcome:
        """Try one deployment."""
        return run_trial(
            deployment, self._bench, on_phase=teller.phase, on_progress=teller.progress
        )

    def report(self, deployment: Deployment) -> Quality:
        """Score a deployment on the report split."""
        return score_report(deployment, self._bench)

    def prepare(self, deployment: Deployment, teller: Teller) -> Prepared:
        """Put a deployment's model and engine into the store."""
        return self._bench.prepare(deployment, on_progress=teller.progress)

    def measure(self, deployment: Deployment, plan: MeasuringPlan | None) -> Driven:
        """Measure the speed of a deployment, and nothing else of it."""
        return measure_speed(deployment, self._bench, plan=plan)

    def record(self, deployment: Deployment, wanted: Wanted) -> Recorded:
        """Describe a deployment's engine and record what it answers to labelled samples."""
        return record_references(deployment, self._bench, wanted)

    def layers(self, question: LayerQuestion) -> tuple[Product, ...]:
        """List the layers of a variant that a precision lowers."""
        return self._bench.layers(question.variant, question.precision)

    def lower(self, question: LayerQuestion) -> LayerEffect:
        """Say what lowering one layer of a variant does."""
        return self._bench.layer_effect(
            question.variant, question.precision, layer=question.layer, split=question.split
        )

    def describe(self) -> BenchFacts:
        """Identify the input of the search."""
        return self._bench.facts


def open_session(
    space: SearchSpace, store_root: Path, limit_bytes: int, target: str | None
) -> BenchSession:
    """Open the bench for a worker process."""
    return BenchSession(
        open_bench(space, Store(store_root, limit_bytes=limit_bytes), target=target)
    )
