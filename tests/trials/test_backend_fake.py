"""What is particular to the fake backend; the contract is in ``test_backend_contract.py``."""

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.deployment import Deployment, Precision
from search_spaces.space import FakeSource
from trials.abilities import ComputesBlocks, ComputesServices
from trials.backend import EngineSpec
from trials.backends.fake import FakeBackend, FakeEngine, fake_model_bytes
from trials.backends.fake_model import PRECISIONS, FakeModel
from trials.errors import FaultError, MemoryLimitError, UnsupportedError

SOURCE = FakeSource(name="v", work_ms=0.5, accuracy=0.9, size_mb=40)
POINT = Deployment(variant="v", precision=Precision.FP32, batch_size=4, concurrency=2)


def engine(
    folder: Path, source: FakeSource = SOURCE, deployment: Deployment = POINT
) -> FakeEngine:
    backend = FakeBackend()
    (folder / "model").write_bytes(fake_model_bytes(source))
    spec = EngineSpec(
        backend="fake",
        model_digest="0" * 64,
        precision=deployment.precision,
        batch_size=None,
        options=(),
        environment=backend.environment(),
    )
    backend.build(folder / "model", spec, folder / "plan")
    return backend.load(folder / "plan", deployment)


def mean_s(engine: FakeEngine) -> float:
    block = engine.computed_block(start_s=0.0, window_s=0.0, requests=2_000)
    return float(block.latencies_s.mean())


def throughput_sps(engine: FakeEngine) -> float:
    block = engine.computed_block(start_s=0.0, window_s=0.0, requests=2_000)
    return len(block.latencies_s) * block.batch_size / block.window_s


def samples(count: int) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    ids = np.arange(count)
    return {"samples": np.stack([ids, ids % 10], axis=1).astype(np.float32)}


def accuracy(engine: FakeEngine, count: int = 20_000) -> float:
    inputs = samples(count)
    chosen = engine.infer(inputs)["logits"].argmax(axis=1)
    return float((chosen == inputs["samples"][:, 1]).mean())


def test_model_file_does_not_depend_on_the_variants_name() -> None:
    assert fake_model_bytes(SOURCE) == fake_model_bytes(replace(SOURCE, name="other"))
    assert fake_model_bytes(SOURCE) != fake_model_bytes(replace(SOURCE, accuracy=0.91))


def test_same_block_is_computed_twice(tmp_path: Path) -> None:
    first, second = engine(tmp_path), engine(tmp_path)

    blocks = [
        each.computed_block(start_s=1.5, window_s=0.1, requests=100) for each in (first, second)
    ]

    assert np.array_equal(blocks[0].latencies_s, blocks[1].latencies_s)


def test_blocks_at_other_times_differ(tmp_path: Path) -> None:
    loaded = engine(tmp_path)

    early = loaded.computed_block(start_s=0.0, window_s=0.0, requests=100)
    late = loaded.computed_block(start_s=1.0, window_s=0.0, requests=100)

    assert not np.array_equal(early.latencies_s, late.latencies_s)


@given(window_s=st.floats(0, 0.5), requests=st.integers(0, 500), concurrency=st.integers(1, 8))
def test_block_is_long_enough_and_obeys_littles_law(
    tmp_path_factory: pytest.TempPathFactory, window_s: float, requests: int, concurrency: int
) -> None:
    point = replace(POINT, concurrency=concurrency)
    loaded = engine(tmp_path_factory.mktemp("fake"), deployment=point)

    block = loaded.computed_block(start_s=0.0, window_s=window_s, requests=requests)

    assert block.window_s >= window_s
    assert len(block.latencies_s) >= requests
    in_flight = len(block.latencies_s) / block.window_s * block.latencies_s.mean()
    assert in_flight == pytest.approx(concurrency)


@pytest.mark.quiet
def test_computing_blocks_takes_no_time_of_its_own(tmp_path: Path) -> None:
    loaded = engine(tmp_path, replace(SOURCE, work_ms=100_000))
    started = perf_counter()

    block = loaded.computed_block(start_s=0.0, window_s=3600, requests=10)

    assert isinstance(loaded, ComputesBlocks)
    assert block.window_s > 60 * (perf_counter() - started)


@pytest.mark.quiet
def test_requests_of_a_lane_take_real_time(tmp_path: Path) -> None:
    loaded = engine(tmp_path, replace(SOURCE, work_ms=5))
    with loaded.lane([samples(4)]) as requests:
        started = perf_counter()
        requests[0]()

        assert perf_counter() - started > 0.005


def test_larger_batches_raise_throughput_and_latency(tmp_path: Path) -> None:
    engines = [engine(tmp_path, deployment=replace(POINT, batch_size=n)) for n in (1, 8, 64)]

    times = [mean_s(each) for each in engines]
    rates = [throughput_sps(each) for each in engines]

    assert times == sorted(times)
    assert rates == sorted(rates)


def test_throughput_peaks_and_falls_with_concurrency(tmp_path: Path) -> None:
    points = [replace(POINT, concurrency=n) for n in (1, 8, 200)]

    one, eight, many = (throughput_sps(engine(tmp_path, deployment=each)) for each in points)

    assert one < eight
    assert many < eight


def test_threads_shorten_a_lone_request(tmp_path: Path) -> None:
    point = replace(POINT, concurrency=1)

    one = mean_s(engine(tmp_path, deployment=point))
    four = mean_s(engine(tmp_path, deployment=replace(point, options=(("threads", 4),))))

    assert four < one / 2


