"""Commands about a study take its name as an argument and as ``--study`` alike."""

import inspect
from pathlib import Path

import pytest
from search_fakes import searched
from typer.testing import CliRunner

from optimizer.cli import app, certifying, harvest, reporting
from optimizer.cli.options import study_named
from optimizer.errors import UsageError
from optimizer.workspace import Workspace
from search_spaces.space import SearchSpace

RUNNER = CliRunner()


@pytest.fixture
def place(tmp_path: Path, space: SearchSpace) -> str:
    searched(Workspace(root=tmp_path / "work"), space, trials=3)
    return str(tmp_path / "work")


@pytest.mark.parametrize("form", [(), ("tiny",), ("--study", "tiny"), ("tiny", "-s", "tiny")])
def test_front_of_a_study_is_shown_however_it_is_named(place: str, form: tuple[str, ...]) -> None:
    ran = RUNNER.invoke(app, ["front", *form, "-w", place])

    assert ran.exit_code == 0, ran.output
    assert "on the front" in ran.stdout


def test_study_that_is_not_there_is_refused_in_both_forms(place: str) -> None:
    said = {
        str(RUNNER.invoke(app, ["front", *form, "-w", place]).exception)
        for form in (("tinny",), ("--study", "tinny"))
    }

    assert len(said) == 1
    assert "tinny" in said.pop()


def test_two_studies_are_one_too_many() -> None:
    with pytest.raises(UsageError, match="'a' and --study 'b' are two studies"):
        study_named("a", "b")


@pytest.mark.parametrize("command", [harvest.front, reporting.report, certifying.certify])
def test_command_about_a_study_has_both_forms(command: object) -> None:
    assert callable(command)
    parameters = inspect.signature(command).parameters

    assert {"study", "named"} <= set(parameters)
    assert next(iter(parameters)) == "study"
