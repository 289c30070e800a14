from pathlib import Path

import pytest

from search_spaces.errors import SpaceError
from search_spaces.yaml_text import data_from_yaml


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1, 2", "line 1, column 9: expected ',' or ']'"),
        ("a: 1\nb: 2\na: 3", "line 3, column 1: key 'a' stands twice; keep one of the two"),
        ("a: {b: 1, b: 2}", "line 1, column 11: key 'b' stands twice"),
        ("a: &x [1]\nb: *x", "anchors (&) and aliases (*) are not read"),
        ("a: \t- b", "line 1, column 4"),
        ("a:\n\tb: 1", "line 2, column 1: a tab cannot indent in YAML; use spaces"),
        ("'A docstring.' here", "line 1, column 16: this is no `key: value` line"),
        ("a: 1\n---\nb: 2", "line 2, column 1"),
        ("{[1]: 2}", "line 1, column 2: found unhashable key"),
        ("a: !!python/name:os.system", "line 1, column 4: could not determine a constructor"),
        ("a: 2026-13-01", "is not readable as YAML (month must be in 1..12)"),
        ("a: \0", "special characters are not allowed"),
        pytest.param("[" * 3_000, "maximum recursion depth exceeded", id="deep"),
        ("# nothing but a comment", "is empty; `trifront init` writes a first one"),
        pytest.param("a" * 1_000_001, "is over 1 MB", id="large"),
    ],
)
def test_text_that_is_not_plain_yaml_is_refused_with_its_place(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(SpaceError) as caught:
        data_from_yaml(path)

    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_in_exponent_form_are_numbers(tmp_path: Path) -> None:
    """PyYAML reads ``1e-3`` as text, because YAML 1.1 wanted a dot."""
    path = tmp_path / "space.yaml"
    path.write_text("[1e-3, -2E+4, 1.5e3, 1e, e3]", encoding="utf-8")

    data = data_from_yaml(path)

    assert data == [0.001, -20000.0, 1500.0, "1e", "e3"]


def test_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="there is no such file"):
        data_from_yaml(tmp_path / "none.yaml")


def test_folder_is_no_space_file(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="is a folder; name the YAML file in it"):
        data_from_yaml(tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_bytes(b"name: \xff\xfe")

    with pytest.raises(SpaceError, match="is not UTF-8 text; name a YAML file, or save"):
        data_from_yaml(path)
