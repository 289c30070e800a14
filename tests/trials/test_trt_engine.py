"""Engines of the ``tensorrt`` backend on a computed device: what a GPU would punish is caught."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from trt_fakes import ERROR, MAGIC, Behaviour, ILogger, fake_library, write_plan
from trt_rtx_fake import CudaGraphStrategy, RtxBehaviour, rtx_library
from virtual_clock import VirtualClock

from search_spaces.deployment import Deployment, OpenLoad, Precision
from search_spaces.space import MeasuringPlan
from trials.abilities import QueuesRequests
from trials.backend import Tensors
from trials.backends.trt_engine import TrtEngine, load_engine, needed_bytes
from trials.devices.fake import FakeDevice
from trials.devices.fake_things import Costs, FakeEvent
from trials.errors import FaultError, MemoryLimitError, UnsupportedError
from trials.measuring.driving import drive_deployment, open_ladder

BATCH = 4
POINT = Deployment(variant="v", precision=Precision.FP32, batch_size=BATCH, concurrency=1)


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


@pytest.fixture
def plan(residual_model: Path, tmp_path: Path) -> Path:
    write_plan(residual_model, tmp_path / "plan", batch_size=BATCH)
    return tmp_path / "plan"


@pytest.fixture
def batches(images: Callable[[int], NDArray[np.float32]]) -> tuple[Tensors, ...]:
    return tuple({"images": batch} for batch in images(3 * BATCH).reshape(3, BATCH, 3, 8, 8))


def loaded(
    device: FakeDevice, plan: Path, behaviour: Behaviour | None = None, **options: bool | str
) -> TrtEngine:
    point = replace(POINT, options=tuple(sorted(options.items())))
    return load_engine(fake_library(device, behaviour), device, plan, point)


def lazily(
    device: FakeDevice, plan: Path, specialization: str = "lazy", *, cuda_graph: bool
) -> TrtEngine:
    """Load an engine of many batch sizes whose kernels come later."""
    return loaded(
        device,
        plan,
        kernel_specialization=specialization,
        batch_profile="dynamic",
        cuda_graph=cuda_graph,
    )


def test_kernels_for_the_batch_that_comes_mean_nothing_to_an_engine_of_one_batch(
    device: FakeDevice, plan: Path
) -> None:
    """Else one deployment would be tried under three names."""
    with pytest.raises(UnsupportedError, match=r"add the rule batch_profile == 'dynamic' or"):
        loaded(device, plan, kernel_specialization="lazy")

    loaded(device, plan, kernel_specialization="eager", batch_profile="fixed").close()
    lazily(device, plan, cuda_graph=False).close()


@pytest.mark.parametrize("cuda_graph", [False, True])
@pytest.mark.parametrize("transfers", ["include", "exclude"])
def test_everything_is_given_back_when_an_engine_is_closed(
    device: FakeDevice,
    plan: Path,
    batches: tuple[Tensors, ...],
    *,
    cuda_graph: bool,
    transfers: str,
) -> None:
    engine = loaded(device, plan, cuda_graph=cuda_graph, transfers=transfers)
    assert isinstance(engine, QueuesRequests)
    with engine.queue(batches) as queue:
        for at in (0, 1, 2):
            queue.send(at)
            queue.wait()
            queue.finish()
    with engine.lane(batches) as requests:
        requests[1]()
    engine.infer(batches[0])

    engine.close()

    device.close()  # which would tell what is left


class ListeningDevice(FakeDevice):
    """Remembers which kind of event it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[bool] = set()

    def event(self, *, sleeps: bool = False) -> FakeEvent:
        self.asked.add(sleeps)
        return super().event(sleeps=sleeps)


@pytest.mark.parametrize("extra", [0, 1])
def test_threads_sleep_while_they_wait_only_where_there_are_more_than_cpus(
    plan: Path, batches: tuple[Tensors, ...], extra: int
) -> None:
    """Spinning is faster to see an end, and keeps others from a CPU that they need to send."""
    device = ListeningDevice()
    point = replace(POINT, concurrency=len(os.sched_getaffinity(0)) + extra)
    engine = load_engine(fake_library(device, None), device, plan, point)

    with engine.queue(batches):
        assert device.asked == {extra > 0}


def test_lane_that_is_left_with_requests_in_flight_waits_for_them(
    device: FakeDevice, plan: Path, batches: tuple[Tensors, ...]
) -> None:
    engine = loaded(device, plan, Behaviour(kernel_s=2e-3))

    with engine.queue(batches) as queue:
        queue.send(0)
        queue.send(1)

    engine.close()
    device.close()


