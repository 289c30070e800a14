"""When an engine is steady, and whether it stays so."""

import numpy as np
import pytest

from trials.measurement import Block, Seconds
from trials.measuring.steadiness import has_level_shift, truncate_warmup


def test_transient_is_cut_where_it_ends() -> None:
    generator = np.random.default_rng(6)
    latencies = 1 + 0.05 * generator.normal(size=400)
    latencies[:60] += np.linspace(3, 1, 60)

    assert 55 <= truncate_warmup(latencies) <= 75


def test_drift_without_end_cuts_half_or_more() -> None:
    latencies = np.linspace(1.0, 2.0, 500)

    assert 2 * truncate_warmup(latencies) >= latencies.size


@pytest.mark.parametrize("count", [0, 1, 19])
def test_a_few_requests_cannot_show_a_transient(count: int) -> None:
    assert truncate_warmup(np.linspace(9.0, 1.0, count)) == 0


def test_steady_requests_are_all_kept() -> None:
    assert truncate_warmup(np.full(500, 0.001)) == 0


def blocks_at(levels: Seconds, *, seed: int = 1, scatter: float = 0.01) -> list[Block]:
    """Make blocks of 250 requests whose mean latency follows levels with some scatter."""
    generator = np.random.default_rng(seed)
    noisy = levels * generator.lognormal(0, scatter, levels.size)
    return [
        Block(
            start_s=float(at), window_s=250 * level, latencies_s=np.full(250, level), batch_size=1
        )
        for at, level in enumerate(noisy.tolist())
    ]


def stepped(*parts: tuple[int, float]) -> Seconds:
    """Join stretches of (blocks, level)."""
    return np.concatenate([np.full(count, level) for count, level in parts])


@pytest.mark.parametrize(
    "levels",
    [
        stepped((12, 1.0), (12, 1.1)),
        stepped((12, 1.1), (12, 1.0)),
        stepped((24, 1.0), (8, 1.2)),
        stepped((12, 1.0), (9, 1.2), (9, 1.0)),
    ],
    ids=["slower", "faster", "late", "for a while"],
)
def test_jump_of_the_level_is_told(levels: Seconds) -> None:
    assert has_level_shift(blocks_at(levels))


@pytest.mark.parametrize(
    "levels",
    [
        np.ones(30),
        stepped((15, 1.0), (15, 1.04)),
        stepped((9, 1.0), (9, 2.0)),
        1 + 0.05 * np.sin(np.arange(40)),
    ],
    ids=["level", "less than 5 %", "too few blocks", "waves"],
)
def test_what_is_no_jump_is_not_told(levels: Seconds) -> None:
    assert not has_level_shift(blocks_at(levels))


def test_rates_without_any_scatter_that_jump_have_jumped() -> None:
    assert has_level_shift(blocks_at(stepped((10, 1.0), (10, 2.0)), scatter=0.0))
    assert not has_level_shift(blocks_at(np.ones(20), scatter=0.0))


def test_levels_that_wander_seldom_raise_a_false_alarm() -> None:
    """3.6 % do, by simulation; of 100, more than 12 would in 1 of 7,000 draws."""
    alarms = 0

    for seed in range(100):
        shocks = np.random.default_rng(seed).normal(0, 0.05 * np.sqrt(0.75), 60)
        wandering = np.zeros(60)
        for at in range(1, 60):
            wandering[at] = 0.5 * wandering[at - 1] + shocks[at]
        alarms += has_level_shift(blocks_at(np.exp(wandering[40:]), seed=seed))

    assert alarms <= 12
