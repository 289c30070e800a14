"""Resident memory as the kernel counts it."""

import mmap
from pathlib import Path

import numpy as np
import pytest

from trials.measuring.memory import ResidentMemory, is_told

_MB = 1_000_000
_SLACK = 2 * _MB  # of a test's own process: what others of its threads and libraries do

pytestmark = pytest.mark.skipif(not is_told(), reason="this kernel does not tell")


def taken(size: int) -> mmap.mmap:
    """Take fresh memory from the kernel and touch all of it."""
    held = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    np.frombuffer(held, np.uint8)[:: mmap.PAGESIZE] = 1
    return held


def test_what_is_held_counts_and_what_was_given_back_does_not() -> None:
    memory = ResidentMemory()

    held = taken(80 * _MB)
    with_it = memory.held_bytes()
    held.close()

    assert with_it == pytest.approx(80 * _MB, abs=_SLACK)
    assert memory.held_bytes() == pytest.approx(0, abs=_SLACK)


def test_peak_holds_what_was_given_back_meanwhile() -> None:
    memory = ResidentMemory()

    taken(80 * _MB).close()

    assert memory.peak_bytes() == pytest.approx(80 * _MB, abs=_SLACK)


def test_what_was_held_or_peaked_before_does_not_count() -> None:
    taken(80 * _MB).close()
    held = taken(40 * _MB)

    memory = ResidentMemory()

    assert memory.held_bytes() == pytest.approx(0, abs=_SLACK)
    assert memory.peak_bytes() == pytest.approx(0, abs=_SLACK)
    held.close()


def test_pages_of_files_do_not_count(tmp_path: Path) -> None:
    np.save(tmp_path / "weights.npy", np.ones(80 * _MB, np.uint8))
    memory = ResidentMemory()

    mapped = np.load(tmp_path / "weights.npy", mmap_mode="r")

    assert mapped.sum() == 80 * _MB
    assert memory.held_bytes() == pytest.approx(0, abs=_SLACK)
    assert memory.peak_bytes() == pytest.approx(0, abs=_SLACK)


def test_memory_that_was_reserved_and_not_touched_does_not_count() -> None:
    memory = ResidentMemory()

    reserved = np.empty(800 * _MB, np.uint8)

    assert memory.held_bytes() == pytest.approx(0, abs=_SLACK)
    assert reserved.size == 800 * _MB