def test_graph_answers_as_a_run_without_one(
    device: FakeDevice, plan: Path, batches: tuple[Tensors, ...]
) -> None:
    with_graph, without = loaded(device, plan), loaded(device, plan, cuda_graph=False)

    for batch in batches:
        found, expected = with_graph.infer(batch), without.infer(batch)
        np.testing.assert_array_equal(found["logits"], expected["logits"])


def test_graph_is_launched_instead_of_enqueuing(
    device: FakeDevice, plan: Path, batches: tuple[Tensors, ...]
) -> None:
    behaviour = Behaviour()
    engine = loaded(device, plan, behaviour)

    with engine.lane(batches) as requests:
        before = behaviour.enqueues
        for request in [*requests, *requests]:
            request()

    assert before == 2  # one to warm up, one that is captured
    assert behaviour.enqueues == before


@pytest.mark.parametrize("specialization", ["lazy", "none"])
def test_graph_of_kernels_that_come_later_is_refused(
    device: FakeDevice, plan: Path, specialization: str
) -> None:
    """TensorRT for RTX captures none before, so a record of one would say what was not so."""
    lazily(device, plan, specialization, cuda_graph=False).close()
    loaded(device, plan, kernel_specialization="eager").close()

    with pytest.raises(UnsupportedError, match=r"set cuda_graph: \[false\]"):
        lazily(device, plan, specialization, cuda_graph=True)

    device.close()


@pytest.mark.parametrize(
    ("cuda_graph", "asked"),
    [(True, CudaGraphStrategy.WHOLE_GRAPH_CAPTURE), (False, CudaGraphStrategy.DISABLED)],
)
def test_tensorrt_for_rtx_is_told_to_make_graphs_itself_where_there_shall_be_some(
    device: FakeDevice,
    plan: Path,
    batches: tuple[Tensors, ...],
    *,
    cuda_graph: bool,
    asked: CudaGraphStrategy,
) -> None:
    behaviour = RtxBehaviour(breaks_capture=True)  # nobody else captures any
    point = replace(POINT, options=(("cuda_graph", cuda_graph),))

    engine = load_engine(rtx_library(device, behaviour), device, plan, point)
    with engine.lane(batches) as requests:
        before = behaviour.enqueues
        for request in requests:
            request()
    engine.close()

    assert [one.cuda_graph_strategy for one in behaviour.configs] == [asked]
    assert behaviour.enqueues - before == len(batches)
    device.close()


@pytest.mark.parametrize("specialization", ["eager", "lazy", "none"])
def test_tensorrt_for_rtx_is_told_when_to_make_kernels(
    device: FakeDevice, plan: Path, batches: tuple[Tensors, ...], specialization: str
) -> None:
    behaviour = RtxBehaviour()
    options = (
        ("batch_profile", "dynamic"),
        ("cuda_graph", False),
        ("kernel_specialization", specialization),
    )

    library = rtx_library(device, behaviour)
    engine = load_engine(library, device, plan, replace(POINT, options=options))
    engine.infer(batches[0])
    engine.close()

    (config,) = behaviour.configs
    strategy = config.dynamic_shapes_kernel_specialization_strategy
    assert strategy.name == specialization.upper()
    device.close()


def test_arrays_of_a_batch_that_breaks_outlive_their_copies(
    plan: Path, batches: tuple[Tensors, ...]
) -> None:
    """Else the device would read and write memory that is somebody else's by then."""
    slow = FakeDevice(costs=Costs(copy_ns=20_000_000))
    engine = loaded(slow, plan, Behaviour(fails_silently=True), cuda_graph=False)

    with pytest.raises(FaultError, match="running a request"):
        engine.infer(batches[0])

    engine.close()
    slow.close()


def test_graph_that_computes_nothing_is_a_fault(
    device: FakeDevice, plan: Path, batches: tuple[Tensors, ...]
) -> None:
    """As one that was captured on another GPU: its launch succeeds, and no output changes."""
    engine = loaded(device, plan, Behaviour(breaks_capture=True))

    with pytest.raises(FaultError, match=r"computes nothing: .* 20 of 20 elements of 'logits'"):
        engine.infer(batches[0])
    with pytest.raises(FaultError, match="computes nothing"), engine.lane(batches):
        pass

    engine.close()
    device.close()


