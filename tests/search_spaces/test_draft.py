from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.draft import DraftFacts, DraftInput, draft_yaml
from search_spaces.files import space_from_yaml
from search_spaces.space import OnnxSource, SearchSpace, SplitOfOne, TaskKind

IMAGE = DraftInput(name="images", dtype="float32", shape=(None, 1, 28, 28), stored="uint8")


def _facts(**changes: object) -> DraftFacts:
    known: dict[str, object] = {
        "name": "clothes",
        "model": "clothes.onnx",
        "inputs": (IMAGE,),
        "opset": 18,
        "fixed_batch": None,
        "data": "data.npz",
        "samples": 5_000,
        "classes": 10,
        "cores": 4,
    }
    return DraftFacts(**(known | changes))  # type: ignore[arg-type]  # a test's own changes


def _read(facts: DraftFacts, folder: Path) -> SearchSpace:
    for name in (facts.model, facts.data):
        (folder / name).touch()
    path = folder / "space.yaml"
    path.write_text(draft_yaml(facts), encoding="utf-8")
    return space_from_yaml(path)


def test_draft_is_a_valid_first_search_for_a_cpu(tmp_path: Path) -> None:
    space = _read(_facts(), tmp_path)

    assert space.backend == "ort"
    assert space.variants == (OnnxSource(name="clothes", path=tmp_path / "clothes.onnx"),)
    assert isinstance(space.task.data, SplitOfOne)
    assert space.axis("precision").values == ("fp32", "int8")
    assert space.axis("batch_size").values == (1, 2, 4, 8, 16, 32)
    assert space.axis("threads").values == (1, 2, 4)
    assert 40 <= sum(1 for _ in space.deployments()) <= 400


@pytest.mark.parametrize("cores", [1, 2, 3, 6, 12, 64])
def test_draft_never_asks_for_more_busy_threads_than_cores(tmp_path: Path, cores: int) -> None:
    space = _read(_facts(cores=cores), tmp_path)

    busy = [each.concurrency * int(dict(each.options)["threads"]) for each in space.deployments()]

    assert max(busy) == cores


def test_bytes_for_a_float_model_are_scaled(tmp_path: Path) -> None:
    scaled = _read(_facts(), tmp_path)
    kept = _read(_facts(inputs=(replace(IMAGE, stored="float32"),)), tmp_path)

    assert scaled.task.preprocessing.scale == 1 / 255
    assert kept.task.preprocessing.scale == 1


@settings(max_examples=40)
@given(name=st.text(min_size=1))
def test_inputs_of_several_types_are_named_with_theirs(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    ids = DraftInput(name=name, dtype="int64", shape=(None, 3), stored="int32")
    folder = tmp_path_factory.mktemp("draft")

    space = _read(_facts(inputs=(ids, replace(IMAGE, name=f"{name}2"))), folder)

    types = {name: "int64", f"{name}2": "float32"}
    assert space.task.preprocessing.dtype == tuple(sorted(types.items()))
    assert space.task.preprocessing.scale == 1 / 255  # of the pixels


def test_labels_that_are_no_classes_make_a_custom_task(tmp_path: Path) -> None:
    space = _read(_facts(classes=None), tmp_path)

    assert space.task.kind is TaskKind.CUSTOM
    assert space.task.metric == "my_metric:score"
    assert [each.metric.name for each in space.objectives][-1] == "score"


def test_fixed_batch_is_the_only_batch_size(tmp_path: Path) -> None:
    space = _read(_facts(fixed_batch=8), tmp_path)

    assert space.axis("batch_size").values == (8,)


def test_few_samples_are_remarked_on() -> None:
    assert "Few samples" in draft_yaml(_facts(samples=400))
    assert "Few samples" not in draft_yaml(_facts(samples=4_000))


def test_every_section_is_explained() -> None:
    lines = draft_yaml(_facts()).splitlines()

    sections = [number for number, line in enumerate(lines) if line[:1].isalpha()]
    explained = [number for number in sections if lines[number - 1].startswith("#")]

    assert len(explained) == len(sections) - 2  # name and backend say it on their own line


@settings(deadline=None)
@given(text=st.text(min_size=1, max_size=12))
def test_any_name_is_written_so_that_it_is_read_back(text: str) -> None:
    inputs = (DraftInput(name=text, dtype="float32", shape=(1, None), stored=None),)

    draft = yaml.safe_load(draft_yaml(_facts(name=text, model=text, data=text, inputs=inputs)))

    assert draft["variants"][0]["onnx"] == text
    assert draft["task"]["data"]["path"] == text
    assert draft["version"] == 1


def test_example_of_a_torch_variant_has_the_models_own_shape() -> None:
    taken = replace(IMAGE, shape=(None, 1, 8, 8))
    free = replace(IMAGE, shape=(None, 3, None, None))

    assert "input_shape: [1, 8, 8]" in draft_yaml(_facts(inputs=(taken,)))
    assert "input_shape: [3, 224, 224]" in draft_yaml(_facts(inputs=(free,)))
