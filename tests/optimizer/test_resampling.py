"""Draws from what was measured, and the probability that a deployment is on the front."""

import math
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from search_fakes import completed, infeasible, record_of, scored, with_interval

from optimizer.front.draws import Drawer
from optimizer.front.front import Front, front_of
from optimizer.front.resampling import with_probabilities
from optimizer.study.records import TrialRecord
from search_spaces.metrics import METRICS
from search_spaces.space import Constraint, SearchSpace
from trials.measurement import Block
from trials.measuring.statistics import quantile, summarize
from trials.outcome import Completed

NAMES = ("latency_mean_ms", "latency_p50_ms", "latency_p99_ms", "throughput_sps")


def blocks(seed: int, *, scale: float = 1.0, count: int = 20) -> tuple[Block, ...]:
    """Latencies of about a millisecond, in blocks that differ a little."""
    generator = np.random.default_rng(seed)
    levels = generator.lognormal(0.0, 0.03, count)
    samples = [1e-3 * scale * one * generator.lognormal(0, 0.1, 300) for one in levels]
    return tuple(
        Block(start_s=0.3 * at, window_s=float(one.sum()), latencies_s=one, batch_size=1)
        for at, one in enumerate(samples)
    )


def record(number: int, space: SearchSpace, latencies: tuple[Block, ...]) -> TrialRecord:
    deployment = list(islice(space.deployments(), number + 1))[number]
    outcome = completed(deployment, latency_ms=1.0, sps=1.0, accuracy=0.9)
    return record_of(number, replace(outcome, speed=summarize(latencies, target_met=True)))


def no_blocks(_: str) -> None:
    return None


def probabilities(front: Front) -> dict[int, float | None]:
    return {one.record.number: one.probability for one in front.candidates}


def test_draws_scatter_as_wide_as_the_interval_says(space: SearchSpace) -> None:
    """Both rest on the spread between blocks; the interval is the more careful of the two."""
    measured = blocks(1)
    one = record(0, space, measured)

    drawn = Drawer(lambda _: measured, draws=2000).drawn(one, NAMES)

    assert isinstance(one.outcome, Completed)
    for name in NAMES:
        estimate = one.outcome.metric(name)
        assert estimate.low is not None
        assert estimate.high is not None
        low, high = np.quantile(drawn[name], [0.025, 0.975])
        assert np.median(drawn[name]) == pytest.approx(estimate.value, rel=0.02)
        assert 0.6 < (high - low) / (estimate.high - estimate.low) < 1.15


def test_metrics_of_one_trial_are_drawn_from_the_same_blocks(space: SearchSpace) -> None:
    """With one worker the mean latency and the throughput say the same."""
    measured = blocks(2)

    drawn = Drawer(lambda _: measured, draws=100).drawn(record(0, space, measured), NAMES)

    product = drawn["latency_mean_ms"] * drawn["throughput_sps"]
    assert product == pytest.approx(1000.0)


def test_quantiles_are_drawn_from_samples_that_were_measured(space: SearchSpace) -> None:
    measured = blocks(3)

    drawn = Drawer(lambda _: measured, draws=200).drawn(record(0, space, measured), NAMES)

    pooled_ms = np.concatenate([block.latencies_s for block in measured]) * 1e3
    assert np.isin(drawn["latency_p99_ms"], pooled_ms).all()
    assert quantile(measured, 0.99).value * 1e3 in drawn["latency_p99_ms"]


@pytest.mark.parametrize(
    ("name", "level"),
    [("latency_p50_ms", 0.5), ("latency_p99_ms", 0.99), ("latency_p999_ms", 0.999)],
)
def test_quantile_of_a_draw_is_that_of_its_samples_also_without_the_slow_block(
    space: SearchSpace, name: str, level: float
) -> None:
    measured = (*blocks(3, count=9), *blocks(4, scale=10.0, count=1))
    one, drawer = record(0, space, measured), Drawer(lambda _: measured, draws=100)

    drawn_ms = drawer.drawn(one, (name,))[name]

    for weights, found_ms in zip(drawer._weights(one.uid, measured), drawn_ms, strict=True):
        pairs = zip(measured, weights.astype(int), strict=True)
        samples_s = np.concatenate([np.repeat(block.latencies_s, times) for block, times in pairs])
        place = math.ceil(level * samples_s.size - 1e-9) - 1
        assert found_ms == pytest.approx(np.sort(samples_s)[place] * 1e3)


