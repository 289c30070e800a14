"""Peak memory as the kernel counts it."""

from mmap import PAGESIZE

import numpy as np

from trials.measuring.memory import PeakMemory

_MB = 1_000_000


def test_peak_holds_what_was_allocated_and_freed_meanwhile() -> None:
    memory = PeakMemory()

    held = np.ones(80 * _MB, np.uint8)
    assert held[-1] == 1
    del held

    assert memory.peak_bytes() >= 75 * _MB  # what was free before may have been used


def test_what_was_held_before_does_not_count() -> None:
    held = np.ones(80 * _MB, np.uint8)

    memory = PeakMemory()

    assert memory.peak_bytes() < 40 * _MB
    assert held[0] == 1


def test_earlier_peak_does_not_count() -> None:
    PeakMemory()
    held = np.ones(80 * _MB, np.uint8)
    assert held[0] == 1
    del held

    memory = PeakMemory()

    assert memory.peak_bytes() < 40 * _MB


def test_peak_is_never_below_a_page_for_its_logarithm_is_told() -> None:
    held = np.ones(80 * _MB, np.uint8)
    memory = PeakMemory()

    del held

    assert memory.peak_bytes() >= PAGESIZE


def test_surplus_is_taken_off() -> None:
    memory = PeakMemory()

    held = np.ones(80 * _MB, np.uint8)

    assert memory.peak_bytes(surplus_bytes=60 * _MB) < 60 * _MB
    assert held[0] == 1
