"""Two engines in turns: who has which block, and that both begin alike often."""

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from gpu_scripted import STATE, ScriptedGpu

from trials.machine.gpu_source import GpuState, Reason
from trials.measurement import Block
from trials.measuring.closed_loop import Quota
from trials.measuring.surroundings import Surroundings
from trials.measuring.turns import drive_in_turns


@dataclass(kw_only=True)
class Clock:
    """The time that two loops share, and who drove when."""

    now_s: float = 0.0
    order: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class FixedLoop:
    """A loop whose requests all take the same time."""

    name: str
    latency_s: float
    clock: Clock
    threads: tuple[int, ...] = ()

    def now_s(self) -> float:
        return self.clock.now_s

    def cold_call(self) -> float:
        self.clock.now_s += self.latency_s
        return self.latency_s

    def block(self, quota: Quota) -> Block:
        count = max(quota.requests, round(quota.window_s / self.latency_s))
        start_s, window_s = self.clock.now_s, count * self.latency_s
        self.clock.now_s += window_s
        self.clock.order.append(self.name)
        return Block(
            start_s=start_s,
            window_s=window_s,
            latencies_s=np.full(count, self.latency_s),
            batch_size=1,
        )


def loops(clock: Clock) -> tuple[FixedLoop, FixedLoop]:
    return (
        FixedLoop(name="old", latency_s=1e-3, clock=clock),
        FixedLoop(name="new", latency_s=2e-3, clock=clock),
    )


def test_each_pair_has_a_block_of_each_engine_beside_each_other() -> None:
    old, new = loops(Clock())

    turns = drive_in_turns(old, new, fours=4, block_s=0.1, random=np.random.default_rng(0))

    assert len(turns.pairs) == 8
    for pair in turns.pairs:
        assert (pair.old.latencies_s[0], pair.new.latencies_s[0]) == (1e-3, 2e-3)
        assert abs(pair.new.start_s - pair.old.start_s) < 0.25


def test_within_four_blocks_each_engine_is_before_and_behind_the_other() -> None:
    old, new = loops(Clock())

    turns = drive_in_turns(old, new, fours=6, block_s=0.1, random=np.random.default_rng(0))

    news_first = [pair.new.start_s < pair.old.start_s for pair in turns.pairs]
    assert [a != b for a, b in zip(news_first[::2], news_first[1::2], strict=True)] == [True] * 6


def test_who_begins_is_drawn() -> None:
    old, new = loops(Clock())

    turns = drive_in_turns(old, new, fours=40, block_s=0.1, random=np.random.default_rng(0))

    begins = Counter(pair.new.start_s < pair.old.start_s for pair in turns.pairs[::2])
    assert 10 <= begins[True] <= 30


def test_block_is_led_in_by_requests_that_do_not_count() -> None:
    clock = Clock()
    old, new = loops(clock)

    turns = drive_in_turns(old, new, fours=1, block_s=0.1, random=np.random.default_rng(0))

    # of each engine: warm-up, a block to settle with its lead-in, and two blocks with theirs
    assert Counter(clock.order) == {"old": 7, "new": 7}
    assert turns.blocks == 4
    assert (turns.contended, turns.restless) == (0, 0)


@pytest.mark.parametrize(
    ("state", "contended"),
    [
        (STATE, 0),
        (replace(STATE, others=1), 8),
        (replace(STATE, reasons=Reason.THERMAL), 8),
        (replace(STATE, reasons=Reason.POWER_CAP), 0),
    ],
)
def test_blocks_of_a_hot_or_shared_gpu_are_counted(state: GpuState, contended: int) -> None:
    old, new = loops(Clock())
    around = Surroundings(gpu=ScriptedGpu(script=lambda _: state))

    turns = drive_in_turns(
        old, new, fours=2, block_s=0.1, random=np.random.default_rng(0), around=around
    )

    assert (turns.contended, turns.blocks) == (contended, 8)
