import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.assembly import space_from_document
from search_spaces.catalog import space_path
from search_spaces.document import SpaceDocument
from search_spaces.files import space_from_yaml
from search_spaces.meaning import first_difference, meaning_of
from search_spaces.space import SearchSpace

FAKE = yaml.safe_load(space_path("fake").read_text(encoding="utf-8"))
DIGESTS = {
    f"variant:{name}": f"{number:064x}"
    for number, name in enumerate(
        ["tiny", "small", "medium", "large", "greedy", "brittle", "wide"]
    )
}


def _meaning(space: SearchSpace, **digests: str) -> dict[str, object]:
    return meaning_of(space, digests={**DIGESTS, **digests})


def _shuffled(value: object, order: random.Random) -> object:
    if isinstance(value, dict):
        items = [(key, _shuffled(each, order)) for key, each in value.items()]
        return dict(order.sample(items, len(items)))
    if isinstance(value, list):
        return order.sample([_shuffled(each, order) for each in value], len(value))
    return value


@settings(deadline=None, max_examples=40)
@given(order=st.randoms(use_true_random=False))
def test_order_of_keys_and_values_makes_no_difference(order: random.Random) -> None:
    path = Path("space.yaml")
    written = space_from_document(SpaceDocument.model_validate(FAKE), path=path)
    document = SpaceDocument.model_validate(_shuffled(FAKE, order))

    shuffled = space_from_document(document, path=path)

    assert _meaning(shuffled) == _meaning(written)
    assert (shuffled.axes, shuffled.objectives) == (written.axes, written.objectives)


def test_meaning_survives_json() -> None:
    meaning = _meaning(space_from_yaml(space_path("fashion-mnist")), **_digests())

    assert json.loads(json.dumps(meaning)) == meaning
    assert first_difference(json.loads(json.dumps(meaning)), meaning) is None


def _digests() -> dict[str, str]:
    space = space_from_yaml(space_path("fashion-mnist"))
    variants = {f"variant:{variant.name}": "a" * 64 for variant in space.variants}
    return variants | {f"data:{split}": "b" * 64 for split in ("calibration", "search", "report")}


def test_comments_names_and_places_make_no_difference(
    ort: str, folder: Path, read: Callable[[str], SearchSpace]
) -> None:
    (folder / "copy.onnx").write_bytes(b"x")
    old = _meaning(read(ort))

    new = _meaning(
        read(f"# a comment\n{ort}".replace("small.onnx", "copy.onnx").replace("tiny", "b"))
    )

    assert new == old


@pytest.mark.parametrize(
    ("added", "said"),
    [
        (
            "axes: {batch_size: [1, 8]}",
            "axes.batch_size: [1] in the study, [1, 8] in the file",
        ),
        ("axes: {threads: [1]}", "axes.threads: nothing in the study, [1] in the file"),
        (
            "rules: [concurrency < 4]",
            'rules: [] in the study, ["concurrency < 4"] in the file',
        ),
        (
            "constraints: [accuracy >= 0.5]",
            'constraints: [] in the study, ["accuracy >= 0.5"] in the file',
        ),
        (
            "objectives: {latency_p99_ms: minimize, throughput_sps: maximize}",
            'objectives.accuracy: "maximize" in the study, nothing in the file',
        ),
        ("measure: {max_s: 9}", "measure.max_s: 10.0 in the study, 9.0 in the file"),
    ],
)
def test_first_difference_is_told_with_both_values(
    fake: str, read: Callable[[str], SearchSpace], added: str, said: str
) -> None:
    old, new = _meaning(read(fake)), _meaning(read(f"{fake}{added}\n"))

    assert first_difference(old, new) == said


def test_changed_model_is_another_meaning(fake: str, read: Callable[[str], SearchSpace]) -> None:
    space = read(fake)

    said = first_difference(
        _meaning(space, **{"variant:wide": "a" * 64}),
        _meaning(space, **{"variant:wide": "b" * 64}),
    )

    assert said == "variants.wide.digest: aaaaaaaaaaaa… in the study, bbbbbbbbbbbb… in the file"


def test_changed_data_and_weights_are_another_meaning(
    ort: str, read: Callable[[str], SearchSpace]
) -> None:
    torch = "torch: {factory: 'a:b', weights: w.safetensors, input_shape: [1]}"
    space = read(ort.replace("onnx: small.onnx", torch))
    old = _meaning(space, **{"data:search": "a", "weights:small": "a"})

    assert first_difference(
        old, _meaning(space, **{"data:search": "b", "weights:small": "a"})
    ) == ('task.data.search: "a" in the study, "b" in the file')
    assert first_difference(
        old, _meaning(space, **{"data:search": "a", "weights:small": "b"})
    ) == ('variants.small.weights: "a" in the study, "b" in the file')


def test_added_variant_is_told_by_its_digest(
    fake: str, read: Callable[[str], SearchSpace]
) -> None:
    space = read(fake)
    fewer = replace(space, variants=space.variants[:1])

    said = first_difference(_meaning(fewer), _meaning(space))

    assert said == "variants.wide: nothing in the study, digest 000000000000… in the file"


def test_truth_and_one_are_not_alike() -> None:
    said = first_difference({"graphs": [True]}, {"graphs": [1]})

    assert said == "graphs: [true] in the study, [1] in the file"


def test_variant_without_a_digest_has_no_meaning(
    fake: str, read: Callable[[str], SearchSpace]
) -> None:
    with pytest.raises(KeyError, match="variant:small"):
        meaning_of(read(fake), digests={})


def test_edited_code_of_a_metric_is_another_meaning() -> None:
    space = space_from_yaml(space_path("fake"))
    before, after = (_meaning(space, **{"code:metric": digit * 64}) for digit in "ab")

    difference = first_difference(before, after)

    assert difference is not None
    assert difference.startswith("task.metric_code: aaaaaaaaaaaa… in the study")


def test_types_by_input_are_part_of_the_meaning_and_their_order_is_not(
    ort: str, read: Callable[[str], SearchSpace]
) -> None:
    def meaning(dtype: str) -> dict[str, object]:
        space = read(ort.replace("task: {", f"task: {{preprocess: {{dtype: {dtype}}}, "))
        return meaning_of(space, digests={"variant:small": "a" * 64})

    old = meaning("{ids: int64, pixels: float32}")

    assert meaning("{pixels: float32, ids: int64}") == old
    assert json.loads(json.dumps(old)) == old
    assert first_difference(old, meaning("{pixels: float32, ids: int32}")) == (
        'task.preprocess.dtype.ids: "int64" in the study, "int32" in the file'
    )
    assert meaning("{pixels: float32, ids: float32}") == meaning("float32")
