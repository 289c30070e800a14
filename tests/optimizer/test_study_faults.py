"""A study database that was damaged, edited, or written by another version."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from search_fakes import SPACE, searched

from optimizer.errors import OptimizerError, StorageError, StudyError
from optimizer.wiring import Place, names_of_studies, study_at
from optimizer.workspace import Workspace
from search_spaces.files import space_from_yaml


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a study of two trials."""
    folder = tmp_path_factory.mktemp("sound")
    (folder / "tiny.yaml").write_text(SPACE, encoding="utf-8")
    workspace = Workspace(root=folder / "work")
    searched(workspace, space_from_yaml(folder / "tiny.yaml"), trials=2)
    return workspace.root


@pytest.fixture
def place(sound: Path, tmp_path: Path) -> Place:
    """A copy of it, to be damaged."""
    root = shutil.copytree(sound, tmp_path / "work")
    return Place(workspace=Workspace(root=root))


def edited(place: Place, statement: str) -> None:
    with closing(sqlite3.connect(place.workspace.root / "studies.db")) as database, database:
        assert database.execute(statement).rowcount > 0


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        (
            "UPDATE trial_user_attributes SET value_json = '\"{}\"' WHERE trial_id = 2",
            r"trial 1 of study 'tiny' cannot be read: .*Field required",
        ),
        (
            "UPDATE study_user_attributes SET value_json = '\"{}\"' WHERE key = 'trifront:space'",
            r"study 'tiny' cannot be read: .*Field required",
        ),
        (
            "DELETE FROM study_user_attributes WHERE key = 'trifront:digests'",
            r"study 'tiny' cannot be read: 'trifront:digests' is missing",
        ),
        (
            "UPDATE study_user_attributes SET value_json = '99' WHERE key = 'trifront:format'",
            "study 'tiny' is of format 99",
        ),
    ],
)
def test_edited_study_is_one_clear_line(place: Place, statement: str, what: str) -> None:
    edited(place, statement)

    with pytest.raises(StudyError, match=what) as caught:
        study_at(place, None)

    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.hint


def test_edited_verdict_is_one_clear_line(place: Place) -> None:
    edited(
        place,
        "UPDATE study_user_attributes SET value_json = '\"{}\"' "
        "WHERE key LIKE 'trifront:report:%'",
    )
    study = study_at(place, None)

    with pytest.raises(StudyError, match=r"verdict on trial \d of study 'tiny' cannot be read"):
        study.verdicts()


def test_study_of_another_version_does_not_hide_the_others(place: Place) -> None:
    edited(
        place,
        "UPDATE study_user_attributes SET value_json = '99' WHERE key = 'trifront:format'",
    )

    names = names_of_studies(place)

    assert names == ["tiny"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE trials SET datetime_complete = '2001-01-01 00:00:00.000000'",
        "UPDATE trials SET datetime_complete = '2999-01-01 00:00:00.000000'",
    ],
)
def test_clock_that_was_set_during_a_trial_neither_spends_a_budget_nor_refills_it(
    place: Place, statement: str
) -> None:
    edited(place, statement)

    records = study_at(place, None).records()

    longest_s = 3 * study_at(place, None).space.plan.deadline_s + 1
    assert len(records) == 2
    assert all(0 < one.finished_s - one.started_s < longest_s for one in records)


def newer(place: Place) -> None:
    edited(place, "UPDATE alembic_version SET version_num = 'v9.9.9.a'")


def cut_short(place: Place) -> None:
    file = place.workspace.root / "studies.db"
    file.write_bytes(file.read_bytes()[:20_000])


def something_else(place: Place) -> None:
    (place.workspace.root / "studies.db").write_text("notes of mine\n" * 99, encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "hint"),
    [
        (newer, "that version"),
        (cut_short, "put back a copy"),
        (something_else, "name another"),
    ],
)
def test_database_that_cannot_be_read_is_one_clear_line(
    place: Place, damage: Callable[[Place], None], hint: str
) -> None:
    damage(place)

    with pytest.raises(StorageError, match="study storage") as caught:
        study_at(place, None)

    assert len(str(caught.value).splitlines()) == 1
    assert hint in caught.value.hint


def test_database_without_studies_says_how_to_begin_one(place: Place) -> None:
    edited(place, "DELETE FROM studies")

    with pytest.raises(OptimizerError, match="there is no study") as caught:
        names_of_studies(place)

    assert "trifront search" in caught.value.hint