def test_engines_are_scored_on_the_same_drawn_samples(space: SearchSpace) -> None:
    """Their difference scatters by the samples on which they differ, not by all."""
    hits = np.random.default_rng(0).random(1000) < 0.9
    worse = hits.copy()
    worse[np.flatnonzero(hits)[:5]] = False
    pair = [
        record_of(number, scored(completed(deployment, latency_ms=1, sps=1, accuracy=0), one))
        for number, (deployment, one) in enumerate(
            zip([*space.deployments()][:80:79], (hits, worse), strict=True)
        )
    ]
    drawer = Drawer(no_blocks, draws=500)

    better, other = (drawer.drawn(one, ["accuracy"])["accuracy"] for one in pair)

    assert (better >= other).all()
    assert better.std() > 4 * (better - other).std()


def test_without_blocks_draws_follow_the_interval(space: SearchSpace) -> None:
    outcome = completed(next(space.deployments()), latency_ms=10.0, sps=1.0, accuracy=0.9)
    one = record_of(0, with_interval(outcome, low_ms=8.0, high_ms=12.5))

    drawn = Drawer(no_blocks, draws=4000).drawn(one, ["latency_p99_ms", "engine_size_mb"])

    low, high = np.quantile(drawn["latency_p99_ms"], [0.025, 0.975])
    assert (low, high) == pytest.approx((8.0, 12.5), rel=0.03)
    assert np.ptp(drawn["engine_size_mb"]) == 0  # counted, not sampled


def test_unknown_limit_is_taken_to_be_as_far_as_the_known_one(space: SearchSpace) -> None:
    outcome = completed(next(space.deployments()), latency_ms=10.0, sps=1.0, accuracy=0.9)
    one = record_of(0, with_interval(outcome, low_ms=8.0, high_ms=None))

    drawn = Drawer(no_blocks, draws=4000).drawn(one, ["latency_p99_ms"])["latency_p99_ms"]

    assert np.quantile(drawn, [0.025, 0.975]) == pytest.approx([8.0, 12.5], rel=0.03)


def test_two_that_are_nearly_alike_share_the_front(space: SearchSpace) -> None:
    found = {0: blocks(0), 1: blocks(1, scale=1.001)}
    records = [record(number, space, one) for number, one in found.items()]
    front = front_of(records, space.objectives[:1], ())

    judged = with_probabilities(front, lambda uid: found[int(uid.removeprefix("u-"))])

    chances = probabilities(judged)
    assert None not in chances.values()
    assert sum(chance or 0.0 for chance in chances.values()) == pytest.approx(1.0)
    assert all(0.05 < (chance or 0.0) < 0.95 for chance in chances.values())


def test_deployment_that_may_miss_a_bound_is_on_the_front_as_often_as_it_meets_it(
    space: SearchSpace,
) -> None:
    outcome = completed(next(space.deployments()), latency_ms=10.0, sps=1.0, accuracy=0.9)
    one = record_of(0, with_interval(outcome, low_ms=8.0, high_ms=12.5))
    bound = Constraint(metric=METRICS["latency_p99_ms"], upper=True, bound=10.0)

    front = front_of([one], space.objectives, (bound,))
    judged = with_probabilities(front, no_blocks, draws=4000)

    assert probabilities(judged)[0] == pytest.approx(0.5, abs=0.04)


def test_probabilities_are_the_same_again_whatever_the_order(space: SearchSpace) -> None:
    found = {number: blocks(number) for number in range(4)}
    records = [record(number, space, one) for number, one in found.items()]

    def chances(ordered: list[TrialRecord]) -> dict[int, float | None]:
        front = front_of(ordered, space.objectives, ())
        return probabilities(
            with_probabilities(front, lambda uid: found[int(uid.removeprefix("u-"))])
        )

    assert chances(records) == chances(records[::-1])


def test_empty_front_has_no_probabilities(space: SearchSpace) -> None:
    front = front_of([record_of(0, infeasible(next(space.deployments())))], space.objectives, ())

    assert with_probabilities(front, no_blocks) == front
