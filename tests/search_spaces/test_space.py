from collections.abc import Callable

import pytest

from search_spaces.metrics import METRICS
from search_spaces.space import Constraint, Objective, SearchSpace


def _constraint(name: str, *, upper: bool, bound: float) -> Constraint:
    return Constraint(metric=METRICS[name], upper=upper, bound=bound)


def test_violation_of_a_cost_is_in_decades() -> None:
    """Milliseconds and megabytes then weigh alike in a sampler."""
    constraint = _constraint("latency_p99_ms", upper=True, bound=10)

    assert constraint.violation(100) == pytest.approx(1)
    assert constraint.violation(10) == 0
    assert constraint.violation(1) == pytest.approx(-1)


def test_violation_of_a_score_is_a_difference() -> None:
    constraint = _constraint("accuracy", upper=False, bound=0.9)

    assert constraint.violation(0.8) == pytest.approx(0.1)
    assert constraint.violation(0.95) == pytest.approx(-0.05)


def test_constraint_reads_as_it_was_written() -> None:
    assert str(_constraint("accuracy", upper=False, bound=0.85)) == "accuracy >= 0.85"
    assert str(_constraint("load_ms", upper=True, bound=15)) == "load_ms <= 15"


def test_better_follows_the_direction() -> None:
    cost, score = (
        Objective(metric=METRICS[name], direction=METRICS[name].direction)
        for name in ("load_ms", "accuracy")
    )

    assert cost.better(1, 2)
    assert score.better(0.2, 0.1)
    assert not cost.better(1, 1)


def test_variants_and_axes_are_found_by_name(
    fake: str, read: Callable[[str], SearchSpace]
) -> None:
    space = read(fake)

    assert space.variant("wide").name == "wide"
    assert space.axis("precision").values == ("fp32",)
    for find in (space.variant, space.axis):
        with pytest.raises(KeyError, match="absent"):
            find("absent")
