"""Speeds measured anew: sessions that others disturbed are repeated, and never decide against."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from optimizer.verification.findings import Findings
from optimizer.verification.machines import other_hardware, other_surroundings
from optimizer.verification.scores import compare_predictions, compare_score
from optimizer.verification.speed import (
    Sessions,
    compare_sessions,
    measure_sessions,
    wanted_speeds,
)
from trials.engine_files import Measured
from trials.measurement import Block, exact
from trials.measuring.comparison import Verdict
from trials.measuring.load import CONTENDED
from trials.measuring.statistics import proportion
from trials.scoring.agreement import Predictions


def block(latency_s: float, seed: int) -> Block:
    noise = np.random.default_rng(seed).normal(1, 0.01, 100)
    latencies_s = latency_s * noise
    window_s = float(latencies_s.sum())
    return Block(start_s=seed, window_s=window_s, latencies_s=latencies_s, batch_size=1)


def session(latency_s: float = 1.0, *flags: str) -> Measured:
    return Measured(blocks=tuple(block(latency_s, seed) for seed in range(10)), flags=flags)


def one_by_one(given: Iterable[Measured]) -> Callable[[], Measured]:
    following = iter(given)
    return lambda: next(following)


def measured(given: Iterable[Measured], *, count: int) -> Sessions:
    return measure_sessions(one_by_one(given), count=count, on_step=lambda _: None)


def verdicts(sessions: Sessions, *, busy: bool = False) -> set[Verdict]:
    old = session().blocks
    speeds = ("latency_p50_ms", "throughput_sps")
    found = compare_sessions(sessions, old, speeds, margin=0.1, busy=busy)
    return {one.verdict for one in found}


def test_blocks_of_all_sessions_count() -> None:
    found = measured([session(1.0), session(1.1)], count=2)

    assert len(found.blocks) == 20
    assert (found.contended, found.repeated, found.cautions()) == (False, 0, ())


def test_disturbed_session_is_repeated_and_not_kept() -> None:
    found = measured([session(9.0, CONTENDED), session(1.0), session(1.0)], count=2)

    assert (found.contended, found.repeated) == (False, 1)
    assert max(one.window_s for one in found.blocks) < 200


def test_machine_that_is_never_quiet_is_not_waited_for() -> None:
    found = measured([session(2.0, CONTENDED)] * 4, count=1)

    assert (found.contended, found.repeated) == (True, 3)
    assert "3 sessions were repeated in vain" in found.cautions()[0]


def test_worse_on_a_disturbed_machine_is_undecided() -> None:
    quiet = Sessions(blocks=session(2.0).blocks, contended=False, repeated=0)
    disturbed = Sessions(blocks=session(2.0).blocks, contended=True, repeated=3)

    assert verdicts(quiet) == {Verdict.WORSE}
    assert verdicts(disturbed) == {Verdict.UNDECIDED}


def test_better_than_a_disturbed_measurement_is_undecided() -> None:
    faster = Sessions(blocks=session(0.5).blocks, contended=False, repeated=0)

    assert verdicts(faster) == {Verdict.BETTER}
    assert verdicts(faster, busy=True) == {Verdict.UNDECIDED}


@pytest.mark.parametrize(("new", "old"), [(True, False), (False, True), (True, True)])
def test_equivalent_on_a_disturbed_machine_is_undecided(*, new: bool, old: bool) -> None:
    """Whoever was disturbed may be the better one when it is not."""
    same = Sessions(blocks=session(1.0).blocks, contended=new, repeated=3)

    assert verdicts(replace(same, contended=False)) == {Verdict.EQUIVALENT}
    assert verdicts(same, busy=old) == {Verdict.UNDECIDED}


def test_speeds_are_those_that_were_wanted_each_once() -> None:
    names = ["accuracy", "latency_p50_ms", "throughput_sps", "latency_p50_ms"]

    assert wanted_speeds(names) == ("latency_p50_ms", "throughput_sps")
    assert wanted_speeds(["accuracy"]) == ("latency_p50_ms", "latency_p99_ms", "throughput_sps")


def test_hardware_and_surroundings_are_told_apart() -> None:
    then = {"cpu_model": "A", "cpu_affinity": "0-1", "kernel": "5", "load_1m": "0.1"}
    now = {"cpu_model": "A", "cpu_affinity": "0", "kernel": "6", "load_1m": "9.9", "gpu": "H"}

    assert other_hardware(then, now) == (
        "cpu_affinity was 0-1, is 0",
        "gpu was absent, is H",
    )
    assert other_surroundings(then, now) == ("kernel was 5, is 6",)


@pytest.mark.parametrize(
    ("right", "verdict"),
    [(895, Verdict.EQUIVALENT), (880, Verdict.WORSE), (920, Verdict.BETTER)],
)
def test_score_on_the_same_samples_is_judged_without_chance(right: int, verdict: Verdict) -> None:
    new, old = proportion(right, 1000), proportion(900, 1000)

    found = compare_score("accuracy", new, old, data="report", same_samples=True)

    assert found.difference == exact(new.value - old.value)
    assert found.verdict is verdict


def hits(right: int, *, of: int = 512) -> NDArray[np.bool_]:
    return np.arange(of) < right


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        (hits(460), Verdict.EQUIVALENT),
        (hits(455), Verdict.EQUIVALENT),
        (hits(420), Verdict.WORSE),
        (hits(500), Verdict.BETTER),
    ],
)
def test_references_are_compared_sample_by_sample(
    now: NDArray[np.bool_], verdict: Verdict
) -> None:
    found = compare_predictions(Predictions(agree=0, hits_old=hits(460), hits_new=now))

    assert found.verdict is verdict


def test_one_of_few_references_that_changed_sides_decides_nothing() -> None:
    few = Predictions(agree=23, hits_old=hits(20, of=24), hits_new=hits(19, of=24))

    found = compare_predictions(few)

    assert found.difference.value == pytest.approx(-1 / 24)
    assert found.verdict is Verdict.UNDECIDED


def test_score_on_other_samples_needs_its_interval() -> None:
    new, old = proportion(880, 1000), proportion(900, 1000)

    found = compare_score("accuracy", new, old, data="--data", same_samples=False)

    assert found.verdict is Verdict.UNDECIDED


def test_worse_score_fails_the_gate_by_name() -> None:
    worse = compare_score(
        "accuracy", exact(0.8), exact(0.9), data="the references", same_samples=True
    )
    found = Findings(
        subject="d",
        facts=(),
        unchecked=(),
        outputs=(),
        predictions=None,
        scores=(worse,),
        speeds=(),
        margin=0.1,
    )

    assert list(found.failures()) == ["accuracy on the references is worse"]
    assert not found.passed


def test_score_that_is_no_share_has_a_relative_margin() -> None:
    found = compare_score("score", exact(99.5), exact(100.0), data="report", same_samples=True)

    assert (found.margin, found.verdict) == (1.0, Verdict.EQUIVALENT)
