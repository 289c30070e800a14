"""Building the engines of a space ahead of time."""

from dataclasses import replace
from pathlib import Path

import pytest
from real_spaces import write_space

from optimizer.building import Built, Standing, build_all, jobs_of
from optimizer.wiring import Place, place_at
from search_spaces.catalog import space_path
from search_spaces.deployment import Scalar
from search_spaces.errors import SpaceError
from search_spaces.files import space_from_yaml
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


def with_axis(space: SearchSpace, name: str, values: tuple[Scalar, ...]) -> SearchSpace:
    axes = tuple(
        replace(axis, values=values) if axis.name == name else axis for axis in space.axes
    )
    return replace(space, axes=axes)


def with_precision(space: SearchSpace, name: str) -> SearchSpace:
    return with_axis(space, "precision", (name,))


@pytest.fixture
def two_nets() -> SearchSpace:
    """Return the shipped space for TensorRT, at one batch size."""
    return with_axis(space_from_yaml(space_path("resnet-tensorrt")), "batch_size", (1,))


def test_each_target_gets_what_it_can_and_the_reason_for_the_rest(
    two_nets: SearchSpace, place: Place
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="builds for GPUs that are not there")
    jobs = jobs_of(two_nets, ["SM75", "SM89"])

    built = build_all(two_nets, jobs, place, workers=2, on_built=lambda _: None)

    cannot = [one for one in built if one.standing is Standing.CANNOT]
    assert {(one.job.target, one.job.deployment.precision.value) for one in cannot} == {
        ("SM75", "fp32"),
        ("SM75", "int8"),
    }
    assert all("compute capability 8.0" in one.reason for one in cannot)
    assert [one.standing for one in built if one not in cannot] == [Standing.BUILT] * 8


def test_target_that_can_build_nothing_costs_the_others_nothing(two_nets: SearchSpace) -> None:
    pytest.importorskip("tensorrt_rtx", reason="knows what its targets lack")
    jobs = jobs_of(with_precision(two_nets, "int8"), ["SM75", "SM89"])

    assert {job.target for job in jobs if job.refusal} == {"SM75"}
    assert {job.target for job in jobs if not job.refusal} == {"SM89"}


def test_precision_that_no_target_has_is_refused(two_nets: SearchSpace) -> None:
    pytest.importorskip("tensorrt_rtx", reason="knows what its targets lack")

    with pytest.raises(SpaceError, match="does not build int8-dynamic"):
        jobs_of(with_precision(two_nets, "int8-dynamic"), ["SM75", "SM89"])
