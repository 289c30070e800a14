import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from search_spaces.catalog import SHIPPED, space_path
from search_spaces.complaints import space_error_from_validation
from search_spaces.document import SpaceDocument
from search_spaces.errors import SpaceError
from search_spaces.files import json_schema, space_from_yaml
from search_spaces.space import SearchSpace


def test_complaint_names_the_file_as_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("version: 1")

    with pytest.raises(SpaceError) as caught:
        space_from_yaml(path)

    assert caught.value.source == str(path)
    missing = "is missing; add it (`trifront schema` says what it takes)"
    assert str(caught.value).splitlines() == [
        f"{path}: name: {missing}",
        f"  backend: {missing}",
        f"  variants: {missing}",
    ]


@pytest.mark.parametrize("name", SHIPPED)
def test_space_survives_the_way_to_another_process_and_to_json(name: str) -> None:
    space = space_from_yaml(space_path(name))
    adapter = TypeAdapter(SearchSpace)

    travelled = pickle.loads(pickle.dumps(space))  # noqa: S301 - our own bytes
    read_back = adapter.validate_json(adapter.dump_json(space))

    assert travelled == space
    assert read_back == space
    assert list(read_back.deployments()) == list(space.deployments())


def test_schema_is_json_and_knows_every_section() -> None:
    schema = json.loads(json.dumps(json_schema()))

    assert set(schema["properties"]) == set(SpaceDocument.model_fields)
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["version", "name", "backend", "variants"]
    assert "latency_p99_ms" in json.dumps(schema["properties"]["objectives"])


def test_schema_examples_are_accepted_by_the_schema_itself(fake: str) -> None:
    document = yaml.safe_load(fake)

    for name, field in SpaceDocument.model_fields.items():
        for example in field.examples or []:
            SpaceDocument.model_validate({**document, name: example})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = st.sampled_from([*SpaceDocument.model_fields, "axis"])


@settings(deadline=None)
@given(changes=st.dictionaries(KEYS, JSON, min_size=1, max_size=3))
def test_whatever_stands_in_a_file_is_a_space_or_refused_in_a_line_an_error(
    changes: dict[str, object],
) -> None:
    document = {
        "version": 1,
        "name": "x",
        "backend": "fake",
        "variants": [{"name": "a", "fake": {"work_ms": 1, "accuracy": 0.9, "size_mb": 1}}],
    }

    said = _complaint({**document, **changes})

    _, *others = said.split("\n")
    assert len(others) <= 10
    assert all(one.startswith("  ") for one in others)


def _complaint(data: object) -> str:
    from pydantic import ValidationError

    try:
        SpaceDocument.model_validate(data)
    except ValidationError as error:
        return str(space_error_from_validation(error, source="space.yaml"))
    return ""


def test_reading_a_space_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom search_spaces.catalog import space_path\n"
        "from search_spaces.files import space_from_yaml\n"
        "space_from_yaml(space_path('fake'))\n"
        "print(sorted({'numpy', 'onnx', 'onnxruntime', 'optuna', 'torch'} & set(sys.modules)))"
    )

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "[]"


def test_every_read_gives_an_equal_space(fake: str, read: Callable[[str], SearchSpace]) -> None:
    assert read(fake) == read(fake)
