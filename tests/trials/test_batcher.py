"""The dynamic batcher: what a server that sees only the past would send, and when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trials.measuring.batcher import Batcher

MS = 1_000_000


def server(batcher: Batcher, due: list[int], free: int) -> tuple[int, int]:
    """Decide at every arrival, at the delay's end and when an instance is free; nothing else."""
    goals = [size for size in batcher.preferred if size <= batcher.largest] or [batcher.largest]
    moments = sorted({free, due[0] + batcher.max_delay_ns, *due})
    for moment in (each for each in moments if each >= max(free, due[0])):
        waiting = min(sum(each <= moment for each in due), batcher.largest)
        filled = [size for size in goals if size <= waiting]
        is_late = moment >= due[0] + batcher.max_delay_ns
        if filled and not (is_late and batcher.max_delay_ns > 0):
            return moment, max(filled)
        if is_late:
            return moment, waiting
    raise AssertionError


@given(
    due=st.lists(st.integers(0, 60), min_size=1, max_size=30).map(sorted),
    free=st.integers(0, 80),
    batcher=st.builds(
        Batcher,
        largest=st.integers(1, 9),
        max_delay_ns=st.integers(0, 25),
        preferred=st.sets(st.integers(1, 9), max_size=3).map(sorted).map(tuple),
    ),
)
def test_looking_ahead_decides_like_a_server_that_sees_only_the_past(
    due: list[int], free: int, batcher: Batcher
) -> None:
    assert batcher.next_batch(due, 0, free) == server(batcher, due, free)


def test_without_a_delay_a_free_instance_takes_what_there_is() -> None:
    batcher = Batcher(largest=8, max_delay_ns=0)

    assert batcher.next_batch([0, 1 * MS, 2 * MS, 9 * MS], 0, 3 * MS) == (3 * MS, 3)


def test_lone_request_leaves_when_its_delay_is_over() -> None:
    batcher = Batcher(largest=8, max_delay_ns=2 * MS)

    assert batcher.next_batch([1 * MS, 9 * MS], 0, 0) == (3 * MS, 1)


def test_full_batch_leaves_with_its_last_request() -> None:
    batcher = Batcher(largest=2, max_delay_ns=50 * MS)

    assert batcher.next_batch([1 * MS, 4 * MS, 5 * MS], 0, 0) == (4 * MS, 2)


def test_preferred_size_leaves_before_the_largest_is_full() -> None:
    batcher = Batcher(largest=8, max_delay_ns=50 * MS, preferred=(2, 4))

    assert batcher.next_batch([1 * MS, 2 * MS, 3 * MS], 0, 0) == (2 * MS, 2)


def test_backlog_fills_the_largest_preferred_size() -> None:
    batcher = Batcher(largest=8, max_delay_ns=50 * MS, preferred=(2, 4))

    assert batcher.next_batch([0] * 7, 0, 1 * MS) == (1 * MS, 4)


def test_backlog_whose_delay_is_over_leaves_whole_preferred_size_or_not() -> None:
    """By hand from Triton's GetDynamicBatch: preferred sizes count while the delay is not over."""
    batcher = Batcher(largest=8, max_delay_ns=1 * MS, preferred=(4,))

    assert batcher.next_batch([0] * 7, 0, 10 * MS) == (10 * MS, 7)
    assert batcher.next_batch([0] * 12, 0, 10 * MS) == (10 * MS, 8)
    assert batcher.next_batch([0] * 7, 0, 0) == (0, 4)


def test_backlog_without_a_delay_leaves_in_preferred_sizes() -> None:
    batcher = Batcher(largest=8, max_delay_ns=0, preferred=(4,))

    assert batcher.next_batch([0] * 7, 0, 10 * MS) == (10 * MS, 4)


def test_batch_of_nothing_is_no_rule() -> None:
    with pytest.raises(ValueError, match="no rule"):
        Batcher(largest=0, max_delay_ns=0)
