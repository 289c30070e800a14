"""Which layers suffer from a precision: how effects are measured, ranked and kept."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from real_spaces import bench_in, write_space

from search_spaces.deployment import Precision
from trials.bench import Bench
from trials.errors import DataError
from trials.scoring.paired import PairedDifference, paired_difference
from trials.sensitivity import LayerEffect, effect_from_json, json_from_effect, ranked

FEATURES, CLASSES = 6, 4


def change(won: int, lost: int, samples: int = 400) -> PairedDifference:
    """Let a layer's lowering win and lose that many samples."""
    new, old = np.zeros(samples), np.zeros(samples)
    new[:won], old[won : won + lost] = 1, 1
    return paired_difference(new, old)


def effect(layer: str, ratio_db: float, *, won: int = 0, lost: int = 0) -> LayerEffect:
    return LayerEffect(
        layer=layer, metric="accuracy", change=change(won, lost), signal_to_noise_db=ratio_db
    )


def order(*effects: LayerEffect) -> list[str]:
    return [one.layer for one in ranked(effects)]


def test_layer_with_more_noise_comes_first_where_accuracy_cannot_tell() -> None:
    assert order(effect("quiet", 40), effect("loud", 20), effect("silent", math.inf)) == [
        *("loud", "quiet", "silent")
    ]


def test_certain_loss_comes_before_any_noise() -> None:
    assert order(effect("loud", 5), effect("costly", 30, lost=20)) == ["costly", "loud"]


def test_loss_that_may_be_chance_does_not_count() -> None:
    assert order(effect("chance", 30, won=4, lost=6), effect("loud", 20)) == ["loud", "chance"]


def test_loss_that_is_certain_alone_need_not_be_among_many_layers() -> None:
    """Of 20 layers that cost nothing, one is expected below 5 %."""
    lucky = effect("lucky", 40, lost=6)
    others = [effect(f"layer-{number}", 20 + number) for number in range(19)]

    [alone] = ranked([lucky])
    together = ranked([lucky, *others])

    assert alone.is_certain_loss
    assert [one.layer for one in together if one.is_certain_loss] == []
    assert together[-1].layer == "lucky"


def test_certain_losses_of_many_layers_are_still_found() -> None:
    others = [effect(f"layer-{number}", 20 + number) for number in range(19)]

    found = ranked([*others, effect("costly", 60, lost=20)])

    assert [one.layer for one in found if one.is_certain_loss] == ["costly"]
    assert found[0].layer == "costly"


def test_larger_certain_loss_comes_first() -> None:
    assert order(effect("less", 5, lost=20), effect("more", 30, lost=40)) == ["more", "less"]


def test_layer_that_leaves_no_usable_answer_comes_first_of_all() -> None:
    broken = replace(effect("broken", -math.inf), change=None, problem="3 values are infinite")

    assert order(effect("costly", 1, lost=200), broken) == ["broken", "costly"]


@pytest.mark.parametrize(
    "one",
    [
        effect("some", 23.5, won=3, lost=5),
        effect("none", math.inf),
        replace(effect("broken", -math.inf), change=None, problem="infinite"),
    ],
    ids=lambda one: one.layer,
)
def test_effect_is_the_same_from_its_file(one: LayerEffect) -> None:
    assert effect_from_json(json_from_effect(one)) == one


@pytest.fixture
def uneven(write_model: Callable[..., Path], tmp_path: Path) -> Bench:
    """A network whose second product reads one huge activation beside small ones.

    A scale that reaches the huge one leaves nothing of the small ones, of which the answers are
    made: in int8 that layer alone ruins the model, and the first one is harmless.
    """
    random = np.random.default_rng(5)
    first = random.standard_normal((FEATURES, 9)).astype(np.float32)
    first[:, 8] *= 3_000
    second = random.standard_normal((9, CLASSES)).astype(np.float32)
    second[8] = 0
    nodes = [
        helper.make_node("MatMul", ["samples", "first"], ["h"]),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("MatMul", ["a", "second"], ["logits"]),
    ]
    path = write_model(
        nodes,
        inputs={"samples": ("batch", FEATURES)},
        outputs={"logits": ("batch", CLASSES)},
        weights={"first": first, "second": second},
    )
    return bench_in(tmp_path, write_space(tmp_path, {"net": path}))


def effects_in(bench: Bench, precision: Precision) -> list[LayerEffect]:
    return [
        bench.layer_effect("net", precision, layer=layer.name, split="search")
        for layer in bench.layers("net", precision)
    ]


def test_layer_that_suffers_is_found(uneven: Bench) -> None:
    harmless, ruined = effects_in(uneven, Precision.INT8)

    assert ruined.signal_to_noise_db < 6
    assert harmless.signal_to_noise_db > 20
    assert order(harmless, ruined)[0] == ruined.layer


def test_layer_suffers_from_the_precision_that_cannot_hold_its_values(uneven: Bench) -> None:
    """bf16 has the exponents of fp32, so that a huge value beside small ones does no harm."""
    assert all(one.signal_to_noise_db > 30 for one in effects_in(uneven, Precision.BF16))


def test_keeping_that_layer_mends_the_model(uneven: Bench) -> None:
    layers = uneven.layers("net", Precision.INT8)
    whole, without = (
        uneven.layer_effect("net", Precision.INT8, layer=name, split="search")
        for name in ("", layers[0].name)
    )

    assert whole.signal_to_noise_db < 6
    assert without.signal_to_noise_db > 20


def test_overflow_is_told_and_not_raised(write_model: Callable[..., Path], tmp_path: Path) -> None:
    weights = {"w": np.full((FEATURES, CLASSES), 60_000, np.float32)}
    path = write_model(
        [helper.make_node("MatMul", ["samples", "w"], ["logits"])],
        inputs={"samples": ("batch", FEATURES)},
        outputs={"logits": ("batch", CLASSES)},
        weights=weights,
    )
    bench = bench_in(tmp_path, write_space(tmp_path, {"net": path}))

    whole = bench.layer_effect("net", Precision.FP16, layer="", split="search")

    assert whole.change is None
    assert "NaN or infinite" in whole.problem
    assert whole.is_certain_loss


def test_split_that_is_not_there_is_named(tmp_path: Path) -> None:
    bench = bench_in(tmp_path, write_space(tmp_path))
    bench.conversions._dataset = replace(bench.dataset, calibration=None)

    with pytest.raises(DataError, match=r"task\.data has no calibration split; add one"):
        bench.layer_effect("net", Precision.BF16, layer="", split="calibration")
