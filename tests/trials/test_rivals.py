"""When a deployment need not be measured further, because a rival beats it in everything."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from search_fakes import completed, scored

from search_spaces.deployment import Deployment, Precision
from search_spaces.metrics import METRICS, Direction
from search_spaces.space import Constraint, Objective
from trials.measurement import Block, Estimate
from trials.measuring.stopping import Question, is_beaten
from trials.outcome import Completed
from trials.rivals import LEAD, Rival, Unloaded, hurdles_of, rival_of

LATENCY = Objective(metric=METRICS["latency_p99_ms"], direction=Direction.MINIMIZE)
THROUGHPUT = Objective(metric=METRICS["throughput_sps"], direction=Direction.MAXIMIZE)
ACCURACY = Objective(metric=METRICS["accuracy"], direction=Direction.MAXIMIZE)
SIZE = Objective(metric=METRICS["engine_size_mb"], direction=Direction.MINIMIZE)
MEMORY = Objective(metric=METRICS["peak_memory_mb"], direction=Direction.MINIMIZE)
ALL = (LATENCY, THROUGHPUT, ACCURACY)

DEPLOYMENT = Deployment(
    variant="small",
    precision=Precision.FP32,
    batch_size=1,
    concurrency=1,
    options=(("threads", 1),),
)


def hits(right: int, samples: int = 100) -> NDArray[np.bool_]:
    return np.arange(samples) < right


def outcome(*, right: int = 90, key: str = "theirs") -> Completed:
    """Measure 10 ms and 100 samples/s, each within 1 %."""
    found = scored(completed(DEPLOYMENT, latency_ms=10.0, sps=100.0, accuracy=0.0), hits(right))
    return replace(found, engine=replace(found.engine, engine_key=key))


def own(*, right: int = 90, key: str = "ours", size_mb: float = 1.0) -> Unloaded:
    quality = outcome(right=right).quality
    assert quality is not None
    return Unloaded(engine_key=key, quality=quality, size_mb=size_mb)


def rival(objectives: tuple[Objective, ...] = ALL, *, right: int = 90) -> Rival:
    return rival_of(outcome(right=right), objectives)


def blocks(latency_ms: float, *, scatter: float = 0.02, count: int = 8) -> list[Block]:
    draws = latency_ms / 1e3 * np.exp(np.random.default_rng(0).normal(0, scatter, (count, 100)))
    return [
        Block(start_s=float(at), window_s=float(row.sum()), latencies_s=row, batch_size=1)
        for at, row in enumerate(draws)
    ]


def test_rival_of_the_same_accuracy_sets_a_bound_for_each_speed() -> None:
    ((latency, throughput),) = hurdles_of([rival()], ALL, own())

    assert (latency.metric, latency.upper) == (LATENCY.metric, True)
    assert latency.bound == pytest.approx(10.0 * 1.01 * LEAD)
    assert (throughput.metric, throughput.upper) == (THROUGHPUT.metric, False)
    assert throughput.bound == pytest.approx(100.0 * 0.99 / LEAD)


@pytest.mark.parametrize(("theirs", "is_one"), [(90, True), (99, True), (80, False), (89, False)])
def test_only_a_rival_that_scores_no_worse_for_certain_sets_bounds(
    *, theirs: int, is_one: bool
) -> None:
    """One hit of a hundred more may be chance, and may be none: it cannot be told."""
    assert bool(hurdles_of([rival(right=theirs)], ALL, own(right=90))) is is_one


def test_rival_with_a_few_more_hits_is_no_proof_of_either() -> None:
    """Two more of two that differ: McNemar's doubt is 50 %."""
    assert not hurdles_of([rival(right=92)], ALL, own(right=90))


def test_engine_is_no_worse_than_itself_however_it_is_served() -> None:
    found = rival_of(replace(outcome(key="ours"), quality=own(right=90).quality), ALL)

    assert hurdles_of([found], ALL, own(right=90, key="ours"))


def test_scores_on_other_samples_prove_nothing() -> None:
    there = outcome(right=99, key="ours")
    assert there.quality is not None
    elsewhere = replace(there, quality=replace(there.quality, split_digest="other"))

    assert not hurdles_of([rival_of(elsewhere, ALL)], ALL, own(right=90, key="ours"))


@pytest.mark.parametrize(("size_mb", "is_one"), [(1e-6, True), (2.0, True), (1e-7, False)])
def test_size_is_known_before_a_deployment_runs(*, size_mb: float, is_one: bool) -> None:
    objectives = (LATENCY, SIZE)

    found = hurdles_of([rival(objectives)], objectives, own(size_mb=size_mb))

    assert bool(found) is is_one


def test_what_is_known_only_later_leaves_no_bounds() -> None:
    objectives = (LATENCY, MEMORY)

    assert not hurdles_of([rival(objectives)], objectives, own())


def test_no_speed_among_the_objectives_leaves_no_bounds() -> None:
    assert not hurdles_of([rival((ACCURACY,))], (ACCURACY,), own())


def test_rival_of_unknown_limit_sets_no_bounds() -> None:
    unbounded = outcome()
    speed = replace(unbounded.speed, latency_p99_s=Estimate(value=0.01, low=0.009, high=None))

    found = rival_of(replace(unbounded, speed=speed), ALL)

    assert not hurdles_of([found], ALL, own())


@pytest.mark.parametrize(
    ("latency_ms", "beaten"), [(9.0, False), (10.0, False), (10.5, False), (13.0, True)]
)
def test_beaten_is_worse_in_every_speed_beyond_the_lead(
    *, latency_ms: float, beaten: bool
) -> None:
    hurdles = hurdles_of([rival()], ALL, own())

    assert is_beaten(blocks(latency_ms), hurdles, look=1) is beaten


def test_slower_but_with_more_throughput_is_not_beaten() -> None:
    hurdles = hurdles_of([rival()], ALL, own())
    slow = [replace(one, batch_size=8) for one in blocks(20.0)]  # 400 samples/s

    assert not is_beaten(slow, hurdles, look=1)


def test_without_rivals_nobody_is_beaten() -> None:
    assert not is_beaten(blocks(10.0), (), look=1)


def test_nothing_is_decided_by_speed_while_others_take_the_processor() -> None:
    asked = Question(bounds=(), is_out=False, hurdles=hurdles_of([rival()], ALL, own()))

    assert asked.answered(blocks(20.0), 1)
    assert not asked.answered(blocks(20.0), 1, disturbed=True)
    assert replace(asked, is_out=True).answered(blocks(20.0), 1, disturbed=True)


def test_one_that_is_just_as_fast_is_seldom_called_beaten_by_any_of_many() -> None:
    """Rivals whose limits lie exactly at its own speed, the lead taken off."""
    bound = Constraint(metric=METRICS["latency_p50_ms"], upper=True, bound=1000.0)
    asked = Question(bounds=(), is_out=False, hurdles=((bound,),) * 10)
    wrong = 0

    for seed in range(200):
        draws = np.random.default_rng(seed).lognormal(0, 0.3, (35, 100))
        found = [
            Block(start_s=0.0, window_s=float(row.sum()), latencies_s=row, batch_size=1)
            for row in draws
        ]
        counts = [8, 10, 13, 17, 22, 28, 35]
        wrong += any(asked.answered(found[:count], at) for at, count in enumerate(counts, 1))

    assert wrong <= 4
