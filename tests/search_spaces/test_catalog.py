from pathlib import Path

import pytest

from search_spaces.catalog import SHIPPED, space_path
from search_spaces.errors import SpaceError
from search_spaces.files import space_from_yaml


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_space_is_valid_and_has_its_files(name: str) -> None:
    space = space_from_yaml(space_path(name))

    assert space.name == name
    assert next(space.deployments(), None) is not None


def test_catalog_lists_what_lies_in_the_folder() -> None:
    folder = space_path("fake").parent

    assert sorted(path.stem for path in folder.glob("*.yaml")) == sorted(SHIPPED)


def test_shipped_fake_space_has_thousands_of_points_and_two_faults() -> None:
    space = space_from_yaml(space_path("fake"))

    faults = {getattr(variant, "fault", None) for variant in space.variants}

    assert faults == {None, "oom", "crash"}
    assert sum(1 for _ in space.deployments()) == 1_944


def test_path_of_the_users_own_file_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.touch()

    assert space_path(str(path)) == path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fashion_mnits", "did you mean 'fashion-mnist'?"),
        ("", "the space has no name; shipped spaces: fake"),
        (
            "nowhere/x.yaml",
            "shipped spaces: fake, fashion-mnist, fashion-mnist-torch, resnet-tensorrt",
        ),
        pytest.param("x" * 5_000, "cannot be read (File name too long)", id="long"),
    ],
)
def test_neither_shipped_nor_a_file_is_refused_with_the_list(name: str, said: str) -> None:
    with pytest.raises(SpaceError) as caught:
        space_path(name)

    assert said in str(caught.value)


def test_folder_is_refused_with_the_spaces_in_it(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").touch()

    with pytest.raises(SpaceError, match="is a folder; name a file in it: mine"):
        space_path(str(tmp_path))
