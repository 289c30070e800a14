"""Lanes on a GPU: streams, transfers, CUDA graphs. Held against a fake, and run on a real one."""

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_scripted import ScriptedGpu
from torch_fakes import FakeCuda, FakeGraph, fake_card, residual_program

from search_spaces.deployment import Deployment, Precision
from search_spaces.space import MeasuringPlan
from trials.abilities import StatesTransfers
from trials.backend import Engine, Tensors, TensorSpec
from trials.backends.torch_backend import TorchBackend
from trials.backends.torch_card import find_card
from trials.backends.torch_cuda import CudaLanes, TorchCuda, captured
from trials.backends.torch_errors import trial_error
from trials.backends.torch_memory import no_card
from trials.backends.trt_engine import serving_of
from trials.errors import FaultError, MemoryLimitError, UnsupportedError
from trials.machine.nvml import why_no_energy
from trials.measuring.load import drive

torch = pytest.importorskip("torch", reason="needs the extra trifront[torch]")

BATCHES = tuple(
    {"inputs": batch}
    for batch in np.random.default_rng(0).standard_normal((3, 4, 3, 8, 8)).astype(np.float32)
)
GRAPHED, PLAIN = (("cuda_graph", True),), (("cuda_graph", False),)

POINT = Deployment(variant="v", precision=Precision.FP32, batch_size=4, concurrency=2)
PLAN = MeasuringPlan(max_s=0.3, block_s=0.01, block_requests=2, warmup_s=0.0)


def loaded(
    folder: Path, cuda: FakeCuda, *, precision: Precision = Precision.FP32, options: Any = ()
) -> Engine:
    """Load an eager plan, which is the program itself, on a fake GPU."""
    deployment = Deployment(
        variant="v", precision=precision, batch_size=4, concurrency=2, options=options
    )
    return TorchBackend(lambda: fake_card(cuda)).load(residual_program(folder), deployment)


@pytest.mark.parametrize("options", [PLAIN, GRAPHED])
def test_each_request_ends_when_its_stream_is_idle(tmp_path: Path, options: Any) -> None:
    cuda = FakeCuda()

    with loaded(tmp_path, cuda, options=options).lane(BATCHES) as requests:
        before = cuda.streams[0].waits
        for request in requests:
            request()

        assert cuda.streams[0].waits - before == 3


def test_each_lane_has_a_stream_of_its_own_current_in_its_thread(tmp_path: Path) -> None:
    cuda = FakeCuda()
    engine = loaded(tmp_path, cuda)

    def work(_: int) -> int:
        with engine.lane(BATCHES) as requests:
            requests[0]()
            return len(cuda.entered)

    with ThreadPoolExecutor(2) as pool:
        assert min(pool.map(work, range(2))) >= 1

    assert len(cuda.streams) == 2
    assert cuda.entered == {}


def test_graphs_are_captured_once_per_batch_and_only_replayed_by_requests(tmp_path: Path) -> None:
    cuda = FakeCuda()

    with loaded(tmp_path, cuda, options=GRAPHED).lane(BATCHES) as requests:
        tried = [graph.replays for graph in cuda.graphs]
        for request in (*requests, *requests):
            request()

        assert tried == [1, 1, 1]
        assert [graph.replays for graph in cuda.graphs] == [3, 3, 3]


def test_graph_that_does_nothing_is_a_fault(tmp_path: Path) -> None:
    cuda = FakeCuda(captures_nothing=True)

    with (
        pytest.raises(FaultError, match="does not give the answers of the work"),
        loaded(tmp_path, cuda, options=GRAPHED).lane(BATCHES),
    ):
        pass

    assert cuda.entered == {}


def double(images: Any) -> Sequence[Any]:
    return [2 * images]


def lanes_of(
    cuda: FakeCuda,
    forward: Callable[..., Sequence[Any]] = double,
    *,
    graphed: bool = True,
    with_transfers: bool = False,
) -> CudaLanes:
    return CudaLanes(
        cuda=cuda,
        forward=forward,
        inputs=(TensorSpec(name="inputs", dtype="float32", shape=(None, 3, 8, 8)),),
        is_graphed=graphed,
        with_transfers=with_transfers,
    )