@pytest.fixture
def minus_one(tmp_path: Path) -> Path:
    """Write a plan whose answer is -1: every byte of it is 0xFF."""
    node = helper.make_node("Sub", ["x", "x"], ["zero"])
    less = helper.make_node("Sub", ["zero", "one"], ["y"])
    one = onnx.numpy_helper.from_array(np.array(1, np.int32), "one")
    x = helper.make_tensor_value_info("x", TensorProto.INT32, ["n", 3])
    y = helper.make_tensor_value_info("y", TensorProto.INT32, ["n", 3])
    graph = helper.make_graph([node, less], "g", [x], [y], [one])
    opset = helper.make_opsetid("", 18)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
    onnx.save(model, tmp_path / "minus_one.onnx")
    write_plan(tmp_path / "minus_one.onnx", tmp_path / "minus_one", batch_size=2)
    return tmp_path / "minus_one"


def test_output_that_is_poison_itself_is_no_sign_of_an_empty_graph(
    device: FakeDevice, minus_one: Path
) -> None:
    engine = loaded(device, minus_one)

    answer = engine.infer({"x": np.ones((2, 3), np.int32)})
    assert (answer["y"] == -1).all()


def test_empty_graph_is_seen_where_the_output_is_poison_itself(
    device: FakeDevice, minus_one: Path
) -> None:
    """By bytes that are another's than those of the answer."""
    engine = loaded(device, minus_one, Behaviour(breaks_capture=True))

    with pytest.raises(FaultError, match=r"computes nothing: .* 6 of 6 elements of 'y'"):
        engine.infer({"x": np.ones((2, 3), np.int32)})


def test_output_of_no_elements_is_no_sign_of_an_empty_graph(
    device: FakeDevice, tmp_path: Path
) -> None:
    bounds = [onnx.numpy_helper.from_array(np.array([1], np.int64), name) for name in ("at", "ax")]
    nodes = [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Slice", ["x", "at", "at", "ax"], ["none"]),
    ]
    x, y, none = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])
        for name, width in (("x", 3), ("y", 3), ("none", 0))
    )
    graph = helper.make_graph(nodes, "g", [x], [y, none], bounds)
    opset = helper.make_opsetid("", 18)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
    onnx.save(model, tmp_path / "none.onnx")
    write_plan(tmp_path / "none.onnx", tmp_path / "plan", batch_size=2)

    engine = loaded(device, tmp_path / "plan")

    answer = engine.infer({"x": np.ones((2, 3), np.float32)})
    assert answer["none"].shape == (2, 0)
    assert (answer["y"] == 1).all()


def test_requests_take_the_inputs_of_their_batch_in_any_order(
    device: FakeDevice, plan: Path, batches: tuple[Tensors, ...]
) -> None:
    engine = loaded(device, plan)
    expected = [engine.infer(batch)["logits"] for batch in batches]

    with engine.queue(batches) as queue:
        found: list[NDArray[np.float32]] = []
        for at in (2, 0, 1, 2):
            queue.send(at)
            queue.wait()
            (pinned,) = [arrays for slot in queue._outputs for arrays in slot.values()][
                len(found) % 2
            ].values()
            found.append(pinned.array.copy())
            queue.finish()

    for at, array in zip((2, 0, 1, 2), found, strict=True):
        np.testing.assert_array_equal(array, expected[at])


def test_gpu_time_is_that_of_the_run_without_its_copies(
    plan: Path, batches: tuple[Tensors, ...]
) -> None:
    device = FakeDevice(clock=VirtualClock(), costs=Costs(copy_ns=5_000_000))
    engine = loaded(device, plan, Behaviour(kernel_s=3e-3))

    with engine.queue(batches) as queue:
        queue.send(0)
        queue.wait()

        assert queue.is_done()
        assert queue.finish() == pytest.approx(3e-3)


def test_transfers_that_are_excluded_copy_nothing(
    device: FakeDevice, plan: Path, batches: tuple[Tensors, ...]
) -> None:
    engine = loaded(device, plan, transfers="exclude")
    with engine.queue(batches) as queue:
        outputs = [
            array for slot in queue._outputs for each in slot.values() for array in each.values()
        ]
        for output in outputs:
            output.array[...] = 77
        queue.send(1)
        queue.wait()
        queue.finish()

        assert all((output.array == 77).all() for output in outputs)


