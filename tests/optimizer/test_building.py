"""Building the engines of a space ahead of time."""

from pathlib import Path

import pytest
from real_spaces import write_space

from optimizer.building import Built, Standing, build_all, jobs_of
from optimizer.wiring import Place, place_at
from search_spaces.space import SearchSpace
from trials.errors import UnsupportedError


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return place_at(tmp_path / "trifront", None)


def build(space: SearchSpace, place: Place) -> tuple[Built, ...]:
    told: list[Built] = []
    built = build_all(space, jobs_of(space, ()), place, workers=2, on_built=told.append)
    assert {id(one) for one in built} == {id(one) for one in told}
    return built


def test_each_engine_is_built_once(tmp_path: Path, place: Place) -> None:
    space = write_space(tmp_path)

    built = build(space, place)

    wanted = {(one.job.deployment.variant, one.job.deployment.precision) for one in built}
    assert len(built) == len(wanted) == 2
    assert all(one.standing is Standing.BUILT and one.size_bytes for one in built)


def test_what_was_built_is_found(tmp_path: Path, place: Place) -> None:
    space = write_space(tmp_path)
    first = build(space, place)

    again = build(space, place)

    assert [one.standing for one in again] == [Standing.FOUND] * 2
    assert [one.size_bytes for one in again] == [one.size_bytes for one in first]


def test_other_devices_are_for_backends_that_build_for_them(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="for the machine that it runs on, not for SM89"):
        jobs_of(write_space(tmp_path), ["SM89"])