@pytest.mark.parametrize("kind", ["bool", "int64", "float16"])
def test_empty_graph_is_seen_whatever_the_type_of_its_answers(kind: str) -> None:
    def forward(images: Any) -> Sequence[Any]:
        return [(images > 0).to(getattr(torch, kind))]

    with lanes_of(FakeCuda(), forward).lane(BATCHES) as requests:
        assert len(requests) == 3
    with (
        pytest.raises(FaultError),
        lanes_of(FakeCuda(captures_nothing=True), forward).lane(BATCHES),
    ):
        pass


def test_graph_may_round_otherwise_than_its_work_but_not_answer_otherwise() -> None:
    """By 1 % of the largest answer: other kernels may be chosen, and none is that far off."""
    with lanes_of(FakeCuda(off=0.009)).lane(BATCHES) as requests:
        assert len(requests) == 3

    with pytest.raises(FaultError), lanes_of(FakeCuda(off=0.011)).lane(BATCHES):
        pass


def test_work_has_run_often_enough_before_it_is_captured() -> None:
    """Three times, as PyTorch has it, and once for what graphs are held against."""
    runs: list[Any] = []

    class CountingCuda(FakeCuda):
        def graph(self, work: Callable[[], Sequence[Any]], pool: object) -> FakeGraph:
            ran.append(len(runs))
            return super().graph(work, pool)

    def forward(images: Any) -> Sequence[Any]:
        runs.append(images)
        return double(images)

    ran: list[int] = []
    with lanes_of(CountingCuda(), forward).lane(BATCHES):
        pass

    assert ran[0] == 3 + 1


@pytest.mark.parametrize("graphed", [False, True])
def test_each_request_copies_its_batch_in_and_its_answers_out(*, graphed: bool) -> None:
    cuda = FakeCuda()

    with lanes_of(cuda, graphed=graphed, with_transfers=True).lane(BATCHES) as requests:
        answers = cuda.at_home[1::2]  # of each batch there are its inputs, then its answers
        for tensor in (*cuda.on_it, *answers):
            tensor.zero_()
        for request in requests:
            request()

    for batch, answer in zip(BATCHES, answers, strict=True):
        assert np.array_equal(answer.numpy(), 2 * batch["inputs"])


@pytest.mark.parametrize("graphed", [False, True])
def test_each_request_without_transfers_computes_on_its_batch_on_the_device(
    *, graphed: bool
) -> None:
    cuda, seen = FakeCuda(), []

    def forward(images: Any) -> Sequence[Any]:
        seen.append(images)
        return double(images)

    with lanes_of(cuda, forward, graphed=graphed).lane(BATCHES) as requests:
        seen.clear()
        for request in requests:
            request()

    assert len(seen) == 3
    for images, there, batch in zip(seen, cuda.on_it, BATCHES, strict=True):
        assert images is there
        assert np.array_equal(images.numpy(), batch["inputs"])


def test_graphs_are_released_when_the_lane_is_left_however(tmp_path: Path) -> None:
    cuda = FakeCuda()

    with (
        pytest.raises(KeyError),
        loaded(tmp_path, cuda, options=GRAPHED).lane(BATCHES),
    ):
        raise KeyError("a worker broke")

    assert all(graph.is_reset for graph in cuda.graphs)


def test_graphs_are_released_where_a_later_one_cannot_be_captured(tmp_path: Path) -> None:
    cuda = FakeCuda(breaks="CUDA out of memory")

    with (
        pytest.raises(MemoryLimitError),
        loaded(tmp_path, cuda, options=GRAPHED).lane(BATCHES),
    ):
        pytest.fail("there is nothing to enter")

    assert [graph.is_reset for graph in cuda.graphs] == [True]


