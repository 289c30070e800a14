import importlib
import sys
from pathlib import Path

import pytest

from trials.errors import DataError
from trials.models.users_code import code_digest, function_from_name


@pytest.fixture
def metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's metric that imports a module of its own; returns the folder of both."""
    (tmp_path / "user_helper.py").write_text("FACTOR = 1\n", encoding="utf-8")
    (tmp_path / "user_metric.py").write_text(
        "import user_helper\n\ndef score(outputs, labels):\n    return labels\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("user_metric", "user_helper"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.invalidate_caches()
    return tmp_path


@pytest.mark.parametrize("edited", ["user_metric.py", "user_helper.py"])
def test_edited_code_is_other_code_also_where_it_is_only_imported(
    metric: Path, edited: str
) -> None:
    function_from_name("user_metric:score", key="task.metric", refusal=DataError)
    before = code_digest()

    with (metric / edited).open("a", encoding="utf-8") as file:
        file.write("# edited\n")
    for name in ("user_metric", "user_helper"):
        del sys.modules[name]  # as in a new process
    function_from_name("user_metric:score", key="task.metric", refusal=DataError)

    assert code_digest() != before


def test_code_that_is_edited_after_it_was_loaded_is_still_the_old_code(metric: Path) -> None:
    function_from_name("user_metric:score", key="task.metric", refusal=DataError)
    before = code_digest()

    (metric / "user_metric.py").write_text("# edited\n", encoding="utf-8")

    assert code_digest() == before


def test_installed_packages_are_no_code_of_the_user(metric: Path) -> None:
    assert metric.is_dir()
    before = code_digest()

    importlib.import_module("yaml")
    importlib.import_module("wave")

    assert code_digest() == before