def test_batches_of_several_sizes_share_a_lane_where_the_plan_takes_them(
    device: FakeDevice,
    residual_model: Path,
    tmp_path: Path,
    images: Callable[[int], NDArray[np.float32]],
) -> None:
    write_plan(residual_model, tmp_path / "any", batch_size=None)
    engine = loaded(device, tmp_path / "any")

    with engine.lane([{"images": images(size)} for size in (1, 3, 8)]) as requests:
        for request in requests:
            request()

    assert engine.inputs[0].shape == (None, 3, 8, 8)
    assert engine.outputs[0].shape == (None, 5)
    assert [len(engine.infer({"images": images(size)})["logits"]) for size in (2, 5)] == [2, 5]


@pytest.mark.parametrize(
    "wrong",
    [
        {"images": np.zeros((BATCH + 1, 3, 8, 8), np.float32)},
        {"images": np.zeros((BATCH, 3, 8), np.float32)},
        {"images": np.zeros((BATCH, 3, 8, 8), np.float64)},
        {"pictures": np.zeros((BATCH, 3, 8, 8), np.float32)},
    ],
    ids=["batch", "rank", "type", "name"],
)
def test_batch_that_the_plan_does_not_take_is_named(
    device: FakeDevice, plan: Path, wrong: Tensors
) -> None:
    engine = loaded(device, plan)

    with pytest.raises(UnsupportedError, match="'images'"):
        engine.infer(wrong)
    with pytest.raises(UnsupportedError, match="'images'"), engine.lane([wrong]):
        pass

    engine.close()
    device.close()


def test_contexts_that_do_not_fit_are_infeasible_and_leave_nothing(
    plan: Path, batches: tuple[Tensors, ...]
) -> None:
    device = FakeDevice(memory_bytes=1 << 20)
    engine = loaded(device, plan, Behaviour(context_bytes=1 << 21))

    with pytest.raises(MemoryLimitError, match="lower batch_size or concurrency"):
        engine.infer(batches[0])

    engine.close()
    device.close()


def test_plan_of_another_version_says_to_build_it_again(
    device: FakeDevice, tmp_path: Path
) -> None:
    (tmp_path / "old").write_bytes(b"ftrt" + bytes(100))

    with pytest.raises(FaultError, match=r"^old is no plan that tensorrt 0\.0 takes; build it ag"):
        loaded(device, tmp_path / "old")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            "Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed.Version tag",
            "was built by another version than tensorrt 0.0",
        ),
        (
            "The engine plan file is generated on an incompatible device, expecting compute 8.9",
            "was built for another GPU",
        ),
    ],
)
def test_reason_why_a_plan_is_not_taken_is_told(
    device: FakeDevice, tmp_path: Path, said: str, why: str
) -> None:
    library = fake_library(device)
    listener: list[ILogger] = []

    class Refusing:
        def __init__(self, logger: ILogger) -> None:
            listener.append(logger)

        def deserialize_cuda_engine(self, content: bytes) -> None:
            del content
            listener[0].log(ERROR, said)

    library.module.Runtime = Refusing
    (tmp_path / "foreign").write_bytes(MAGIC)

    with pytest.raises(FaultError, match=why) as caught:
        load_engine(library, device, tmp_path / "foreign", POINT)

    assert len(str(caught.value).splitlines()) == 1
    assert "build it again on this machine" in str(caught.value)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("CUDA initialization failure with error: 999", FaultError),
        ("Cuda Runtime (out of memory)", MemoryLimitError),
    ],
)
def test_runtime_that_cannot_be_made_tells_what_it_said_and_is_not_the_plans_fault(
    device: FakeDevice, plan: Path, said: str, kind: type[Exception]
) -> None:
    """pybind11 makes a TypeError of it, as of a wrong argument: NVIDIA/TensorRT #308, #2913."""
    library = fake_library(device)

    def lost(logger: ILogger) -> None:
        logger.log(ERROR, said)
        raise TypeError("pybind11::init(): factory function returned nullptr")

    library.module.Runtime = lost

    with pytest.raises(kind, match="loading plan: ") as caught:
        load_engine(library, device, plan, POINT)

    assert said in str(caught.value)


def test_context_is_not_blamed_for_what_the_library_said_before(
    device: FakeDevice, plan: Path, batches: tuple[Tensors, ...]
) -> None:
    behaviour = Behaviour(grumbles=True)
    engine = loaded(device, plan, behaviour, cuda_graph=False)
    engine.infer(batches[0])

    behaviour.fails_silently = True

    with pytest.raises(FaultError, match=r"TensorRT failed \(it does not say why\)"):
        engine.infer(batches[0])