def test_int8_pays_on_a_big_model_and_costs_on_a_tiny_one(tmp_path: Path) -> None:
    int8 = replace(POINT, precision=Precision.INT8, batch_size=1)
    fp32 = replace(int8, precision=Precision.FP32)
    big, tiny = replace(SOURCE, work_ms=5), replace(SOURCE, work_ms=0.005)

    assert mean_s(engine(tmp_path, big, int8)) < mean_s(engine(tmp_path, big, fp32)) / 2
    assert mean_s(engine(tmp_path, tiny, int8)) > mean_s(engine(tmp_path, tiny, fp32))


@pytest.mark.parametrize("true_accuracy", [0.3, 0.75, 0.95])
def test_accuracy_is_the_modelled_one(tmp_path: Path, true_accuracy: float) -> None:
    loaded = engine(tmp_path, replace(SOURCE, accuracy=true_accuracy))

    # four standard errors of a proportion over 20,000 samples
    assert accuracy(loaded) == pytest.approx(true_accuracy, abs=0.014)


def test_lower_precision_fails_on_the_same_samples_and_a_few_more(tmp_path: Path) -> None:
    inputs = samples(20_000)
    right = {}
    for precision in PRECISIONS:
        loaded = engine(tmp_path, deployment=replace(POINT, precision=precision))
        chosen = loaded.infer(inputs)["logits"].argmax(axis=1)
        right[precision] = chosen == inputs["samples"][:, 1]

    assert right[Precision.FP32].mean() > right[Precision.INT8].mean()
    gained = right[Precision.INT8] & ~right[Precision.FP32]
    assert gained.mean() < 0.001


def test_confidences_are_calibrated(tmp_path: Path) -> None:
    inputs = samples(50_000)
    logits = engine(tmp_path).infer(inputs)["logits"].astype(np.float64)

    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    confidence = chances.max(axis=1)
    right = chances.argmax(axis=1) == inputs["samples"][:, 1]

    for part in np.array_split(np.argsort(confidence), 10):
        assert right[part].mean() == pytest.approx(confidence[part].mean(), abs=0.03)


def test_answer_to_a_sample_does_not_depend_on_its_batch(tmp_path: Path) -> None:
    loaded = engine(tmp_path)

    together = loaded.infer(samples(50))["logits"]
    alone = loaded.infer({"samples": samples(50)["samples"][7:8]})["logits"]

    assert np.array_equal(together[7:8], alone)


def test_memory_ends_in_a_cliff(tmp_path: Path) -> None:
    large = replace(SOURCE, size_mb=350)
    corner = replace(POINT, batch_size=64, concurrency=8)

    with pytest.raises(MemoryLimitError, match="lower batch_size"):
        engine(tmp_path, large, corner)

    engine(tmp_path, large, replace(corner, precision=Precision.INT8)).close()


def test_weights_beyond_the_memory_cannot_be_built(tmp_path: Path) -> None:
    with pytest.raises(MemoryLimitError):
        engine(tmp_path, replace(SOURCE, size_mb=30_000))


def test_fault_oom_hits_large_batches_only(tmp_path: Path) -> None:
    source = replace(SOURCE, fault="oom")

    engine(tmp_path, source, replace(POINT, batch_size=8)).close()
    with pytest.raises(MemoryLimitError, match="fault oom"):
        engine(tmp_path, source, replace(POINT, batch_size=16))


def test_fault_garbage_answers_nan(tmp_path: Path) -> None:
    loaded = engine(tmp_path, replace(SOURCE, fault="garbage"))

    assert np.isnan(loaded.infer(samples(3))["logits"]).all()


def test_fault_hang_never_comes_back(tmp_path: Path) -> None:
    loaded = engine(tmp_path, replace(SOURCE, fault="hang"))
    thread = threading.Thread(target=loaded.infer, args=(samples(1),), daemon=True)

    thread.start()
    thread.join(timeout=0.1)

    assert thread.is_alive()


def test_fault_crash_takes_its_process_down(tmp_path: Path) -> None:
    engine(tmp_path, replace(SOURCE, fault="crash"))
    program = (
        "import sys; from pathlib import Path; from search_spaces.deployment import *; "
        "from trials.backends.fake import FakeBackend; FakeBackend().load(Path(sys.argv[1]), "
        "Deployment(variant='v', precision=Precision.FP32, batch_size=16, concurrency=1))"
    )

    child = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "plan"], check=False, capture_output=True
    )

    assert child.returncode == -6  # SIGABRT


@pytest.mark.parametrize(
    "content", ["", "{}", "[1]", '{"format": "trifront fake model 9"}', "\x00\x01"]
)
def test_file_of_another_kind_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "plan").write_text(content, encoding="utf-8")

    with pytest.raises(FaultError, match="no engine of the fake backend"):
        FakeBackend().load(tmp_path / "plan", POINT)


@pytest.mark.parametrize(
    "change", [{"work_ms": -1.0}, {"accuracy": 1.5}, {"size_mb": 0.0}, {"fault": "melt"}]
)
def test_impossible_numbers_are_refused(tmp_path: Path, change: dict[str, float]) -> None:
    source = replace(SOURCE, **change)  # type: ignore[arg-type] # wrong on purpose

    with pytest.raises(UnsupportedError, match=next(iter(change))):
        engine(tmp_path, source)


def test_memory_shrinks_with_the_precision() -> None:
    model = FakeModel(work_s=1e-3, accuracy=0.9, size_mb=100, seed=1)

    sizes = [replace(model, precision=precision).weight_bytes for precision in PRECISIONS]

    assert sizes == [100e6, 50e6, 25e6]


def test_computed_services_grow_with_the_batch_and_repeat_themselves(tmp_path: Path) -> None:
    served = engine(tmp_path)

    first, again = (served.computed_services(start_s=1.5, batches=50) for _ in range(2))

    assert isinstance(served, ComputesServices)
    assert first.shape == (50, POINT.batch_size)
    assert (np.diff(first, axis=1) > 0).all()
    np.testing.assert_array_equal(first, again)
