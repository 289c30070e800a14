from collections.abc import Callable

import pytest

from search_spaces.errors import SpaceError
from search_spaces.feasibility import MOST_POINTS, check_rules
from search_spaces.rules import rule_from_text
from search_spaces.space import Axis, SearchSpace

AXES = (Axis(name="threads", values=(1, 2)), Axis(name="concurrency", values=(1, 4)))


def _check(*texts: str) -> None:
    names = [axis.name for axis in AXES]
    check_rules(AXES, [rule_from_text(text, axes=names) for text in texts])


def test_rules_that_leave_a_point_are_accepted() -> None:
    _check("threads == 2", "concurrency >= threads * 2")


@pytest.mark.parametrize(
    ("texts", "key", "said"),
    [
        (("threads > 0", "threads > 2"), "rules[1]", "because 'threads > 2' alone forbids all"),
        (("threads > 1", "threads < 2"), "rules", "each alone leaves some, together they leave"),
        (("4 / (threads - 1) > 1",), "rules[0]", "has no meaning at threads = 1: 4 / 0 has no"),
        (("threads == 'two'",), "rules[0]", "has no meaning at threads = 1: 1 (a number) never"),
    ],
)
def test_rules_that_leave_nothing_or_mean_nothing_are_refused(
    texts: tuple[str, ...], key: str, said: str
) -> None:
    with pytest.raises(SpaceError) as caught:
        _check(*texts)

    assert caught.value.key == key
    assert said in str(caught.value)


def test_guarded_division_is_accepted() -> None:
    _check("threads == 1 or 4 / (threads - 1) > 1")


def test_space_of_too_many_points_is_refused_with_their_number() -> None:
    many = tuple(Axis(name=name, values=tuple(range(220))) for name in ("a", "b", "c"))

    with pytest.raises(SpaceError, match=r"span 10,648,000 points, at most 10,000,000"):
        check_rules(many, ())

    assert MOST_POINTS == 10_000_000


def test_what_the_rules_leave_is_what_the_space_enumerates(
    fake: str, read: Callable[[str], SearchSpace]
) -> None:
    space = read(
        f"{fake}axes: {{concurrency: [1, 2, 4], threads: [1, 2]}}\n"
        "rules: [concurrency * threads <= 2]\n"
    )

    pairs = [(each.concurrency, dict(each.options)["threads"]) for each in space.deployments()]

    assert pairs == [(1, 1), (1, 2), (2, 1)] * 2
