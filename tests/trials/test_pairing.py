"""Laws of a comparison in turns, and that it errs as seldom as it says."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from trials.measurement import Block
from trials.measuring.comparison import SPEEDS, Compared, Verdict
from trials.measuring.pairing import (
    BlockPair,
    compare_pairs,
    paired_ratio,
)
from trials.measuring.ranks import signed_rank_centre

P50 = ("latency_p50_ms",)
THREE = ("latency_p50_ms", "latency_p99_ms", "throughput_sps")
MIRRORED = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}


def block(latencies_s: NDArray[np.float64], *, start_s: float = 0.0) -> Block:
    return Block(
        start_s=start_s,
        window_s=float(latencies_s.sum()),
        latencies_s=latencies_s,
        batch_size=1,
    )


def in_turns(
    seed: int, *, slower: float = 1.0, pairs: int = 20, requests: int = 100, drift: float = 0.0
) -> list[BlockPair]:
    """Make neighbours on a machine that slows down by ``drift`` from pair to pair.

    Its pace wanders by 3 % from block to block, every tenth block is hit by a neighbour and takes
    up to twice as long, and requests spread by 5 %.
    """
    random = np.random.default_rng(seed)
    found = []
    for at in range(pairs):
        sides = []
        for factor in (slower, 1.0):
            hit = 1 + (random.random() < 0.1) * random.random()
            pace = np.exp(0.03 * random.standard_normal()) * (1 + drift) ** at * hit
            latencies_s = 1e-3 * factor * pace * np.exp(0.05 * random.standard_normal(requests))
            sides.append(block(latencies_s))
        found.append(BlockPair(new=sides[0], old=sides[1]))
    return found


def judged(slower: float, *, count: int) -> list[dict[str, Compared]]:
    return [
        {one.metric: one for one in compare_pairs(pairs, THREE, margin=0.02)}
        for pairs in (in_turns(seed, slower=slower) for seed in range(count))
    ]


@given(seed=st.integers(0, 50), slower=st.sampled_from([0.8, 1.0, 1.05, 1.5]))
@settings(max_examples=20, deadline=None)
def test_swapping_the_two_inverts_ratios_and_mirrors_verdicts(seed: int, slower: float) -> None:
    pairs = in_turns(seed, slower=slower)
    swapped = [BlockPair(new=pair.old, old=pair.new) for pair in pairs]

    there = compare_pairs(pairs, THREE, margin=0.05)
    back = compare_pairs(swapped, THREE, margin=0.05)

    for one, other in zip(there, back, strict=True):
        assert one.ratio.value == pytest.approx(1 / other.ratio.value)
        assert one.ratio.low == pytest.approx(1 / (other.ratio.high or 0))
        assert one.verdict is MIRRORED.get(other.verdict, other.verdict)


@given(st.integers(0, 200), st.integers(6, 25))
@settings(max_examples=50, deadline=None)
def test_interval_holds_zero_where_wilcoxons_exact_test_does_not_refuse_it(
    seed: int, count: int
) -> None:
    values = np.random.default_rng(seed).standard_normal(count) + 0.4

    found = signed_rank_centre(values, confidence=0.95)

    assert found.low is not None
    assert found.high is not None
    assert (found.low > 0 or found.high < 0) == (wilcoxon(values, method="exact").pvalue <= 0.05)


def test_many_values_have_nearly_the_limits_of_the_exact_distribution() -> None:
    values = np.random.default_rng(3).standard_normal(61)

    approximate = signed_rank_centre(values, confidence=0.95)
    fewer = signed_rank_centre(values[:60], confidence=0.95)

    assert approximate.low == pytest.approx(fewer.low, abs=0.05)
    assert approximate.high == pytest.approx(fewer.high, abs=0.05)


def test_what_happens_to_both_neighbours_cancels() -> None:
    """The machine halves its pace from the first pair to the last, which is no difference."""
    random = np.random.default_rng(0)
    latencies_s = 1e-3 * np.exp(0.05 * random.standard_normal(100))
    pairs = [
        BlockPair(new=block(1.03 * pace * latencies_s), old=block(pace * latencies_s))
        for pace in np.linspace(1, 2, 10)
    ]

    for metric in SPEEDS:
        ratio = paired_ratio(pairs, metric, confidence=0.95)
        truth = 1 / 1.03 if metric == "throughput_sps" else 1.03
        assert ratio.value == pytest.approx(truth)


def test_one_pair_that_was_hit_decides_nothing() -> None:
    pairs = in_turns(1, requests=400)
    calm = paired_ratio(pairs, "latency_p50_ms", confidence=0.95)
    hit = replace(pairs[3], new=block(5 * pairs[3].new.latencies_s))

    ratio = paired_ratio([*pairs[:3], hit, *pairs[4:]], "latency_p50_ms", confidence=0.95)

    assert ratio.value == pytest.approx(calm.value, rel=0.01)


def test_five_pairs_give_no_interval() -> None:
    (found,) = compare_pairs(in_turns(1, slower=3, pairs=5), P50, margin=0.02)

    assert (found.ratio.low, found.ratio.high) == (None, None)
    assert found.verdict is Verdict.UNDECIDED


def test_percentile_with_too_few_requests_above_it_stays_open() -> None:
    """Twenty blocks of 25 requests hold two units of 200 requests and a rest."""
    pairs = in_turns(1, slower=2, requests=25)

    p50, p99 = compare_pairs(pairs, ("latency_p50_ms", "latency_p99_ms"), margin=0.02)

    assert p50.verdict is Verdict.WORSE
    assert (p99.ratio.low, p99.verdict) == (None, Verdict.UNDECIDED)


@pytest.mark.parametrize(("ours", "theirs"), [(200, 2000), (2000, 200), (400, 400)])
def test_percentiles_of_unequal_counts_are_not_biased(ours: int, theirs: int) -> None:
    """Two engines alike, of which one serves ten times as many requests in a block."""
    random = np.random.default_rng(0)

    def sampled(requests: int) -> Block:
        return block(1e-3 * np.exp(random.standard_normal(requests)))

    pairs = [BlockPair(new=sampled(ours), old=sampled(theirs)) for _ in range(1600)]

    (found,) = compare_pairs(pairs, ("latency_p99_ms",), margin=0.02)
    assert found.ratio.low is not None
    assert found.ratio.high is not None
    assert found.ratio.low < 1 < found.ratio.high
    assert found.ratio.high / found.ratio.low < 1.05


def test_no_pair_and_no_request_are_refused() -> None:
    empty = Block(start_s=0.0, window_s=0.0, latencies_s=np.array([]), batch_size=1)

    with pytest.raises(ValueError, match="no pair"):
        paired_ratio([], "latency_p50_ms", confidence=0.95)
    with pytest.raises(ValueError, match="without requests"):
        paired_ratio([BlockPair(new=empty, old=empty)], "latency_p50_ms", confidence=0.95)


def test_equal_engines_are_seldom_told_apart() -> None:
    found = judged(1.0, count=200)

    for metric in THREE:
        wrong = [one[metric].verdict in MIRRORED for one in found]
        assert np.mean(wrong) <= 0.02


def test_at_the_margin_itself_errors_are_as_rare_as_promised() -> None:
    """2 % slower is not beyond 2 %: at most 5 % of comparisons may call any metric worse."""
    found = judged(1.02, count=200)

    worse = [any(one.verdict is Verdict.WORSE for one in each.values()) for each in found]
    assert np.mean(worse) <= 0.05


def test_interval_of_the_ratio_covers_the_truth() -> None:
    ratios = [one["latency_p50_ms"].ratio for one in judged(1.05, count=200)]

    covered = [(one.low or 0) <= 1.05 <= (one.high or 0) for one in ratios]
    assert np.mean(covered) >= 0.92  # 95 % less two standard errors of 200 repetitions
