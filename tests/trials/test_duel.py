"""Two real engines against each other, in processes of their own."""

from pathlib import Path

import numpy as np
import pytest
from real_spaces import bench_in, point, write_space

from search_spaces.space import MeasuringPlan
from trials.bench import Bench
from trials.duel import Duel, ReferenceExam, Sitting, SplitExam, describe_inputs, fight, sit
from trials.engine_files import Driving, EngineFile
from trials.isolation.child import Limits
from trials.isolation.errand import run_errand
from trials.recording import record_references
from trials.references import References, Wanted

LIMITS = Limits(deadline_s=60, memory_bytes=None)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return bench_in(tmp_path, write_space(tmp_path))


def engine_of(bench: Bench, *, batch_size: int) -> EngineFile:
    deployment = point(batch_size=batch_size)
    prepared = bench.prepare(deployment)
    return EngineFile(backend="ort", path=prepared.engine.path, deployment=deployment)


def references_of(bench: Bench) -> References:
    wanted = Wanted(samples=24, limit_bytes=10**6)
    recorded = record_references(point(), bench, wanted).references
    assert recorded is not None
    return recorded


def test_both_engines_are_measured_under_their_own_load(bench: Bench) -> None:
    inputs = references_of(bench).inputs
    old, new = (
        Driving(engine=engine_of(bench, batch_size=size), inputs=inputs, plan=MeasuringPlan())
        for size in (1, 4)
    )

    turns = run_errand(fight, Duel(old=old, new=new, fours=2, block_s=0.005, seed=0), LIMITS)

    assert len(turns.pairs) == 4
    assert {pair.old.batch_size for pair in turns.pairs} == {1}
    assert {pair.new.batch_size for pair in turns.pairs} == {4}
    assert 0 <= turns.contended <= turns.blocks == 8


def test_marks_are_the_accuracy_of_the_search_split(bench: Bench) -> None:
    exam = SplitExam(task=bench.space.task, source=bench.space.source, seed=0)

    sat = run_errand(sit, Sitting(engine=engine_of(bench, batch_size=4), exam=exam), LIMITS)

    assert sat.marks.metric == "accuracy"
    assert sat.marks.scores.shape == (80,)
    assert sat.marks.brier is not None
    assert 0 <= sat.marks.brier.min() <= sat.marks.brier.max() <= 2


def test_references_are_asked_as_they_were_recorded(bench: Bench) -> None:
    recorded = references_of(bench)
    exam = ReferenceExam(
        task=bench.space.task, inputs=recorded.inputs, labels=np.asarray(recorded.labels)
    )

    sat = sit(Sitting(engine=engine_of(bench, batch_size=1), exam=exam))

    expected = recorded.outputs["logits"].argmax(axis=1) == recorded.labels
    assert sat.marks.scores.tolist() == expected.astype(float).tolist()


def test_engine_says_what_it_takes(bench: Bench) -> None:
    (spec,) = describe_inputs(engine_of(bench, batch_size=1))

    assert (spec.name, spec.dtype, spec.shape) == ("samples", "float32", (None, 6))
