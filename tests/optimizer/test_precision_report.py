"""``trifront precision-report``: layers ranked in a worker process, told and drawn."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from real_spaces import write_data, write_model, write_space
from typer.testing import CliRunner

from optimizer.cli import app
from optimizer.errors import UsageError
from optimizer.sensitivity.sensitivity import (
    KEEPING_BACKENDS,
    Sensitivity,
    named_space,
    sensitivity_of,
    variant_named,
)
from optimizer.sensitivity.words import lines_of_sensitivity
from optimizer.wiring import place_at
from search_spaces.deployment import KEEP_LAYERS, Precision
from trials.backends.catalog import backend_named
from trials.errors import UnsupportedError
from trials.isolation.messages import LayerQuestion

RUNNER = CliRunner()
PNG = b"\x89PNG"


def asked(folder: Path, precision: Precision = Precision.INT8) -> tuple[Sensitivity, list[int]]:
    """Rank the layers of a made network; return it and how progress was told."""
    told: list[int] = []
    found = sensitivity_of(
        write_space(folder),
        place_at(folder / "trifront", None),
        LayerQuestion(variant="net", precision=precision, split="search"),
        on_layer=lambda done, total: told.append(100 * done // total),
    )
    return found, told


def test_every_layer_is_ranked_once(tmp_path: Path) -> None:
    found, told = asked(tmp_path)

    assert sorted(layer.weight for layer, _ in found.layers) == ["head", "hidden"]
    assert all(effect.layer == layer.name for layer, effect in found.layers)
    assert found.samples == 80
    assert told == [0, 33, 66, 100]


def test_certain_losses_come_first_and_then_the_noisiest_layers(tmp_path: Path) -> None:
    found, _ = asked(tmp_path)

    effects = [effect for _, effect in found.layers]
    certain = [one.is_certain_loss for one in effects]
    losses = [one.change.difference.value for one in effects if one.change and one.is_certain_loss]
    ratios = [one.signal_to_noise_db for one in effects if not one.is_certain_loss]
    assert certain == sorted(certain, reverse=True)
    assert losses == sorted(losses)
    assert ratios == sorted(ratios)
    assert [layer.weight for layer, _ in found.layers] == ["head", "hidden"]  # not as executed


def test_all_layers_together_are_noisier_than_the_worst_of_them(tmp_path: Path) -> None:
    """Two errors in step have at most twice the amplitude of the larger: 6 dB, and 1 to spare."""
    found, _ = asked(tmp_path)

    worst_db = min(effect.signal_to_noise_db for _, effect in found.layers)
    assert found.whole.layer == ""
    assert worst_db - 7 < found.whole.signal_to_noise_db < worst_db


def test_ranking_that_was_interrupted_goes_on(tmp_path: Path) -> None:
    class Stopped(Exception):  # noqa: N818 - what Ctrl-C does, without a signal
        pass

    def stop(done: int, _: int) -> None:
        if done == 2:
            raise Stopped

    space, place = write_space(tmp_path), place_at(tmp_path / "trifront", None)
    question = LayerQuestion(variant="net", precision=Precision.INT8)
    with pytest.raises(Stopped):
        sensitivity_of(space, place, question, on_layer=stop)
    kept = {path.name for path in (place.workspace.store / "sensitivity").glob("*/*")}

    sensitivity_of(space, place, question, on_layer=lambda _done, _total: None)

    after = {path.name for path in (place.workspace.store / "sensitivity").glob("*/*")}
    assert len(kept) == 2
    assert kept < after
    assert len(after) == 3


def test_report_is_a_table_a_document_and_a_picture(tmp_path: Path) -> None:
    write_space(tmp_path)
    command = ["precision-report", str(tmp_path / "real.yaml"), "-w", str(tmp_path / "trifront")]

    table = RUNNER.invoke(app, command)
    document = RUNNER.invoke(app, [*command, "--json", "--plot", str(tmp_path / "layers.png")])

    assert table.exit_code == document.exit_code == 0
    found = json.loads(document.stdout)
    assert [one["rank"] for one in found["layers"]] == [1, 2]
    assert {one["weights"] for one in found["layers"]} == {"hidden", "head"}
    assert all(one["weights"] in table.stdout for one in found["layers"])
    assert found["samples"] == 40
    assert "accuracy [points]" in table.stdout
    assert (tmp_path / "layers.png").read_bytes().startswith(PNG)


def test_report_split_is_not_opened_for_a_ranking(tmp_path: Path) -> None:
    write_space(tmp_path)
    command = ["precision-report", str(tmp_path / "real.yaml"), "-w", str(tmp_path / "trifront")]

    asked = RUNNER.invoke(app, [*command, "--split", "report"])

    assert asked.exit_code == 2
    assert not (tmp_path / "trifront").exists()


def test_model_with_its_data_needs_no_space(tmp_path: Path) -> None:
    model = write_model(tmp_path / "net.onnx", width=16)
    data = write_data(tmp_path / "data.npz")
    before = sorted(tmp_path.iterdir())

    with named_space(str(model), data=data) as space:
        names = [variant.name for variant in space.variants]

    assert names == ["net"]
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [("net.onnx", None, "layers are compared on real samples"), ("fake", "d", "names its data")],
)
def test_data_belong_to_a_model_and_to_no_space(name: str, data: str | None, problem: str) -> None:
    given = None if data is None else Path(data)
    with pytest.raises(UsageError, match=problem), named_space(name, data=given):
        pytest.fail("it was accepted")


def test_variant_is_chosen_where_there_are_several(tmp_path: Path) -> None:
    models = {name: write_model(tmp_path / f"{name}.onnx") for name in ("small", "wide")}
    space = write_space(tmp_path, models)

    assert variant_named("wide", space) == "wide"
    with pytest.raises(UsageError, match="has 2 variants"):
        variant_named(None, space)
    with pytest.raises(UsageError, match="no variant 'smal'"):
        variant_named("smal", space)


def test_precision_that_the_model_cannot_have_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="cut into blocks of 16"):
        asked(tmp_path, Precision.INT4)


def test_lines_say_what_was_asked_and_what_to_do(tmp_path: Path) -> None:
    found, _ = asked(tmp_path)

    lines = list(lines_of_sensitivity(found))

    assert lines[0].startswith("net against itself in fp32 on the 80 samples of the search split")
    assert (
        lines[-1] == "keep_layers ranks on the calibration split, which may order them otherwise"
    )


@pytest.mark.parametrize("name", ["ort", "fake", "torch", "tensorrt"])
def test_axis_is_advised_to_the_backends_that_take_it(name: str) -> None:
    try:
        target = "SM89" if name == "tensorrt" else None  # it builds without a GPU
        options = backend_named(name, target=target).capabilities().options
    except UnsupportedError as error:
        pytest.skip(str(error))

    assert (name in KEEPING_BACKENDS) == (KEEP_LAYERS in {option.name for option in options})


def test_axis_is_not_advised_to_a_space_that_refuses_it(tmp_path: Path) -> None:
    found, _ = asked(tmp_path)

    *_, last = lines_of_sensitivity(replace(found, backend="torch", split="calibration"))

    assert last.startswith("these are layers of its ONNX model; backend torch keeps none of them")


def test_other_variants_are_not_looked_at(tmp_path: Path) -> None:
    """A torch variant would be exported, which may take minutes."""
    models = {name: write_model(tmp_path / f"{name}.onnx") for name in ("net", "other")}
    space = write_space(tmp_path, models)
    models["other"].write_bytes(b"no model")

    found = sensitivity_of(
        space,
        place_at(tmp_path / "trifront", None),
        LayerQuestion(variant="net", precision=Precision.INT8),
        on_layer=lambda _done, _total: None,
    )

    assert len(found.layers) == 2
