"""Layers that stay in fp32: in the file of every precision, and as the axis ``keep_layers``."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from real_spaces import bench_in, point, write_model, write_space

from search_spaces.deployment import Deployment, Precision
from search_spaces.rules import rule_from_text
from search_spaces.space import Preprocessing
from trials.backend import Tensors
from trials.bench import Bench
from trials.capabilities import engines_of
from trials.data.dataset import Split
from trials.errors import UnsupportedError
from trials.models.fidelity import signal_to_noise_db
from trials.models.layers import PRODUCTS
from trials.models.onnx_graph import element_types
from trials.models.precision import OpenedLowering
from trials.models.rehearsal import Rehearsal

Images = Callable[[int], NDArray[np.float32]]
LOWERED = (
    *(Precision.FP16, Precision.BF16),
    *(Precision.INT8, Precision.INT8_DYNAMIC, Precision.FP8),
)


def lowering(model: Path, precision: Precision, images: Images) -> OpenedLowering:
    return OpenedLowering(model, precision, calibration=[{"images": images(64)}])


def noise_db(model: ModelProto, original: Path, images: Images) -> float:
    asked = [{"images": images(64)}]
    old = Rehearsal(onnx.load_model(original)).answers(asked)
    return signal_to_noise_db(Rehearsal(model).answers(asked), old)


@pytest.mark.parametrize("precision", LOWERED)
def test_layers_are_the_products_in_the_order_of_execution(
    residual_model: Path, images: Images, precision: Precision
) -> None:
    opened = lowering(residual_model, precision, images)
    layers = opened.layers

    assert [layer.operator for layer in layers] == ["Conv", "Conv", "Gemm"]
    assert all(layer.weight and layer.parameters > 0 for layer in layers)
    assert len({layer.name for layer in layers}) == 3


@pytest.mark.parametrize("precision", LOWERED)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_kept_layer_multiplies_in_fp32(
    residual_model: Path, images: Images, precision: Precision, place: int
) -> None:
    opened = lowering(residual_model, precision, images)
    kept = opened.layers[place]
    model = opened.keeping([kept.name])

    onnx.checker.check_model(model, full_check=True)
    # dynamic quantization makes a MatMul of a Gemm, and names it after it
    names = (kept.name, f"{kept.name}_MatMul")
    [node] = [each for each in model.graph.node if each.name in names]
    types = element_types(model)
    makers = {name: each.op_type for each in model.graph.node for name in each.output}
    assert {types[name] for name in node.input} == {TensorProto.FLOAT}
    assert {makers.get(name) for name in node.input}.isdisjoint({"DequantizeLinear"})


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP8, Precision.INT8_DYNAMIC])
def test_keeping_every_layer_of_a_quantized_model_gives_the_original_answers(
    residual_model: Path, images: Images, precision: Precision
) -> None:
    opened = lowering(residual_model, precision, images)
    whole = opened.keeping([layer.name for layer in opened.layers])

    # the same arithmetic; folded batch normalization rounds otherwise
    assert noise_db(whole, residual_model, images) > 100


@pytest.mark.parametrize("precision", LOWERED)
def test_keeping_layers_makes_no_more_noise(
    residual_model: Path, images: Images, precision: Precision
) -> None:
    opened = lowering(residual_model, precision, images)
    none = opened.keeping([])
    two = opened.keeping([layer.name for layer in opened.layers[:2]])

    assert noise_db(two, residual_model, images) > noise_db(none, residual_model, images)


def test_model_is_the_same_however_often_it_is_asked_for(
    residual_model: Path, images: Images
) -> None:
    opened = lowering(residual_model, Precision.INT8, images)
    first = opened.keeping([]).SerializeToString()
    opened.keeping([opened.layers[0].name])

    assert opened.keeping([]).SerializeToString() == first


def test_pair_stays_for_the_product_that_is_not_kept(
    write_model: Callable[..., Path],
) -> None:
    """Two products read one activation: its pair is taken out for one of them alone."""
    random = np.random.default_rng(0)
    weights = {name: random.standard_normal((8, 8)).astype(np.float32) for name in ("v", "w")}
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["a"]),
        helper.make_node("MatMul", ["x", "w"], ["b"]),
        helper.make_node("Concat", ["a", "b"], ["y"], axis=1),
    ]
    path = write_model(nodes, inputs={"x": ("n", 8)}, outputs={"y": ("n", 16)}, weights=weights)
    calibration = [{"x": random.standard_normal((16, 8)).astype(np.float32)}]

    opened = OpenedLowering(path, Precision.INT8, calibration=calibration)
    model = opened.keeping([opened.layers[0].name])

    products = [node for node in model.graph.node if node.op_type in PRODUCTS]
    makers = {name: each.op_type for each in model.graph.node for name in each.output}
    assert [makers.get(node.input[0]) for node in products] == [None, "DequantizeLinear"]


@pytest.mark.parametrize("precision", LOWERED)
@pytest.mark.parametrize("place", [0, 1])
def test_weights_that_a_lowered_and_a_kept_product_share_are_there_for_both(
    write_model: Callable[..., Path], precision: Precision, place: int
) -> None:
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "tied"], ["h"]),
        helper.make_node("MatMul", ["h", "tied"], ["y"]),
    ]
    path = write_model(
        nodes,
        inputs={"x": ("n", 8)},
        outputs={"y": ("n", 8)},
        weights={"tied": random.standard_normal((8, 8)).astype(np.float32)},
    )
    calibration = [{"x": random.standard_normal((16, 8)).astype(np.float32)}]
    opened = OpenedLowering(path, precision, calibration=calibration)

    model = opened.keeping([opened.layers[place].name])

    onnx.checker.check_model(model, full_check=True)
    old = Rehearsal(onnx.load_model(path)).answers(calibration)
    assert 12 < signal_to_noise_db(Rehearsal(model).answers(calibration), old) < math.inf


@pytest.mark.parametrize("scaled", [{"alpha": 0.5}, {"beta": 2.0}, {"transA": 1}, {}])
def test_each_layer_that_is_kept_changes_the_file_of_dynamic_int8(
    write_model: Callable[..., Path], scaled: dict[str, Any]
) -> None:
    """ONNX Runtime quantizes a Gemm only where it is a MatMul and an Add."""
    weights = {name: np.eye(4, dtype=np.float32) for name in ("v", "w")}
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["h"]),
        helper.make_node("Gemm", ["h", "w", "bias"], ["y"], **scaled),
    ]
    path = write_model(
        nodes,
        inputs={"x": (4, 4)},
        outputs={"y": (4, 4)},
        weights={**weights, "bias": np.ones(4, np.float32)},
    )

    opened = OpenedLowering(path, Precision.INT8_DYNAMIC, calibration=[])

    assert len(opened.layers) == (1 if scaled else 2)
    without = {opened.keeping([one.name]).SerializeToString() for one in opened.layers}
    assert len(without - {opened.keeping([]).SerializeToString()}) == len(opened.layers)


@pytest.fixture
def branching(write_model: Callable[..., Path]) -> Path:
    """Two products with an If between, whose branches read constants and the first answer."""
    random = np.random.default_rng(0)
    drawn = {name: random.standard_normal((16, 16)).astype(np.float32) for name in ("v", "w")}
    shifts = {name: random.standard_normal(16).astype(np.float32) for name in ("up", "down")}
    branches = {
        branch: helper.make_graph(
            [helper.make_node("Add", ["h", shift], [branch])],
            *(branch, []),
            [helper.make_tensor_value_info(branch, TensorProto.FLOAT, ("n", 16))],
        )
        for branch, shift in (("then_branch", "up"), ("else_branch", "down"))
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["h"]),
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["many"]),
        helper.make_node("If", ["many"], ["b"], **branches),
        helper.make_node("MatMul", ["b", "v"], ["y"]),
    ]
    return write_model(
        nodes,
        inputs={"x": ("n", 16)},
        outputs={"y": ("n", 16)},
        weights={**drawn, **shifts, "zero": np.zeros((), np.float32)},
    )


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP8, Precision.INT4])
@pytest.mark.parametrize("kept", [0, 1])
def test_what_only_branches_of_a_model_read_is_still_there(
    branching: Path, precision: Precision, kept: int
) -> None:
    asked = [{"x": np.random.default_rng(1).standard_normal((16, 16)).astype(np.float32)}]
    opened = OpenedLowering(branching, precision, calibration=asked)

    model = opened.keeping([layer.name for layer in opened.layers[:kept]])

    onnx.checker.check_model(model, full_check=True)
    old = Rehearsal(onnx.load_model(branching)).answers(asked)
    assert signal_to_noise_db(Rehearsal(model).answers(asked), old) > 12


def test_layer_without_a_name_gets_none_that_a_later_one_has(
    write_model: Callable[..., Path],
) -> None:
    weights = {name: np.eye(4, dtype=np.float32) for name in ("v", "w")}
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["h"]),
        helper.make_node("MatMul", ["h", "w"], ["y"], name="MatMul_0"),
    ]
    path = write_model(nodes, inputs={"x": ("n", 4)}, outputs={"y": ("n", 4)}, weights=weights)

    layers = OpenedLowering(path, Precision.FP16, calibration=[]).layers

    assert len({layer.name for layer in layers}) == 2
    assert layers[1].name == "MatMul_0"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return bench_in(tmp_path, write_space(tmp_path))


def keeping(count: int, precision: Precision = Precision.INT8) -> Deployment:
    options = (("keep_layers", count), ("threads", 1))
    return replace(point(precision=precision), options=options)


def test_number_of_kept_layers_is_in_the_models_digest(bench: Bench) -> None:
    none, one, again = (bench.prepare(keeping(count)) for count in (0, 1, 1))

    assert none.model.sha256 != one.model.sha256
    assert none.engine.sha256 != one.engine.sha256
    assert one.model == again.model
    assert none.model.sha256 == bench.prepare(point(precision=Precision.INT8)).model.sha256


def test_kept_layer_is_the_one_with_the_most_noise_on_the_calibration_split(
    bench: Bench,
) -> None:
    model = onnx.load_model(bench.prepare(keeping(1)).model.path)

    layers = bench.layers("net", Precision.INT8)
    ratios = {
        layer.name: bench.layer_effect(
            "net", Precision.INT8, layer=layer.name, split="calibration"
        ).signal_to_noise_db
        for layer in layers
    }
    worst = min(ratios, key=lambda name: ratios[name])
    makers = {name: each.op_type for each in model.graph.node for name in each.output}
    quantized = {
        node.name
        for node in model.graph.node
        if node.op_type in PRODUCTS and makers.get(node.input[1]) == "DequantizeLinear"
    }
    assert quantized == {layer.name for layer in layers} - {worst}


def test_ranking_sees_no_sample_of_search_or_report(bench: Bench) -> None:
    bench.prepare(keeping(1))

    assert bench.dataset.calibration is not None
    effects = [json.loads(one.parts) for one in bench.store.list() if one.kind == "sensitivity"]
    assert {each["samples"] for each in effects} == {bench.dataset.calibration.digest}
    assert len(effects) == 2


def test_ranking_is_found_by_whoever_asks_next(bench: Bench, tmp_path: Path) -> None:
    bench.prepare(keeping(1))
    before = {one.key: one.created_s for one in bench.store.list() if one.kind == "sensitivity"}

    another = bench_in(tmp_path, bench.space)
    layer = another.layers("net", Precision.INT8)[0].name
    another.layer_effect("net", Precision.INT8, layer=layer, split="calibration")
    another.prepare(replace(keeping(1), batch_size=4))

    after = {one.key: one.created_s for one in another.store.list() if one.kind == "sensitivity"}
    assert after == before


@pytest.mark.parametrize("count", [2, 7])
def test_keeping_all_layers_is_no_deployment_of_its_own(bench: Bench, count: int) -> None:
    with pytest.raises(
        UnsupportedError, match=f"lowers 2 layers of 'net', and keep_layers={count} would leave"
    ) as caught:
        bench.prepare(keeping(count))

    rule = rule_from_text(
        str(caught.value).rpartition(": ")[2], axes=["variant", "precision", "keep_layers"]
    )
    tried = {"variant": "net", "precision": "int8"}
    assert not rule.allows(tried | {"keep_layers": count})
    assert rule.allows(tried | {"keep_layers": 1})


def test_kept_layers_have_engines_of_their_own(bench: Bench) -> None:
    axes = (*bench.space.axes, replace(bench.space.axes[0], name="keep_layers", values=(0, 1)))
    precision = tuple(
        replace(axis, values=("int8",)) if axis.name == "precision" else axis for axis in axes
    )

    wanted = engines_of(replace(bench.space, axes=precision), bench.backend.capabilities())

    assert [dict(each.options)["keep_layers"] for each in wanted] == [0, 1]


@dataclass(frozen=True)
class WatchedSplit(Split):
    """A split that notes how many samples were asked for at a time."""

    asked: list[int] = field(default_factory=list)

    def samples(
        self, indices: Sequence[int] | NDArray[np.intp], preprocessing: Preprocessing
    ) -> Tensors:
        self.asked.append(len(indices))
        return Split.samples(self, indices, preprocessing)


def watched(bench: Bench) -> tuple[Bench, WatchedSplit]:
    """Open a bench once more, with its calibration split under watch."""
    split = bench.dataset.calibration
    assert split is not None
    seen = WatchedSplit(**{one.name: getattr(split, one.name) for one in fields(Split)})
    dataset = replace(bench.dataset, calibration=seen)
    return Bench(bench.space, bench.store, backend=bench.backend, dataset=dataset), seen


def ruined_in_fp16(tmp_path: Path) -> Path:
    """Write weights of 1e-9, below what fp16 can hold: nothing is left of the answers."""
    path = write_model(tmp_path / "tiny.onnx")
    model = onnx.load_model(path)
    for tensor in model.graph.initializer:
        if tensor.name in ("hidden", "head"):
            small = numpy_helper.to_array(tensor) * np.float32(1e-9)
            tensor.CopyFrom(numpy_helper.from_array(small, tensor.name))
    onnx.save_model(model, path)
    return path


def test_conversion_that_ruins_the_answers_is_infeasible(tmp_path: Path) -> None:
    bench = bench_in(tmp_path, write_space(tmp_path, {"net": ruined_in_fp16(tmp_path)}))

    with pytest.raises(UnsupportedError, match=r"tiny\.onnx: in fp16 its answers to 40 samples"):
        bench.prepare(point(precision=Precision.FP16))


def test_conversion_that_was_refused_is_refused_again_without_making_it(tmp_path: Path) -> None:
    space = write_space(tmp_path, {"net": ruined_in_fp16(tmp_path)})
    bench, calibration = watched(bench_in(tmp_path, space))
    with pytest.raises(UnsupportedError) as first:
        bench.prepare(point(precision=Precision.FP16))
    asked = len(calibration.asked)

    with pytest.raises(UnsupportedError) as again:
        bench.prepare(point(precision=Precision.FP16, batch_size=4))

    assert str(again.value) == str(first.value)
    assert len(calibration.asked) == asked > 0


@pytest.mark.parametrize("precision", [*LOWERED, Precision.INT4])
@pytest.mark.parametrize("kept", [0, 2])
def test_attention_is_lowered_in_every_precision(
    attention_model: Path, precision: Precision, kept: int
) -> None:
    random = np.random.default_rng(1)
    asked = [{"tokens": random.standard_normal((32, 8, 32)).astype(np.float32)}]
    opened = OpenedLowering(attention_model, precision, calibration=asked)

    model = opened.keeping([layer.name for layer in opened.layers[:kept]])

    onnx.checker.check_model(model, full_check=True)
    old = Rehearsal(onnx.load(attention_model)).answers(asked)
    assert signal_to_noise_db(Rehearsal(model).answers(asked), old) > 12


def test_model_that_takes_single_samples_alone_is_still_converted(
    write_model: Callable[..., Path], tmp_path: Path
) -> None:
    """Exporters write a Reshape to (1, …) into models whose batch they call free."""
    weights = {"w": np.eye(6, 4, dtype=np.float32), "flat": np.array([1, 4])}
    nodes = [
        helper.make_node("MatMul", ["samples", "w"], ["h"]),
        helper.make_node("Reshape", ["h", "flat"], ["logits"]),
    ]
    path = write_model(
        nodes, inputs={"samples": ("n", 6)}, outputs={"logits": ("n", 4)}, weights=weights
    )
    bench = bench_in(tmp_path, write_space(tmp_path, {"net": path}))

    assert bench.prepare(point(precision=Precision.FP16)).model.size_bytes > 0


CALIBRATING = 32  # samples a call, unlike the calls that score or check


def test_layers_are_calibrated_once_for_all_numbers_of_kept_ones(bench: Bench) -> None:
    again, calibration = watched(bench)

    for count in (0, 1):
        again.prepare(keeping(count))

    assert calibration.asked.count(CALIBRATING) == 1


def test_nothing_is_calibrated_where_models_and_effects_are_stored(bench: Bench) -> None:
    for count in (0, 1):
        bench.prepare(keeping(count))
    again, calibration = watched(bench)

    for count in (0, 1):
        again.prepare(keeping(count))

    assert again.layers("net", Precision.INT8) == bench.layers("net", Precision.INT8)
    assert calibration.asked == []
