"""When measuring may stop."""

from dataclasses import replace

import numpy as np
import pytest

from search_spaces.metrics import METRICS
from search_spaces.space import Constraint, MeasuringPlan
from trials.measurement import Block, Estimate
from trials.measuring.statistics import quantile
from trials.measuring.stopping import (
    P99_BLOCKS,
    Question,
    confidence_at,
    is_decided,
    misses,
    next_look,
    targets_met,
)

PLAN = MeasuringPlan(target_p50=0.1, target_p99=0.3, target_throughput=0.1)


def field(*, blocks: int, requests: int, spread: float) -> list[Block]:
    """Draw blocks of independent log-normal latencies."""
    draws = np.exp(spread * np.random.default_rng(1).normal(size=(blocks, requests)))
    return [
        Block(start_s=float(at), window_s=float(row.sum()), latencies_s=row, batch_size=1)
        for at, row in enumerate(draws)
    ]


def test_looks_grow_by_a_quarter_until_a_p99_is_believed_and_by_a_twelfth_then() -> None:
    looks = [8]
    while looks[-1] < 50:
        looks.append(next_look(looks[-1]))

    assert looks == [8, 10, 13, 17, 20, 22, 24, 26, 29, 32, 35, 38, 42, 46, 50]


def test_narrow_intervals_meet_the_targets() -> None:
    assert targets_met(field(blocks=P99_BLOCKS, requests=200, spread=0.1), PLAN)


def test_p99_is_not_believed_before_block_twenty() -> None:
    assert not targets_met(field(blocks=P99_BLOCKS - 1, requests=200, spread=0.0), PLAN)


@pytest.mark.parametrize(
    "plan",
    [
        replace(PLAN, target_p50=1e-6),
        replace(PLAN, target_p99=1e-6),
        replace(PLAN, target_throughput=1e-6),
    ],
)
def test_every_target_must_be_met(plan: MeasuringPlan) -> None:
    blocks = field(blocks=P99_BLOCKS, requests=200, spread=0.1)

    assert not targets_met(blocks, plan)


def test_unbounded_p99_does_not_meet_any_target() -> None:
    blocks = field(blocks=P99_BLOCKS, requests=5, spread=1e-6)

    assert not targets_met(blocks, PLAN)


def bound(metric: str, value: float) -> Constraint:
    """Bound a metric on its bad side."""
    upper = METRICS[metric].direction.value == "minimize"
    return Constraint(metric=METRICS[metric], upper=upper, bound=value)


@pytest.mark.parametrize(
    ("wanted", "decided"),
    [
        (bound("latency_p50_ms", 500.0), True),
        (bound("latency_p50_ms", 1001.0), False),
        (bound("throughput_sps", 2.0), True),
        (bound("throughput_sps", 0.9), False),
        (bound("accuracy", 0.9), False),
    ],
    ids=str,
)
def test_bound_that_is_missed_for_certain_decides(wanted: Constraint, *, decided: bool) -> None:
    """Latencies are about a second, so rates about one a second; blocks tell no accuracy."""
    blocks = field(blocks=8, requests=100, spread=0.1)

    assert is_decided(blocks, [wanted], look=1) is decided


def test_one_missed_bound_of_several_decides() -> None:
    blocks = field(blocks=8, requests=100, spread=0.1)

    assert is_decided(blocks, [bound("throughput_sps", 0.1), bound("latency_p50_ms", 1.0)], look=1)


def test_all_looks_together_spend_the_error_of_one_interval() -> None:
    spent = [1 - confidence_at(look) for look in range(1, 10_000)]

    assert sum(spent) <= 0.05
    assert sum(spent) == pytest.approx(0.05, rel=1e-3)
    assert spent == sorted(spent, reverse=True)


def test_later_looks_want_more_certainty() -> None:
    blocks = field(blocks=8, requests=100, spread=0.3)
    p50 = quantile(blocks, 0.5)
    assert p50.low is not None
    close = bound("latency_p50_ms", 1e3 * (p50.low - 0.6 * (p50.value - p50.low)))

    decided = [is_decided(blocks, [close], look=look) for look in range(1, 1000)]

    assert decided == sorted(decided, reverse=True)
    assert len(set(decided)) == 2


def test_bound_at_the_truth_is_seldom_called_missed() -> None:
    """2.5 % may be; of 200, more than 12 would in 1 of 500 draws."""
    asked = Question(bounds=(bound("latency_p50_ms", 1000.0),), is_out=False)
    wrong = 0
    counts = [8]
    while counts[-1] < 35:
        counts.append(next_look(counts[-1]))

    for seed in range(200):
        draws = np.random.default_rng(seed).lognormal(0, 0.3, (35, 100))
        blocks = [
            Block(start_s=0.0, window_s=float(row.sum()), latencies_s=row, batch_size=1)
            for row in draws
        ]
        wrong += any(asked.answered(blocks[:count], at) for at, count in enumerate(counts, 1))

    assert wrong <= 12


def test_what_is_known_to_be_out_needs_no_certainty_about_its_speed() -> None:
    blocks = field(blocks=8, requests=100, spread=0.1)

    assert Question(bounds=(), is_out=True).answered(blocks, 1)
    assert not Question(bounds=(), is_out=False).answered(blocks, 1)


def test_nothing_is_decided_by_speed_while_others_take_the_processor() -> None:
    blocks = field(blocks=8, requests=100, spread=0.1)
    asked = Question(bounds=(bound("latency_p50_ms", 1.0),), is_out=False)

    assert asked.answered(blocks, 1)
    assert not asked.answered(blocks, 1, disturbed=True)
    assert replace(asked, is_out=True).answered(blocks, 1, disturbed=True)


@pytest.mark.parametrize(
    ("estimate", "missed"),
    [
        (Estimate(value=3.0, low=2.5, high=None), True),
        (Estimate(value=3.0, low=1.5, high=None), False),
        (Estimate(value=3.0, low=None, high=None), False),
    ],
    ids=["beyond", "across", "unknown"],
)
def test_bound_is_missed_with_the_better_end_too(estimate: Estimate, *, missed: bool) -> None:
    assert misses(estimate, bound("latency_p99_ms", 2.0)) is missed