def test_work_that_a_graph_cannot_hold_is_infeasible_and_says_what_to_do(tmp_path: Path) -> None:
    """CUDA's own words (cudaErrorStreamCaptureUnsupported), and it is a fact about the model."""
    cuda = FakeCuda(breaks="CUDA error: operation not permitted when stream is capturing")

    with (
        pytest.raises(UnsupportedError, match="use cuda_graph: false"),
        loaded(tmp_path, cuda, options=GRAPHED).lane(BATCHES),
    ):
        pytest.fail("there is nothing to enter")


class BreakingGraph:
    """A capture that the work spoils, so that ending it raises as well."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def capture_begin(self, **_: object) -> None:
        self.steps.append("begin")

    def capture_end(self) -> None:
        self.steps.append("end")
        raise RuntimeError("operation failed due to a previous error during capture")


def test_capture_that_breaks_raises_its_first_error_and_is_ended() -> None:
    graph = BreakingGraph()

    def work() -> Sequence[Any]:
        raise RuntimeError("CUDA out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        captured(graph, work, object())

    assert graph.steps == ["begin", "end"]


def test_capture_that_only_its_end_refuses_is_not_taken_for_one() -> None:
    with pytest.raises(RuntimeError, match="previous error"):
        captured(BreakingGraph(), list, object())


def test_transfers_take_pinned_memory_and_are_left_out_on_demand(tmp_path: Path) -> None:
    pinned = []
    for transfers in ("include", "exclude"):
        cuda = FakeCuda()
        with loaded(tmp_path, cuda, options=(("transfers", transfers),)).lane(BATCHES) as requests:
            requests[0]()
        pinned.append(sum(one.nbytes for one in cuda.at_home))

    in_and_out = sum(batch["inputs"].nbytes for batch in BATCHES) + 3 * 4 * 5 * 4
    assert pinned == [in_and_out, 0]


@pytest.mark.parametrize("transfers", ["include", "exclude"])
@pytest.mark.parametrize("graphed", [False, True])
def test_engine_states_what_a_request_consists_of(
    tmp_path: Path, transfers: str, *, graphed: bool
) -> None:
    options = (("cuda_graph", graphed), ("transfers", transfers))

    engine = loaded(tmp_path, FakeCuda(), options=options)

    assert isinstance(engine, StatesTransfers)
    assert (engine.transfers, engine.uses_graphs) == (transfers, graphed)


def test_option_that_is_left_out_means_the_same_as_for_tensorrt(tmp_path: Path) -> None:
    engine = loaded(tmp_path, FakeCuda())

    assert isinstance(engine, StatesTransfers)
    assert engine.uses_graphs == serving_of(POINT).cuda_graph
    assert engine.transfers == serving_of(POINT).transfers


def test_gpu_is_watched_while_it_is_measured(tmp_path: Path) -> None:
    gpu = ScriptedGpu()
    card = replace(fake_card(), meters=lambda: nullcontext(gpu))
    engine = TorchBackend(lambda: card).load(residual_program(tmp_path), POINT)

    driven = drive(engine, BATCHES, concurrency=2, batch_size=4, plan=PLAN)

    assert driven.gpu is not None
    assert driven.gpu.name == "scripted"
    assert all(block.gpu is not None for block in driven.blocks)


def test_energy_is_told_where_the_gpu_tells_it() -> None:
    assert "CPU" in TorchBackend(lambda: None).why_no_energy(POINT)
    assert TorchBackend(fake_card).why_no_energy(POINT) == why_no_energy()


def test_program_that_cannot_be_captured_says_to_leave_graphs_out() -> None:
    """What CUDA says of an operator that waits for the GPU."""
    error = RuntimeError("CUDA error: operation not permitted when stream is capturing")

    found = trial_error(error, "binding buffers")

    assert isinstance(found, UnsupportedError)
    assert "use cuda_graph: false" in str(found)


def test_products_are_rounded_to_tf32_only_where_that_is_the_precision(tmp_path: Path) -> None:
    """The switch is the process's: an engine sets it before each of its own requests."""
    cuda = FakeCuda()
    exact = loaded(tmp_path, cuda)
    rounded = loaded(tmp_path, cuda, precision=Precision.TF32)

    seen = []
    for engine in (exact, rounded, exact):
        engine.infer(BATCHES[0])
        seen.append(cuda.tf32)

    assert seen == [False, True, False]


