"""Which sessions of a search go on, and which of them tells MLflow that it has ended."""

from pathlib import Path

import pytest
from tracking_fakes import EXPERIMENT

from optimizer.tracking.sessions import Sessions


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    return Sessions(tmp_path)


def test_session_that_goes_on_is_another(sessions: Sessions) -> None:
    first = sessions.begin("search", EXPERIMENT)
    second = sessions.begin("search", EXPERIMENT)

    sessions.mark_ending(first)

    assert sessions.others(first, "search")
    assert not sessions.others(second, "search")


def test_of_two_that_end_at_once_neither_leaves_the_end_to_the_other(sessions: Sessions) -> None:
    first = sessions.begin("search", EXPERIMENT)
    second = sessions.begin("search", EXPERIMENT)

    sessions.mark_ending(first)
    sessions.mark_ending(second)

    assert not sessions.others(first, "search")
    assert not sessions.others(second, "search")


def test_session_of_another_search_is_none_of_ours(sessions: Sessions) -> None:
    name = sessions.begin("search", EXPERIMENT)
    sessions.begin("another", EXPERIMENT)

    assert not sessions.others(name, "search")


def test_marking_a_session_that_is_gone_brings_it_not_back(sessions: Sessions) -> None:
    name = sessions.begin("search", EXPERIMENT)
    sessions.end(name)

    sessions.mark_ending(name)

    assert not sessions.others("any", "search")
