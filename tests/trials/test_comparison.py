"""Laws of a comparison, and that it errs as seldom as it says."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.metrics import METRICS, Direction
from trials.measurement import Block, Estimate, exact
from trials.measuring.comparison import (
    SPEEDS,
    Compared,
    Verdict,
    compare_speeds,
    difference_of,
    ratio_of,
    verdict_on_difference,
)
from trials.measuring.statistics import proportion

THREE = ("latency_p50_ms", "latency_p99_ms", "throughput_sps")
MIRRORED = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}

estimates = st.builds(
    lambda value, below, above: Estimate(value=value, low=value / below, high=value * above),
    st.floats(1e-3, 1e3),
    st.floats(1.0, 3.0),
    st.floats(1.0, 3.0),
)


def drifting(
    seed: int, *, slower: float = 1.0, blocks: int = 20, requests: int = 100
) -> list[Block]:
    """Make blocks of a machine whose pace wanders from block to block, with rare long requests.

    The wandering is autoregressive (0.5 from one block to the next) with a spread of 3 %, requests
    spread by 5 %, and one in a hundred takes about twice as long.
    """
    generator = np.random.default_rng((seed, blocks))
    pace, found, start_s = 0.0, [], 0.0
    for _ in range(blocks):
        pace = 0.5 * pace + np.sqrt(0.75) * generator.standard_normal()
        latencies_s = np.exp(0.05 * generator.standard_normal(requests) + 0.03 * pace) * 1e-3
        long = generator.random(requests) < 0.01
        latencies_s *= slower * (1 + long * generator.exponential(1.0, requests))
        window_s = float(latencies_s.sum())
        found.append(
            Block(start_s=start_s, window_s=window_s, latencies_s=latencies_s, batch_size=1)
        )
        start_s += window_s
    return found


def comparisons(*, slower: float, count: int = 200) -> Iterator[tuple[Compared, ...]]:
    """Compare three sessions with one, again and again, the new ones slower by a factor."""
    for seed in range(count):
        new = drifting(seed, slower=slower, blocks=60)
        yield compare_speeds(new, drifting(seed), THREE, margin=0.1)


def share_with(verdict: Verdict, found: Sequence[tuple[Compared, ...]]) -> float:
    """Say in how many comparisons any metric came to a verdict."""
    return float(np.mean([verdict in {one.verdict for one in each} for each in found]))


def test_every_speed_is_a_metric_of_space_files() -> None:
    assert {name for name in METRICS if name.startswith(("latency", "throughput"))} == set(SPEEDS)


def test_a_measurement_is_equivalent_to_itself() -> None:
    blocks = drifting(1, blocks=40, requests=400)

    found = compare_speeds(blocks, blocks, tuple(SPEEDS), margin=0.3)

    assert {one.ratio.value for one in found} == {1.0}
    assert {one.verdict for one in found if one.metric != "latency_p999_ms"} == {
        Verdict.EQUIVALENT
    }


@given(seed=st.integers(0, 50), slower=st.sampled_from([0.7, 1.0, 1.2, 1.5]))
@settings(max_examples=20, deadline=None)
def test_swapping_the_two_inverts_ratios_and_mirrors_verdicts(seed: int, slower: float) -> None:
    new, old = drifting(seed, slower=slower), drifting(seed + 1000)

    there = compare_speeds(new, old, THREE, margin=0.1)
    back = compare_speeds(old, new, THREE, margin=0.1)

    for one, other in zip(there, back, strict=True):
        assert one.ratio.value == pytest.approx(1 / other.ratio.value)
        assert one.verdict is MIRRORED.get(other.verdict, other.verdict)


def test_slower_is_worse_for_latency_and_for_throughput() -> None:
    new, old = drifting(1, slower=1.5, blocks=60), drifting(2)

    found = {one.metric: one for one in compare_speeds(new, old, THREE, margin=0.1)}

    assert found["latency_p50_ms"].ratio.value == pytest.approx(1.5, rel=0.05)
    assert found["throughput_sps"].ratio.value == pytest.approx(1 / 1.5, rel=0.05)
    assert {one.verdict for one in found.values()} == {Verdict.WORSE}


def test_more_metrics_need_more_evidence_for_each() -> None:
    """Holm's rule: a difference that decides alone need not decide beside five others."""
    new, old = drifting(1, slower=1.19, blocks=60), drifting(1)

    alone = compare_speeds(new, old, ("latency_p50_ms",), margin=0.1)[0]
    among = compare_speeds(new, old, tuple(SPEEDS), margin=0.1)[1]

    assert (alone.verdict, among.verdict) == (Verdict.WORSE, Verdict.UNDECIDED)
    assert alone.ratio == among.ratio


