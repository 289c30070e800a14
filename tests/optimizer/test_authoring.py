"""From a user's model and data to a space file that really searches."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, save_model
from PIL import Image
from real_spaces import (
    CLASSES,
    FEATURES,
    STORE_BYTES,
    samples,
    write_data,
    write_model,
    write_pages,
    write_reader,
)

from optimizer.authoring import draft_space
from optimizer.errors import UsageError
from search_spaces.files import space_from_yaml
from search_spaces.space import SearchSpace, TaskKind
from trials.bench import open_bench
from trials.errors import DataError, ModelError
from trials.outcome import Completed
from trials.run import run_trial
from trials.store.store import Store

Labels = Callable[[int], NDArray[np.generic]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data.npz")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Write twenty gray images of noise for each of two classes."""
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(20):
            pixels = generator.integers(256, size=(8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    return tmp_path / "images"


def write_model_of_images(path: Path) -> Path:
    """Write a model that takes gray images of 8 by 8 and answers their pixels."""
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["images"], ["logits"])],
        "flat",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ("batch", 1, 8, 8))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("batch", 64))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    save_model(model, path)
    return path


def drafted(model: Path, data: Path, to: Path | None = None) -> SearchSpace:
    return space_from_yaml(draft_space(model, data=data, to=to).path)


def tried(space: SearchSpace, folder: Path, count: int = 3) -> list[Completed]:
    """Try the first deployments of a space for real, for a moment each."""
    bench = open_bench(space, Store(folder / "store", limit_bytes=STORE_BYTES))
    outcomes = []
    for deployment in islice(space.deployments(), count):
        outcome = run_trial(deployment, bench, on_phase=lambda _: None)
        assert isinstance(outcome, Completed), outcome
        outcomes.append(outcome)
    return outcomes


def hurried(path: Path) -> SearchSpace:
    """Read a draft, with less time for a measurement than a user would give."""
    text = path.read_text(encoding="utf-8")
    assert "max_s: 3 " in text
    text = text.replace("max_s: 3 ", "block_s: 0.01\n  warmup_s: 0\n  max_s: 0.2 ")
    path.write_text(text, encoding="utf-8")
    return space_from_yaml(path)


def test_model_with_a_free_batch_is_searched_as_it_is(tmp_path: Path, data: Path) -> None:
    model = write_model(tmp_path / "net.onnx")

    draft = draft_space(model, data=data, to=None)

    assert draft.path == tmp_path / "net.yaml"
    assert draft.notes == ()
    assert len(tried(hurried(draft.path), tmp_path)) == 3


def test_model_with_a_fixed_batch_is_searched_as_a_copy_with_a_free_one(
    tmp_path: Path, data: Path
) -> None:
    model = write_model(tmp_path / "net.onnx", batch=1)
    before = model.read_bytes()

    draft = draft_space(model, data=data, to=None)

    [note] = draft.notes
    assert "net.free-batch.onnx is a copy with a free one" in note
    assert model.read_bytes() == before
    space = hurried(draft.path)
    assert len(space.axis("batch_size").values) > 1
    assert tried(space, tmp_path)


def test_copy_lies_beside_the_space_file(tmp_path: Path, data: Path) -> None:
    """The model's own folder may be somebody else's."""
    (tmp_path / "theirs").mkdir()
    model = write_model(tmp_path / "theirs" / "net.onnx", batch=1)

    space = drafted(model, data, tmp_path / "mine" / "space.yaml")

    assert [path.name for path in (tmp_path / "theirs").iterdir()] == ["net.onnx"]
    assert (tmp_path / "mine" / "net.free-batch.onnx").exists()
    assert space.task.data is not None


def test_batch_that_cannot_be_freed_is_searched_alone_and_the_reason_said(
    tmp_path: Path, data: Path
) -> None:
    model = write_model(tmp_path / "net.onnx", batch=2, centred=True)

    draft = draft_space(model, data=data, to=None)

    [note] = draft.notes
    assert "its batch of 2 cannot be freed" in note
    assert "searches batch_size 2 alone" in note
    space = hurried(draft.path)
    assert space.axis("batch_size").values == (2,)
    assert not (tmp_path / "net.free-batch.onnx").exists()
    assert tried(space, tmp_path)