def test_tensor_of_a_type_that_numpy_lacks_is_refused(device: FakeDevice, tmp_path: Path) -> None:
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.BFLOAT16)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])
    y = helper.make_tensor_value_info("y", TensorProto.BFLOAT16, ["n", 3])
    graph = helper.make_graph([node], "g", [x], [y])
    opset = helper.make_opsetid("", 18)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), tmp_path / "m.onnx")
    write_plan(tmp_path / "m.onnx", tmp_path / "plan", batch_size=2)

    with pytest.raises(UnsupportedError, match="'y' is of type BF16, which NumPy does not have"):
        loaded(device, tmp_path / "plan")


def test_plan_that_reads_shapes_on_the_host_is_refused(device: FakeDevice, plan: Path) -> None:
    with pytest.raises(UnsupportedError, match="'images' holds shapes"):
        loaded(device, plan, Behaviour(host_tensors=("images",)))


def test_memory_is_the_weights_once_and_the_rest_for_each_context(
    device: FakeDevice, plan: Path
) -> None:
    library = fake_library(device, Behaviour(context_bytes=1000))

    one, three = (
        needed_bytes(library, device, plan, replace(POINT, concurrency=contexts))
        for contexts in (1, 3)
    )

    tensors = BATCH * (3 * 8 * 8 + 5) * 4
    assert three - one == 2 * (1000 + tensors)
    assert one > 1000 + tensors


def test_contexts_of_all_bound_sizes_are_the_memory_of_an_open_load(
    device: FakeDevice,
    residual_model: Path,
    tmp_path: Path,
    images: Callable[[int], NDArray[np.float32]],
) -> None:
    write_plan(residual_model, tmp_path / "any", batch_size=None)
    behaviour = Behaviour(context_bytes=10_000)
    batch = {"images": images(6)}
    point = replace(
        POINT, batch_size=6, load=OpenLoad(rate_rps=50, max_queue_delay_us=0), concurrency=2
    )

    engine = load_engine(fake_library(device, behaviour), device, tmp_path / "any", point)
    ladder = open_ladder(engine, [batch], point)
    for _ in range(point.concurrency):  # nothing is timed, so no busy machine is too late
        with engine.lane(ladder.batches()):
            pass
    engine.close()

    library = fake_library(device, behaviour)
    closed = needed_bytes(library, device, tmp_path / "any", replace(point, load=None))
    sizes = (1, 2, 4)  # beside the largest one
    tensors = sum(sizes) * (3 * 8 * 8 + 5) * 4
    assert behaviour.contexts == 2 * (len(sizes) + 1)
    assert needed_bytes(library, device, tmp_path / "any", point) == closed + 2 * (
        len(sizes) * 10_000 + tensors
    )


PLAN = MeasuringPlan(max_s=1.0, block_s=0.05, warmup_s=0.02, block_requests=20)


@pytest.mark.parametrize("transfers", ["include", "exclude"])
def test_deployment_is_measured_with_contexts_and_its_times_are_told_apart(
    device: FakeDevice, plan: Path, batches: tuple[Tensors, ...], transfers: str
) -> None:
    engine = loaded(device, plan, Behaviour(kernel_s=1e-3), transfers=transfers)
    point = replace(POINT, concurrency=2)

    driven = drive_deployment(engine, batches, deployment=point, plan=PLAN)
    engine.close()

    device.close()
    assert driven.timing is not None
    assert driven.timing.depth == 2
    # the two contexts share one device, and wait for it in turns
    assert driven.timing.gpu_p50_s >= 1e-3
    rate = driven.speed.throughput_sps.value / BATCH
    assert rate <= 1.1 / 1e-3
    assert rate * driven.speed.latency_mean_s.value == pytest.approx(2, rel=0.2)
    assert all(block.device is not None for block in driven.blocks)


def test_deployment_answers_an_open_load_too(
    device: FakeDevice, plan: Path, batches: tuple[Tensors, ...]
) -> None:
    engine = loaded(device, plan, Behaviour(kernel_s=2e-3))
    point = replace(POINT, load=OpenLoad(rate_rps=50, max_queue_delay_us=0))

    driven = drive_deployment(engine, batches, deployment=point, plan=PLAN)
    engine.close()

    device.close()
    assert driven.queueing is not None
    assert driven.timing is None