def test_both_switches_of_torch_are_set_whenever_another_precision_is_asked_for() -> None:
    switches = torch.backends.cuda.matmul, torch.backends.cudnn

    def state() -> list[bool]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer switches exist
            return [switch.allow_tf32 for switch in switches]

    before, cuda, seen = state(), TorchCuda(), []
    try:
        for allowed in (False, True, True, False):
            cuda.use_tf32(allowed=allowed)
            seen.append(state())
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for switch, stood in zip(switches, before, strict=True):
                switch.allow_tf32 = stood

    assert seen == [[False, False], [True, True], [True, True], [False, False]]


@pytest.mark.parametrize("capability", [75, 90])
def test_bf16_and_tf32_need_compute_capability_8(capability: int) -> None:
    backend = TorchBackend(lambda: fake_card(capability=capability))

    honoured = set(backend.capabilities().precisions)

    is_new = capability >= 80
    assert (Precision.BF16 in honoured) is is_new
    assert (Precision.TF32 in honoured) is is_new


def test_gpu_offers_graphs_and_no_threads() -> None:
    options = {option.name for option in TorchBackend(fake_card).capabilities().options}

    assert options == {"mode", "cuda_graph", "transfers"}


def test_requests_on_the_cpu_are_copied_to_no_device(tmp_path: Path) -> None:
    engine = TorchBackend(no_card).load(residual_program(tmp_path), POINT)

    assert engine.transfers is None


def test_gpu_is_part_of_an_engines_identity() -> None:
    facts = dict(TorchBackend(fake_card).environment())

    assert facts["gpu"] == "Fake GPU"
    assert facts["compute_capability"] == "SM90"


def test_input_of_another_shape_is_unsupported_before_it_is_bound(tmp_path: Path) -> None:
    batch = {"inputs": np.zeros((4, 3, 9, 8), np.float32)}

    with (
        pytest.raises(UnsupportedError, match=r"float32 \(4, 3, 9, 8\), and the engine takes"),
        loaded(tmp_path, FakeCuda()).lane([batch]),
    ):
        pass


@pytest.fixture
def on_gpu(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    if find_card() is None:
        pytest.skip("torch sees no NVIDIA GPU here")
    precision, options = request.param
    deployment = Deployment(
        variant="v", precision=precision, batch_size=4, concurrency=2, options=options
    )
    return TorchBackend().load(residual_program(tmp_path), deployment)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "on_gpu",
    [
        (Precision.FP32, ()),
        (Precision.FP32, GRAPHED),
        (Precision.TF32, GRAPHED),
        (Precision.FP32, (*GRAPHED, ("transfers", "exclude"))),
    ],
    indirect=True,
)
def test_lanes_of_a_real_gpu_run_in_two_threads(on_gpu: Engine) -> None:
    """That graphs do the work is seen to when a lane is entered."""

    def work(_: int) -> int:
        with on_gpu.lane(BATCHES) as requests:
            for _ in range(50):
                for request in requests:
                    request()
        return 50

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, range(2))) == [50, 50]


@pytest.mark.gpu
@pytest.mark.parametrize("on_gpu", [(Precision.FP32, GRAPHED)], indirect=True)
def test_real_gpu_answers_as_the_cpu_does(on_gpu: Engine, tmp_path: Path) -> None:
    from trials.models.torch_program import body_of, read_program

    batch: Tensors = BATCHES[0]

    found = on_gpu.infer(batch)["outputs"]

    body = body_of(read_program(residual_program(tmp_path)))
    with torch.inference_mode():
        [expected] = body(torch.from_numpy(batch["inputs"]))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
