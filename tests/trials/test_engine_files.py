"""Engines that came as files, and errands in processes of their own."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from real_spaces import bench_in, point, write_data, write_space

from search_spaces.deployment import Precision
from search_spaces.space import MeasuringPlan
from trials.backend import EngineKind
from trials.bench import Bench, Prepared
from trials.engine_files import (
    Asking,
    Building,
    Driving,
    EngineFile,
    Scoring,
    ask_engine,
    build_engine,
    describe_machine,
    drive_engine,
    rewrite_model,
    score_file,
)
from trials.errors import DataError, DeadlineError, FaultError, WorkerBugError, WorkerDiedError
from trials.isolation.child import Limits
from trials.isolation.errand import run_errand
from trials.recording import record_references
from trials.references import Wanted

LIMITS = Limits(deadline_s=30, memory_bytes=None)
QUICK = MeasuringPlan(  # has its fewest blocks after 40 ms, and time for them on a busy machine
    block_s=0.005,
    block_requests=2,
    warmup_s=0,
    max_s=3,
    target_p50=0.9,
    target_p99=0.99,
    target_throughput=0.9,
)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return bench_in(tmp_path, write_space(tmp_path))


@pytest.fixture
def prepared(bench: Bench) -> Prepared:
    return bench.prepare(point(precision=Precision.INT8, batch_size=4))


@pytest.fixture
def engine(prepared: Prepared) -> EngineFile:
    deployment = point(precision=Precision.INT8, batch_size=4)
    return EngineFile(backend="ort", path=prepared.engine.path, deployment=deployment)


def test_engine_built_from_the_portable_model_is_the_same(
    prepared: Prepared, tmp_path: Path
) -> None:
    building = Building(model=prepared.model.path, spec=prepared.spec, plan=tmp_path / "again")

    assert build_engine(building) == prepared.engine.sha256


def test_engine_built_from_the_rewritten_model_is_the_same(
    prepared: Prepared, tmp_path: Path
) -> None:
    """Whoever serves the rewritten model serves what was measured."""
    rewritten = Building(model=prepared.model.path, spec=prepared.spec, plan=tmp_path / "model")
    assert rewrite_model(rewritten)

    again = replace(rewritten, model=rewritten.plan, plan=tmp_path / "again")

    assert build_engine(again) == prepared.engine.sha256
    assert hashlib.sha256(rewritten.plan.read_bytes()).hexdigest() != prepared.model.sha256


def test_model_that_is_built_as_it_is_is_not_rewritten(bench: Bench, tmp_path: Path) -> None:
    plain = bench.prepare(point())

    building = Building(model=plain.model.path, spec=plain.spec, plan=tmp_path / "model")

    assert not rewrite_model(building)
    assert not building.plan.exists()


def test_machine_is_described_as_the_engines_are_keyed(prepared: Prepared) -> None:
    found = run_errand(describe_machine, EngineKind(backend="ort"), LIMITS)

    assert found.engines == prepared.spec.environment
    assert {"cpu_model", "cpu_flags", "cpu_affinity", "onnxruntime"} <= dict(found.facts).keys()


def test_engine_answers_references_in_a_process_of_its_own(
    bench: Bench, engine: EngineFile
) -> None:
    wanted = Wanted(samples=10, limit_bytes=10**9)
    references = record_references(engine.deployment, bench, wanted).references
    assert references is not None

    found = run_errand(ask_engine, Asking(engine=engine, inputs=references.inputs), LIMITS)

    assert np.array_equal(found["logits"], references.outputs["logits"])


def test_samples_for_other_inputs_are_refused(engine: EngineFile) -> None:
    asking = Asking(engine=engine, inputs={"images": np.ones((4, 6), np.float32)})

    with pytest.raises(DataError, match="takes samples; recorded were images"):
        run_errand(ask_engine, asking, LIMITS)


def test_file_that_is_no_engine_is_a_fault(engine: EngineFile, tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(engine.path.read_bytes()[:100])
    asking = Asking(engine=replace(engine, path=tmp_path / "cut"), inputs={})

    with pytest.raises(FaultError, match="loading an engine"):
        run_errand(ask_engine, asking, LIMITS)


def test_file_of_samples_is_scored_as_the_task_says(
    bench: Bench, engine: EngineFile, tmp_path: Path
) -> None:
    data = write_data(tmp_path / "mine.npz", count=60)

    found = run_errand(
        score_file, Scoring(engine=engine, task=bench.space.task, data=data), LIMITS
    )

    assert (found.split, found.samples) == ("data", 60)
    assert dict(found.scores).keys() == {"accuracy", "macro_f1"}


def test_load_is_the_deployments_own(engine: EngineFile) -> None:
    """Seven samples make no two batches of four; they are used again."""
    inputs = {"samples": np.ones((7, 6), np.float32)}

    found = run_errand(drive_engine, Driving(engine=engine, inputs=inputs, plan=QUICK), LIMITS)

    assert {block.batch_size for block in found.blocks} == {4}
    assert len(found.blocks) >= QUICK.min_blocks


def own_process(number: int) -> tuple[int, int]:
    return number, os.getpid()


def crash(_: object) -> None:
    os.abort()


def hang(_: object) -> None:
    while True:
        pass


def bug(_: object) -> None:
    raise KeyError("missing")


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process of an errand find this module's functions."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.mark.usefixtures("importable")
def test_errand_runs_in_a_process_that_is_gone_afterwards() -> None:
    number, pid = run_errand(own_process, 7, LIMITS)

    assert number == 7
    assert pid != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.usefixtures("importable")
def test_errand_that_crashes_names_itself() -> None:
    with pytest.raises(WorkerDiedError, match="SIGABRT in phase 'crash'"):
        run_errand(crash, None, LIMITS)


@pytest.mark.usefixtures("importable")
def test_errand_that_hangs_is_killed_at_the_deadline() -> None:
    with pytest.raises(DeadlineError, match="within 1 s, killed in phase 'hang'"):
        run_errand(hang, None, Limits(deadline_s=1, memory_bytes=None))


@pytest.mark.usefixtures("importable")
def test_bug_in_an_errand_escapes() -> None:
    with pytest.raises(WorkerBugError, match="KeyError: 'missing'"):
        run_errand(bug, None, LIMITS)
