"""Which flavour of TensorRT to install for which GPU."""

from importlib.util import find_spec

import pytest
from trt_flavours import data_centre, watched_rtx

from trials.backends.trt_advice import advice
from trials.backends.trt_library import Library
from trials.errors import UnsupportedError
from trials.machine.nvml import Card

needs_rtx = pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed"
)


def card(name: str, capability: str) -> Card:
    return Card(
        uuid="GPU-1",
        name=name,
        compute_capability=capability,
        driver="590.44",
        is_mig=None,
        is_persistent=None,
        processes=0,
    )


ADA, HOPPER = card("NVIDIA L4", "8.9"), card("NVIDIA H200", "9.0")


def absent() -> Library:
    raise UnsupportedError("TensorRT is not installed")


@pytest.mark.parametrize(
    ("gpu", "mend"),
    [
        (None, "'trifront[tensorrt-rtx]' builds engines without a GPU, for SM75, SM80"),
        (ADA, "'trifront[tensorrt]' or pip install 'trifront[tensorrt-rtx]': both serve"),
        (HOPPER, "'trifront[tensorrt]' serves the NVIDIA H200 (SM90)"),
    ],
)
def test_gpu_decides_what_is_to_be_installed(gpu: Card | None, mend: str) -> None:
    found = advice(load=absent, look=lambda: gpu)

    assert not found.is_there
    assert mend in found.mend


@needs_rtx
def test_rtx_says_what_it_builds_for() -> None:
    found = advice(load=watched_rtx, look=lambda: None)

    assert found.is_there
    assert "(for RTX), builds for SM75, SM80, SM86" in found.detail
    assert found.mend == ""


@needs_rtx
def test_targets_that_are_advised_are_those_of_the_library() -> None:
    listed = ", ".join(watched_rtx().targets())

    assert advice(load=absent, look=lambda: None).mend.endswith(f"for {listed}")


@needs_rtx
def test_gpu_that_rtx_does_not_list_wants_the_other_flavour() -> None:
    found = advice(load=watched_rtx, look=lambda: HOPPER)

    assert "'trifront[tensorrt]': TensorRT for RTX does not list the NVIDIA H200" in found.mend


@needs_rtx
def test_data_centre_flavour_names_its_gpu_or_says_that_it_needs_one() -> None:
    with_gpu = advice(load=data_centre, look=lambda: ADA)
    without = advice(load=data_centre, look=lambda: None)

    assert with_gpu.is_there
    assert "11.1 (data-centre), for the NVIDIA L4 (SM89)" in with_gpu.detail
    assert not without.is_there
    assert "without a GPU" in without.mend
