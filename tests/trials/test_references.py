"""References: recorded in the deployment's batches, bounded, and answered alike by the engine."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from real_spaces import bench_in, point, write_model, write_space

from search_spaces.deployment import Deployment, Precision
from search_spaces.files import space_from_yaml
from trials.backend import Tensors
from trials.bench import Bench
from trials.data.dataset import dataset_from_task
from trials.errors import OutputError
from trials.recording import record_references
from trials.references import References, Wanted, answers

MUCH = 10**9


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return bench_in(tmp_path, write_space(tmp_path))


def recorded(
    bench: Bench, deployment: Deployment, samples: int = 10, limit_bytes: int = MUCH
) -> References:
    wanted = Wanted(samples=samples, limit_bytes=limit_bytes)
    references = record_references(deployment, bench, wanted).references
    assert references is not None
    return references


def sums(inputs: Tensors) -> Tensors:
    """Answer each sample by its sum, and by its batch's."""
    values = inputs["x"].sum(axis=1)
    return {"sum": values, "batch": np.full(len(values), values.sum())}


def test_references_are_labelled_samples_of_the_report_split(bench: Bench) -> None:
    found = recorded(bench, point(batch_size=4), samples=10)

    split = bench.dataset.report
    rows = {
        row.tobytes(): label for row, label in zip(split.arrays[0][1], split.labels, strict=True)
    }
    assert len(found) == len(found.inputs["samples"]) == len(found.outputs["logits"]) == 10
    assert [rows[row.tobytes()] for row in found.inputs["samples"]] == found.labels.tolist()


def test_same_references_are_drawn_each_time(bench: Bench) -> None:
    first, second = (recorded(bench, point()) for _ in range(2))

    assert np.array_equal(first.inputs["samples"], second.inputs["samples"])
    assert np.array_equal(first.outputs["logits"], second.outputs["logits"])


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
def test_engine_answers_them_again_bit_by_bit(bench: Bench, precision: Precision) -> None:
    deployment = point(precision=precision, batch_size=4, threads=2)
    found = recorded(bench, deployment, samples=11)
    engine = bench.backend.load(bench.prepare(deployment).engine.path, deployment)

    again = answers(engine.infer, found.inputs, batch_size=found.batch_size)
    engine.close()

    assert np.array_equal(again["logits"], found.outputs["logits"])


def test_bound_in_bytes_is_kept(bench: Bench) -> None:
    each_bytes = 6 * 4 + 4 * 4  # six features and four logits, float32

    assert len(recorded(bench, point(batch_size=4), limit_bytes=5 * each_bytes)) == 5


def test_one_sample_is_recorded_however_small_the_bound(bench: Bench) -> None:
    assert len(recorded(bench, point(), limit_bytes=1)) == 1


def test_no_more_are_recorded_than_there_are(bench: Bench) -> None:
    assert len(recorded(bench, point(), samples=10_000)) == len(bench.dataset.report)


def test_none_are_recorded_where_none_are_wanted_but_the_engine_is_described(bench: Bench) -> None:
    found = record_references(point(), bench, Wanted(samples=0, limit_bytes=MUCH))

    assert found.references is None
    assert [(one.name, one.shape) for one in found.inputs] == [("samples", (None, 6))]
    assert [(one.name, one.shape) for one in found.outputs] == [("logits", (None, 4))]
    assert found.classes is None


def test_model_of_a_fixed_batch_answers_fewer_samples_than_a_batch(tmp_path: Path) -> None:
    model = write_model(tmp_path / "fixed.onnx", batch=4)
    bench = bench_in(tmp_path, write_space(tmp_path, {"net": model}, batch_sizes="[4]"))

    found = recorded(bench, point(batch_size=4), samples=3)

    assert found.inputs["samples"].shape == (3, 6)
    assert found.outputs["logits"].shape == (3, 4)


def test_classes_of_a_folder_of_images_are_named(tmp_path: Path) -> None:
    for name in ("bags", "coats"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for shade in range(12):
            pixels = np.full((2, 3), shade * 20 + len(name), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{shade}.png")
    write_space(tmp_path)
    text = (tmp_path / "real.yaml").read_text(encoding="utf-8").replace("data.npz", "images")
    flat = "  preprocess: {size: [1, 6], color: gray}\nvariants:"
    (tmp_path / "real.yaml").write_text(text.replace("variants:", flat), encoding="utf-8")

    space = space_from_yaml(tmp_path / "real.yaml")

    assert dataset_from_task(space.task, source="x").report.classes == ("bags", "coats")


def test_last_batch_is_filled_up_from_the_first_samples() -> None:
    values = np.array([[1.0], [2.0], [4.0]])

    found = answers(sums, {"x": values}, batch_size=2)

    assert found["sum"].tolist() == [1, 2, 4]
    assert found["batch"].tolist() == [3, 3, 5]


def test_output_that_is_not_per_sample_is_refused() -> None:
    with pytest.raises(OutputError, match="'total' has shape"):
        answers(lambda one: {"total": one["x"].sum()}, {"x": np.ones((2, 1))}, batch_size=2)
