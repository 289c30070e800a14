"""When measuring may stop."""

from dataclasses import replace

import numpy as np
import pytest

from search_spaces.space import MeasuringPlan
from trials.measurement import Block
from trials.measuring.stopping import P99_BLOCKS, next_look, targets_met

PLAN = MeasuringPlan(target_p50=0.1, target_p99=0.3, target_throughput=0.1)


def field(*, blocks: int, requests: int, spread: float) -> list[Block]:
    """Draw blocks of independent log-normal latencies."""
    draws = np.exp(spread * np.random.default_rng(1).normal(size=(blocks, requests)))
    return [
        Block(start_s=float(at), window_s=float(row.sum()), latencies_s=row, batch_size=1)
        for at, row in enumerate(draws)
    ]


def test_looks_grow_by_a_quarter() -> None:
    looks = [8]
    while looks[-1] < 50:
        looks.append(next_look(looks[-1]))

    assert looks == [8, 10, 13, 17, 22, 28, 35, 44, 55]


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
