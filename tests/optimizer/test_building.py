"""Building the engines of a space ahead of time."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from real_spaces import write_space

from optimizer.building import Built, Job, Standing, build_all, elsewhere, jobs_of
from optimizer.wiring import Place, place_at
from search_spaces.catalog import space_path
from search_spaces.deployment import Scalar
from search_spaces.errors import SpaceError
from search_spaces.files import space_from_yaml
from search_spaces.space import Axis, SearchSpace
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

    with pytest.raises(SpaceError, match="does not build fp8"):
        jobs_of(with_precision(two_nets, "fp8"), ["SM75", "SM86"])


def with_option(space: SearchSpace, name: str, *values: Scalar) -> SearchSpace:
    return replace(space, axes=(*space.axes, Axis(name=name, values=values)))


@pytest.fixture
def one_net() -> SearchSpace:
    """Return the shipped space for TensorRT, with one variant in fp16."""
    shipped = space_from_yaml(space_path("resnet-tensorrt"))
    return with_axis(with_precision(shipped, "fp16"), "variant", ("resnet-w16",))


def test_one_dynamic_engine_serves_every_batch_size_of_a_space(
    one_net: SearchSpace, place: Place
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="builds for GPUs that are not there")
    space = with_option(
        with_axis(one_net, "batch_size", (1, 8)), "batch_profile", "dynamic", "fixed"
    )
    jobs = jobs_of(space, ["SM89"])

    built = build_all(space, jobs, place, workers=2, on_built=lambda _: None)

    sizes = {(job.engine_options, job.batch_size, job.largest_batch) for job in jobs}
    assert sizes == {
        ((("batch_profile", "dynamic"),), None, 8),
        ((("batch_profile", "fixed"),), 1, 1),
        ((("batch_profile", "fixed"),), 8, 8),
    }
    assert [one.standing for one in built] == [Standing.BUILT] * 3
    assert len({one.size_bytes for one in built}) == 3


def test_what_rtx_ignores_is_no_axis_of_its_targets(one_net: SearchSpace) -> None:
    pytest.importorskip("tensorrt_rtx", reason="knows what it ignores")
    space = with_option(one_net, "optimization_level", 2, 5)

    with pytest.raises(
        SpaceError, match=r"ignores optimization_level here: .*; take the axis out"
    ):
        jobs_of(space, ["SM89"])


def children() -> set[psutil.Process]:
    """List the processes of this one that live."""
    return {each for each in psutil.Process().children() if each.status() != psutil.STATUS_ZOMBIE}


def killed_once() -> Callable[[Job, str], None]:
    """Kill the building process of the first engine while it is built."""
    killed: list[int] = []
    others = children()  # of tests of before

    def kill(_job: Job, phase: str) -> None:
        if phase.startswith("building") and not killed:
            (child,) = children() - others
            killed.append(child.pid)
            child.kill()

    return kill


def test_killed_builder_costs_one_engine_which_the_same_command_builds(
    one_net: SearchSpace, place: Place
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tells how far a build is")
    space = with_axis(one_net, "batch_size", (1, 2, 4))
    jobs = jobs_of(space, ["SM89"])

    first = build_all(
        space, jobs, place, workers=1, on_built=lambda _: None, on_phase=killed_once()
    )
    again = build_all(space, jobs, place, workers=1, on_built=lambda _: None)

    assert [one.standing for one in first] == [Standing.FAILED, Standing.BUILT, Standing.BUILT]
    assert "killed by SIGKILL" in first[0].reason
    assert [one.standing for one in again] == [Standing.BUILT, Standing.FOUND, Standing.FOUND]


def test_interrupted_building_leaves_no_process_and_goes_on_later(
    one_net: SearchSpace, place: Place
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="builds for GPUs that are not there")
    space = with_axis(one_net, "batch_size", (1, 2, 4, 8))
    jobs = jobs_of(space, ["SM89"])

    others = children()

    def interrupt(_: Built) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_all(space, jobs, place, workers=2, on_built=interrupt)

    assert children() <= others
    again = build_all(space, jobs, place, workers=2, on_built=lambda _: None)
    standings = [one.standing for one in again]
    assert standings.count(Standing.FOUND) >= 1
    assert set(standings) <= {Standing.FOUND, Standing.BUILT}


def test_damaged_engine_is_built_anew(one_net: SearchSpace, place: Place) -> None:
    pytest.importorskip("tensorrt_rtx", reason="builds for GPUs that are not there")
    space = with_axis(one_net, "batch_size", (1,))
    jobs = jobs_of(space, ["SM89"])
    build_all(space, jobs, place, workers=1, on_built=lambda _: None)
    (payload,) = (place.workspace.store / "engine").rglob("payload")
    content = payload.read_bytes()
    payload.write_bytes(content[: len(content) // 2])

    (built,) = build_all(space, jobs, place, workers=1, on_built=lambda _: None)

    assert built.standing is Standing.BUILT
    assert payload.read_bytes() == content


def test_check_says_which_targets_build_a_precision_and_which_none(two_nets: SearchSpace) -> None:
    pytest.importorskip("tensorrt_rtx", reason="knows what its targets lack")
    space = with_axis(two_nets, "precision", ("fp16", "int8", "int8-dynamic"))

    lines = elsewhere(with_option(space, "optimization_level", 5))

    assert lines[0] == "fp16: can be built for SM75, SM80, SM86, SM89, SM120, SM121"
    assert lines[1].startswith(
        "int8: can be built for SM80, SM86, SM89, SM120, SM121, not for SM75:"
    )
    assert lines[2].startswith("int8-dynamic: no target builds it: TensorRT wants the scales")
    assert all("ignores optimization_level here" in line for line in lines[3:])
    assert len(lines) == 3 + 6


def test_backend_of_this_machine_alone_builds_for_no_other(tmp_path: Path) -> None:
    assert elsewhere(write_space(tmp_path)) == ()


def test_engine_that_needs_more_workspace_than_allowed_cannot_be_built(
    one_net: SearchSpace, place: Place
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="builds for GPUs that are not there")
    space = with_option(with_axis(one_net, "batch_size", (256,)), "workspace_mib", 1)
    jobs = jobs_of(space, ["SM89"])

    (built,) = build_all(space, jobs, place, workers=1, on_built=lambda _: None)

    assert built.standing is Standing.CANNOT
    assert "of 1 MiB (workspace_mib)" in built.reason
