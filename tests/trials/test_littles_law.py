"""Little's law holds on true stamps and is broken by the mistakes that it is there for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from trials.errors import StampsError
from trials.measurement import Block
from trials.measuring.littles_law import check_littles_law, check_room, check_window

Stamps = NDArray[np.int64]
WINDOW_NS = 1_000_000_000


def block_of(begins: Stamps, ends: Stamps, *, window_s: float = 1.0) -> Block:
    return Block(start_s=0.0, window_s=window_s, latencies_s=(ends - begins) / 1e9, batch_size=1)


def stamps(count: int = 100) -> tuple[Stamps, Stamps]:
    generator = np.random.default_rng(0)
    begins = np.sort(generator.integers(0, WINDOW_NS, count))
    return begins, begins + generator.integers(1_000, 20_000_000, count)


@given(
    begins=st.lists(st.integers(0, WINDOW_NS), min_size=1, max_size=40),
    lasts=st.integers(1, WINDOW_NS),
)
def test_true_stamps_obey_the_law(begins: list[int], lasts: int) -> None:
    came = np.array(begins)
    left = came + lasts

    check_littles_law(
        block_of(came, left), begins_ns=came, ends_ns=left[::-1], window_ns=WINDOW_NS
    )


def test_stamps_of_another_block_break_the_law() -> None:
    begins, ends = stamps()

    with pytest.raises(StampsError, match="Little's law"):
        check_littles_law(
            block_of(begins, ends),
            begins_ns=begins[:-5],
            ends_ns=ends[:-5],
            window_ns=WINDOW_NS,
        )


def test_latency_from_the_start_breaks_the_law_of_requests_that_waited() -> None:
    """What coordinated omission looks like from here: requests are in the system unseen."""
    begins, ends = stamps()
    started = ends - 1_000

    with pytest.raises(StampsError, match="Little's law"):
        check_littles_law(
            block_of(started, ends), begins_ns=begins, ends_ns=ends, window_ns=WINDOW_NS
        )


def test_end_before_any_begin_is_found() -> None:
    with pytest.raises(StampsError, match="ends before any begins"):
        check_room(np.array([5]), np.array([4]), room=1)


def test_one_may_begin_when_another_ends() -> None:
    check_room(np.array([0, 5]), np.array([5, 9]), room=1)


def test_more_than_there_is_room_for_is_found() -> None:
    with pytest.raises(StampsError, match="2 were served at once where 1 can be"):
        check_room(np.array([0, 4]), np.array([5, 9]), room=1)


@pytest.mark.parametrize(("factor", "said"), [(2.0, "longer than all"), (0.5, "cannot be busy")])
def test_wrong_window_of_a_closed_loop_is_noticed(factor: float, said: str) -> None:
    """Two workers, each busy from one request to the next."""
    begins = np.concatenate([np.arange(0, 10**9, 10**7)] * 2)
    ends = begins + 10**7

    check_window(begins, ends, from_ns=0, window_ns=1e9, room=2)
    with pytest.raises(StampsError, match=said):
        check_window(begins, ends, from_ns=0, window_ns=factor * 1e9, room=2)