def test_integer_labels_are_classes(tmp_path: Path, data: Path) -> None:
    space = drafted(write_model(tmp_path / "net.onnx"), data)

    assert space.task.kind is TaskKind.CLASSIFICATION
    assert "accuracy" in [objective.metric.name for objective in space.objectives]


@pytest.mark.parametrize(
    "labels",
    [
        lambda count: np.linspace(0.0, 1.0, count),
        lambda count: np.arange(count) - 5,
        lambda count: np.arange(2 * count).reshape(count, 2),
    ],
    ids=["floats", "below zero", "two a sample"],
)
def test_labels_that_are_no_classes_make_a_task_with_the_users_metric(
    tmp_path: Path, labels: Labels
) -> None:
    np.savez(tmp_path / "data.npz", inputs=samples(100), labels=labels(100))

    space = drafted(write_model(tmp_path / "net.onnx"), tmp_path / "data.npz")

    assert space.task.kind is TaskKind.CUSTOM
    assert space.task.metric == "my_metric:score"


def test_labels_that_are_no_classes_are_spoken_of(tmp_path: Path, data: Path) -> None:
    model = write_model(tmp_path / "net.onnx")
    np.savez(tmp_path / "hot.npz", inputs=samples(100), labels=np.eye(4)[np.arange(100) % 4])

    told = draft_space(model, data=tmp_path / "hot.npz", to=tmp_path / "hot.yaml")
    silent = draft_space(model, data=data, to=tmp_path / "classes.yaml")

    assert ["float64 (100, 4), are no class numbers" in note for note in told.notes] == [True]
    assert "labels.argmax(1)" in told.notes[0]
    assert silent.notes == ()


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.safetensors"])
def test_file_of_pytorch_is_refused_with_what_to_do_with_it(
    tmp_path: Path, data: Path, name: str
) -> None:
    (tmp_path / name).touch()

    with pytest.raises(UsageError, match="is of PyTorch") as caught:
        draft_space(tmp_path / name, data=data, to=None)

    assert "factory" in caught.value.hint
    assert "torch.onnx.export" in caught.value.hint


