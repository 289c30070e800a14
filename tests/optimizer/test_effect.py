"""What changing one axis alone does, from trials whose truth is a formula."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from search_fakes import ALLOWED, completed, measured, searched
from typer.testing import CliRunner

from optimizer.cli import app
from optimizer.effects.effect import Effect, Step, Trend, effect_of, turn_of
from optimizer.effects.words import lines_of_effect
from optimizer.errors import StudyError, UsageError
from optimizer.study.records import TrialRecord
from optimizer.workspace import Workspace
from search_spaces.deployment import Deployment, Scalar
from search_spaces.space import SearchSpace
from trials.outcome import Outcome

RUNNER = CliRunner()
PNG = b"\x89PNG"


def records_of(
    space: SearchSpace, answer: Callable[[Deployment], Outcome] = measured
) -> list[TrialRecord]:
    """Try every allowed deployment."""
    return [
        TrialRecord(
            uid=str(number),
            number=number,
            study="tiny",
            outcome=answer(deployment),
            started_s=0.0,
            finished_s=1.0,
        )
        for number, deployment in enumerate(space.deployments())
    ]


def effect_in(space: SearchSpace, axis: str, *names: str, against: Scalar | None = None) -> Effect:
    """Say what an axis does by the formula."""
    return effect_of(space.axis(axis), records_of(space), names, against=against)


def step(before: int, after: int, trend: Trend) -> Step:
    return Step(before=before, after=after, pairs=(), effects=(), effect=None, trend=trend)


def test_effect_is_the_formulas_whatever_the_other_axes_are(space: SearchSpace) -> None:
    """int8 is 1.7 times as fast as fp32 everywhere."""
    found = effect_in(space, "precision", "latency_p50_ms", "throughput_sps")

    latency, rate = (one.steps[0] for one in found.metrics)
    assert len(latency.pairs) == ALLOWED // 2
    assert latency.effect is not None
    assert rate.effect is not None
    assert latency.effect.value == pytest.approx(1 / 1.7)
    assert rate.effect.value == pytest.approx(1.7)
    assert (latency.trend, rate.trend) == (Trend.FALLS, Trend.RISES)


def test_numbers_are_stepped_through_and_names_held_against_the_first(
    space: SearchSpace,
) -> None:
    numbers = effect_in(space, "batch_size", "latency_p50_ms")
    names = effect_in(space, "variant", "latency_p50_ms")

    assert [(one.before, one.after) for one in numbers.metrics[0].steps] == [
        (1, 2),
        (2, 4),
        (4, 8),
    ]
    assert [(one.before, one.after) for one in names.metrics[0].steps] == [("large", "small")]
    assert numbers.metrics[0].turn == "rises throughout"
    assert names.metrics[0].turn is None


def test_all_values_may_be_held_against_one(space: SearchSpace) -> None:
    found = effect_in(space, "batch_size", "latency_p50_ms", against=4)

    assert [(one.before, one.after) for one in found.metrics[0].steps] == [(4, 1), (4, 2), (4, 8)]


def test_scores_of_the_same_two_engines_count_once(space: SearchSpace) -> None:
    """Forty pairs of trials share two pairs of engines, which say nothing for certain."""
    found = effect_in(space, "precision", "accuracy")

    only = found.metrics[0].steps[0]
    assert len(only.pairs) == 2
    assert only.trend is Trend.UNDECIDED
    assert only.effect is not None
    assert only.effect.value == pytest.approx(-0.01)


def test_few_pairs_cannot_tell_and_it_is_said(space: SearchSpace) -> None:
    few = [one for one in records_of(space) if one.outcome.deployment.concurrency == 1]
    few = [one for one in few if one.outcome.deployment.variant == "small"]

    found = effect_of(space.axis("batch_size"), few, ("latency_p50_ms",))

    assert {one.trend for one in found.metrics[0].steps} == {Trend.UNDECIDED}
    assert found.metrics[0].turn == "cannot be told"
    assert any("too few pairs" in line for line in lines_of_effect(found))


def test_no_pair_at_all_is_an_error(space: SearchSpace) -> None:
    with pytest.raises(StudyError, match="no two measured trials differ in threads alone"):
        effect_of(space.axis("threads"), records_of(space)[:1], ("latency_p50_ms",))


def test_metric_that_was_not_measured_is_refused(space: SearchSpace) -> None:
    with pytest.raises(UsageError, match="log_loss was not measured"):
        effect_in(space, "threads", "log_loss")


def peaked(at: int) -> Callable[[Deployment], Outcome]:
    """Answer with a throughput that is highest at one batch size."""

    def answer(deployment: Deployment) -> Outcome:
        distance = abs(deployment.batch_size.bit_length() - at.bit_length())
        threads = int(dict(deployment.options)["threads"])
        return completed(
            deployment,
            latency_ms=1.0,
            sps=1000 * threads * deployment.concurrency / (1 + distance),
            accuracy=0.9,
        )

    return answer


def test_turn_is_found(space: SearchSpace) -> None:
    records = records_of(space, peaked(4))

    found = effect_of(space.axis("batch_size"), records, ("throughput_sps", "latency_p50_ms"))

    assert [one.turn for one in found.metrics] == ["rises and turns at 4", "does not change"]


@pytest.mark.parametrize(
    ("trends", "said"),
    [
        ("rises rises", "rises throughout"),
        ("rises undecided", "rises, as far as the data can tell"),
        ("falls undecided rises", "falls and turns between 2 and 4"),
        ("undecided undecided", "cannot be told"),
        ("unchanged unchanged", "does not change"),
    ],
)
def test_turn_is_said_no_more_precisely_than_the_data_can_tell(trends: str, said: str) -> None:
    steps = [step(2**at, 2 ** (at + 1), Trend(one)) for at, one in enumerate(trends.split())]

    assert turn_of(steps) == said


def test_command_prints_draws_and_refuses(space: SearchSpace, tmp_path: Path) -> None:
    study = searched(Workspace(root=tmp_path / "work"), space, trials=24)
    place = ("-w", str(tmp_path / "work"))

    ran = RUNNER.invoke(app, ["effect", "threads", "--plot", str(tmp_path / "e.png"), *place])
    data = RUNNER.invoke(app, ["effect", "precision", "--against", "int8", "--json", *place])
    wrong = RUNNER.invoke(app, ["effect", "treads", *place])

    assert "1 → 2" in ran.stdout
    assert (tmp_path / "e.png").read_bytes().startswith(PNG)
    assert list(json.loads(data.stdout)["metrics"]) == [
        one.metric.name for one in study.space.objectives
    ]
    assert isinstance(wrong.exception, UsageError)
    assert wrong.exception.hint == "did you mean 'threads'?"