def test_too_few_blocks_decide_nothing() -> None:
    found = compare_speeds(drifting(1, slower=3, blocks=2), drifting(2), THREE, margin=0.1)

    assert {one.verdict for one in found} == {Verdict.UNDECIDED}
    assert {one.ratio.low for one in found} == {None}


def test_margin_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(ValueError, match="margin of 0"):
        compare_speeds(drifting(1), drifting(2), THREE, margin=0.0)


def test_intervals_of_the_ratio_cover_the_truth() -> None:
    """Nominal 95 %; blocks that depend on each other cost a few points, as in single intervals."""
    covered = Counter[str]()

    for each in comparisons(slower=1.2):
        for one in each:
            truth = 1 / 1.2 if one.metric == "throughput_sps" else 1.2
            above = one.ratio.low is None or one.ratio.low <= truth
            covered[one.metric] += above and (one.ratio.high is None or truth <= one.ratio.high)

    assert min(covered.values()) / 200 >= 0.88
    assert covered["latency_p99_ms"] / 200 >= 0.95


def test_no_false_alarm_where_nothing_differs() -> None:
    found = list(comparisons(slower=1.0))

    assert share_with(Verdict.WORSE, found) == 0
    assert share_with(Verdict.BETTER, found) == 0


def test_at_the_margin_itself_errors_are_as_rare_as_promised() -> None:
    """10 % slower is not beyond 10 %: at most 5 % of comparisons may call any metric worse."""
    found = list(comparisons(slower=1.1))

    assert share_with(Verdict.WORSE, found) <= 0.05
    assert share_with(Verdict.BETTER, found) == 0
    equivalent = [all(one.verdict is Verdict.EQUIVALENT for one in each) for each in found]
    assert np.mean(equivalent) <= 0.025


def test_a_quarter_slower_is_seen() -> None:
    assert share_with(Verdict.WORSE, list(comparisons(slower=1.25, count=100))) >= 0.95


@given(new=estimates, old=estimates)
def test_ratio_lies_within_the_ratios_of_the_limits(new: Estimate, old: Estimate) -> None:
    """The parts cannot both be off by their whole intervals as often as each of them."""
    ratio = ratio_of(new, old)

    assert None not in (new.low, new.high, old.low, old.high, ratio.low, ratio.high)
    assert (new.low or 0) / (old.high or 1) <= (ratio.low or 0) * (1 + 1e-12)
    assert (ratio.low or 0) <= ratio.value * (1 + 1e-12)
    assert ratio.value <= (ratio.high or 0) * (1 + 1e-12)
    assert (ratio.high or 0) <= (new.high or 0) / (old.low or 1) * (1 + 1e-12)


@given(new=estimates, old=estimates)
def test_ratio_to_an_exact_value_is_the_interval_scaled(new: Estimate, old: Estimate) -> None:
    ratio = ratio_of(new, exact(old.value))

    scaled = new.scaled(1 / old.value)
    assert ratio.low == pytest.approx(scaled.low)
    assert ratio.high == pytest.approx(scaled.high)


def test_limit_that_is_not_known_leaves_the_ratio_open_on_that_side() -> None:
    unbounded = Estimate(value=2.0, low=1.0, high=None)

    assert ratio_of(unbounded, exact(1.0)).high is None
    assert ratio_of(exact(1.0), unbounded).low is None
    assert difference_of(unbounded, exact(1.0)).high is None
    assert difference_of(exact(1.0), unbounded).low is None


def test_difference_of_two_proportions_is_newcombes() -> None:
    """His example (a): 56 of 70 against 48 of 80, method 10: 0.0524 to 0.3339."""
    found = difference_of(proportion(56, 70), proportion(48, 80))

    assert found.value == pytest.approx(0.2)
    assert found.low == pytest.approx(0.0524, abs=5e-5)
    assert found.high == pytest.approx(0.3339, abs=5e-5)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.005, 0.009, Verdict.EQUIVALENT),
        (0.012, 0.02, Verdict.BETTER),
        (-0.05, -0.011, Verdict.WORSE),
        (-0.011, 0.0, Verdict.UNDECIDED),
        (None, -0.02, Verdict.WORSE),
        (None, 0.0, Verdict.UNDECIDED),
    ],
)
def test_difference_is_judged_by_its_whole_interval(
    low: float | None, high: float | None, verdict: Verdict
) -> None:
    difference = Estimate(value=0.0, low=low, high=high)

    assert verdict_on_difference(difference, Direction.MAXIMIZE, margin=0.01) is verdict