def test_draft_with_the_users_metric_searches_once_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "data.npz", inputs=samples(100), labels=np.linspace(0.0, 1.0, 100))
    code = "def score(outputs, labels):\n    return -abs(outputs['logits'][:, 0] - labels)\n"
    (tmp_path / "my_metric.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)

    draft = draft_space(write_model(tmp_path / "net.onnx"), data=tmp_path / "data.npz", to=None)

    [outcome, *_] = tried(hurried(draft.path), tmp_path)
    assert outcome.metric("score").value < 0


def test_bytes_for_a_model_of_floats_are_scaled(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(100, FEATURES), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", inputs=pixels, labels=np.arange(100) % CLASSES)

    draft = draft_space(write_model(tmp_path / "net.onnx"), data=tmp_path / "data.npz", to=None)

    space = hurried(draft.path)
    assert space.task.preprocessing.scale == pytest.approx(1 / 255)
    assert tried(space, tmp_path)


def test_bytes_for_a_model_of_bytes_stay_bytes(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(100, FEATURES), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", inputs=pixels, labels=np.arange(100) % CLASSES)
    model = write_model(tmp_path / "net.onnx", dtype=TensorProto.UINT8)

    draft = draft_space(model, data=tmp_path / "data.npz", to=None)

    space = hurried(draft.path)
    assert space.task.preprocessing.dtype == "uint8"
    assert space.task.preprocessing.scale == 1
    assert tried(space, tmp_path)


def test_model_of_two_inputs_of_two_types_is_drafted_and_searched(tmp_path: Path) -> None:
    data = write_pages(tmp_path / "pages.npz")

    draft = draft_space(write_reader(tmp_path / "reader.onnx"), data=data, to=None)

    space = hurried(draft.path)
    assert space.task.preprocessing.dtype == (("input_ids", "int64"), ("pixels", "float32"))
    assert space.task.preprocessing.scale == pytest.approx(1 / 255)
    assert all(outcome.quality is not None for outcome in tried(space, tmp_path))


def test_paths_start_at_the_space_files_folder(tmp_path: Path, data: Path) -> None:
    model = write_model(tmp_path / "net.onnx")

    text = draft_space(model, data=data, to=tmp_path / "a" / "b.yaml").path.read_text()

    assert "path: ../data.npz" in text.replace('"', "")
    assert "onnx: ../net.onnx" in text.replace('"', "")
    assert str(tmp_path) not in text


@pytest.mark.parametrize("name", ["net.yaml", "net.free-batch.onnx"])
def test_file_that_is_there_is_not_overwritten(tmp_path: Path, data: Path, name: str) -> None:
    model = write_model(tmp_path / "net.onnx", batch=1)
    (tmp_path / name).write_text("mine", encoding="utf-8")
    before = sorted(tmp_path.iterdir())

    with pytest.raises(UsageError, match=name) as caught:
        draft_space(model, data=data, to=None)

    assert caught.value.hint
    assert (tmp_path / name).read_text(encoding="utf-8") == "mine"
    assert sorted(tmp_path.iterdir()) == before


def test_input_that_cannot_be_used_leaves_nothing_written(tmp_path: Path, data: Path) -> None:
    model = write_model(tmp_path / "net.onnx", batch=1)
    (tmp_path / "cut.onnx").write_bytes(model.read_bytes()[:50])
    (tmp_path / "cut.npz").write_bytes(data.read_bytes()[:50])
    before = sorted(tmp_path.iterdir())

    with pytest.raises(ModelError, match=r"cut\.onnx"):
        draft_space(tmp_path / "cut.onnx", data=data, to=None)
    with pytest.raises(DataError, match=r"cut\.npz"):
        draft_space(model, data=tmp_path / "cut.npz", to=None)

    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("shape", "mend"),
    [
        ((40, 8, 8), r"the channel is missing, store inputs\[:, None\]"),
        ((40, 8, 8, 1), r"channels come first, store inputs\.transpose\(0, 3, 1, 2\)"),
        ((40, 64), r"store inputs\.reshape\(-1, 1, 8, 8\)"),
        ((40, 1, 9, 9), "store them so"),
    ],
)
def test_samples_of_another_shape_than_the_model_takes_are_refused_with_the_mend(
    tmp_path: Path, shape: tuple[int, ...], mend: str
) -> None:
    model = write_model_of_images(tmp_path / "flat.onnx")
    random = np.random.default_rng(0)
    np.savez(
        tmp_path / "data.npz",
        inputs=random.standard_normal(shape),
        labels=random.integers(4, size=shape[0]),
    )

    with pytest.raises(DataError, match=rf"data\.npz: the model's input 'images'.*{mend}"):
        draft_space(model, data=tmp_path / "data.npz", to=None)

    assert not (tmp_path / "flat.yaml").exists()


def test_draft_counts_every_sample_and_every_class(tmp_path: Path) -> None:
    """Also a class that the search split would miss."""
    labels = np.zeros(809, dtype=np.int64)
    labels[0] = CLASSES - 1
    np.savez(tmp_path / "data.npz", inputs=samples(809), labels=labels)

    draft = draft_space(write_model(tmp_path / "net.onnx"), data=tmp_path / "data.npz", to=None)

    text = draft.path.read_text(encoding="utf-8")
    assert "# 809 samples." in text
    assert f"# {CLASSES} classes;" in text


def test_folder_of_images_is_drafted_with_the_size_and_color_that_the_model_takes(
    tmp_path: Path, images: Path
) -> None:
    draft = draft_space(write_model_of_images(tmp_path / "net.onnx"), data=images, to=None)

    space = space_from_yaml(draft.path)
    assert space.task.preprocessing.size == (8, 8)
    assert space.task.preprocessing.color == "gray"
    assert "1/255" in draft.path.read_text(encoding="utf-8")


def test_folder_of_images_for_a_model_that_takes_none_is_refused(
    tmp_path: Path, images: Path
) -> None:
    with pytest.raises(UsageError, match="the model takes 2"):
        draft_space(write_model(tmp_path / "net.onnx"), data=images, to=None)
