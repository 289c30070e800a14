"""What answers are worth: scores against slow, obvious ones, and answers that are refused."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import f1_score, log_loss

from search_spaces.space import Preprocessing, Task, TaskKind
from trials.backend import Tensors, TensorSpec
from trials.data.dataset import Split
from trials.errors import DataError, OutputError
from trials.measurement import Estimate, Quality
from trials.measuring.statistics import proportion
from trials.scoring.calibration import calibration, probabilities
from trials.scoring.scoring import macro_f1, score_engine

Answer = Callable[[NDArray[Any]], NDArray[Any]]

INPUT = TensorSpec(name="x", dtype="float32", shape=(None, 10))
CLASSIFICATION = Task(
    kind=TaskKind.CLASSIFICATION, metric=None, data=None, preprocessing=Preprocessing()
)


def split_of(
    answers: NDArray[Any], labels: NDArray[np.int64], *, cohorts: NDArray[np.str_] | None = None
) -> Split:
    """Make a split whose samples are what the engine shall answer."""
    arrays = (("", answers.astype(np.float32)),)
    return Split(name="search", arrays=arrays, labels=labels, cohorts=cohorts, digest="d")


def noisy(samples: int = 500, *, classes: int = 10, seed: int = 0) -> Split:
    """Make logits that are right about two times in three."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=samples)
    logits = generator.normal(size=(samples, classes))
    logits[np.arange(samples), labels] += 2
    return split_of(logits, labels)


def score(
    split: Split,
    answer: Answer = lambda samples: samples,
    *,
    task: Task = CLASSIFICATION,
    batch_size: int = 64,
) -> Quality:
    """Score an engine that answers with its samples, or with what ``answer`` makes of them."""
    width = split.arrays[0][1].shape[1:]
    return score_engine(
        lambda inputs: {"y": answer(inputs["x"])},
        (TensorSpec(name="x", dtype="float32", shape=(None, *width)),),
        split,
        task=task,
        preprocessing=task.preprocessing,
        batch_size=batch_size,
        source="space.yaml",
    )


def test_accuracy_is_a_wilson_proportion_of_hits() -> None:
    split = noisy()
    hits = int((split.arrays[0][1].argmax(axis=1) == split.labels).sum())

    scores = dict(score(split).scores)

    assert scores["accuracy"] == proportion(hits, 500)


def test_top5_counts_the_true_class_among_the_five_highest() -> None:
    split = noisy()
    highest = np.argsort(split.arrays[0][1], axis=1)[:, -5:]
    hits = int((highest == split.labels[:, None]).any(axis=1).sum())

    scores = dict(score(split).scores)

    assert scores["accuracy_top5"] == proportion(hits, 500)


def test_top5_of_five_classes_says_nothing_and_is_left_out() -> None:
    names = [name for name, _ in score(noisy(classes=5)).scores]

    assert names == ["accuracy", "macro_f1"]


def test_model_that_cannot_tell_classes_apart_gains_nothing_by_ties() -> None:
    split = split_of(np.zeros((100, 10)), np.arange(100) % 10)

    scores = dict(score(split).scores)

    assert scores["accuracy"].value == 0.1
    assert scores["accuracy_top5"].value == 0.5


@given(batch_size=st.integers(1, 70), samples=st.integers(1, 60))
def test_quality_does_not_depend_on_the_batch_size(batch_size: int, samples: int) -> None:
    split = noisy(samples)

    assert score(split, batch_size=batch_size) == score(split, batch_size=samples)


@pytest.mark.parametrize("batch_size", [7, 64, 130])
def test_engine_sees_full_batches_only(batch_size: int) -> None:
    seen: list[int] = []

    def answer(samples: NDArray[Any]) -> NDArray[Any]:
        seen.append(len(samples))
        return samples

    score(noisy(100), answer, batch_size=batch_size)

    assert set(seen) == {batch_size}


def test_cohorts_are_scored_apart() -> None:
    logits = np.eye(4, 2, dtype=np.float32)[[0, 0, 1, 1]]
    cohorts = np.array(["old", "new", "old", "old"])
    split = split_of(logits, np.array([0, 0, 1, 0]), cohorts=cohorts)

    new, old = score(split).cohorts

    assert (new.cohort, new.samples, new.score) == ("new", 1, proportion(1, 1))
    assert (old.cohort, old.samples, old.score) == ("old", 3, proportion(2, 3))


def test_quality_names_its_split() -> None:
    quality = score(noisy())

    assert (quality.split, quality.split_digest, quality.samples) == ("search", "d", 500)


@given(pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=50))
def test_macro_f1_agrees_with_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = np.array(pairs).T

    estimate = macro_f1(labels, predicted)

    expected = f1_score(labels, predicted, average="macro", zero_division=0.0)
    assert estimate.value == pytest.approx(expected)


def test_interval_of_macro_f1_covers_the_truth() -> None:
    """95 % nominal; 400 draws put 93-97 % within two of their own standard errors."""
    generator = np.random.default_rng(0)
    truth = generator.integers(5, size=200_000)
    guess = np.where(generator.random(truth.size) < 0.7, truth, 0)
    expected = macro_f1(truth, guess).value

    draws = generator.integers(truth.size, size=(400, 500))
    covered = [covers(macro_f1(truth[draw], guess[draw]), expected) for draw in draws]

    assert 0.92 <= np.mean(covered) <= 0.98


def covers(estimate: Estimate, value: float) -> bool:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low <= value <= estimate.high


def test_perfect_predictions_leave_macro_f1_without_limits() -> None:
    estimate = macro_f1(np.arange(10), np.arange(10))

    assert estimate == Estimate(value=1.0, low=None, high=None)


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def test_logits_go_through_a_softmax() -> None:
    logits = np.random.default_rng(0).normal(size=(20, 10)) * 3

    np.testing.assert_allclose(probabilities(logits), softmax(logits))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_probabilities_are_taken_as_they_are(dtype: str) -> None:
    stated = softmax(np.random.default_rng(0).normal(size=(20, 10)))

    np.testing.assert_allclose(probabilities(stated.astype(dtype)), stated, atol=1e-3)


def test_large_logits_do_not_overflow() -> None:
    stated = probabilities(np.array([[1e30, -1e30], [1e4, 1e4]], dtype=np.float32))

    np.testing.assert_array_equal(stated, [[1.0, 0.0], [0.5, 0.5]])


def test_brier_score_and_log_loss_are_the_textbook_ones() -> None:
    split = noisy()
    stated = softmax(split.arrays[0][1])

    found = calibration(stated, split.labels)

    truth = np.eye(10)[split.labels]
    assert found.brier.value == pytest.approx(((stated - truth) ** 2).sum(axis=1).mean())
    assert found.log_loss.value == pytest.approx(log_loss(split.labels, stated))
    assert covers(found.brier, found.brier.value)


def test_certain_mistake_costs_a_finite_log_loss() -> None:
    found = calibration(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([1, 0]))

    assert found.log_loss.value == pytest.approx(-np.log(np.finfo(np.float32).eps) / 2)


def test_reliability_bins_have_equal_mass_and_rising_confidence() -> None:
    split = noisy(1_000)

    bins = calibration(softmax(split.arrays[0][1]), split.labels).bins

    assert len(bins) == 15
    assert {bin_.samples for bin_ in bins} == {66, 67}
    assert sorted(bin_.confidence for bin_ in bins) == [bin_.confidence for bin_ in bins]


def test_ece_is_the_weighted_gap_of_the_bins() -> None:
    split = noisy(1_000)

    found = calibration(softmax(split.arrays[0][1]), split.labels)

    gaps = [abs(one.confidence - one.accuracy) * one.samples for one in found.bins]
    assert found.ece == pytest.approx(sum(gaps) / 1_000)


def test_calibrated_model_shows_about_its_null_level_and_an_overconfident_one_more() -> None:
    generator = np.random.default_rng(0)
    stated = generator.dirichlet(np.full(5, 0.5), size=3_000)
    labels = (generator.random((3_000, 1)) > stated.cumsum(axis=1)).sum(axis=1).clip(max=4)

    honest = calibration(stated, labels)
    boastful = calibration(probabilities(4 * np.log(stated + 1e-9)), labels)

    assert 0.5 * honest.ece_null < honest.ece < 1.7 * honest.ece_null
    assert boastful.ece > 4 * boastful.ece_null


def test_calibration_of_fewer_samples_than_bins() -> None:
    bins = calibration(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 0])).bins

    assert [(one.confidence, one.accuracy) for one in bins] == [(0.6, 0.0), (0.9, 1.0)]


@given(seed=st.integers(0, 50), samples=st.integers(1, 40))
def test_quality_is_reproducible(seed: int, samples: int) -> None:
    assert score(noisy(samples, seed=seed)) == score(noisy(samples, seed=seed))


def test_answers_that_are_not_finite_are_counted_and_refused() -> None:
    def answer(samples: NDArray[Any]) -> NDArray[Any]:
        return np.where(samples > 100, np.nan, samples)

    split = noisy(64)
    split.arrays[0][1][:3, 0] = 1e4

    with pytest.raises(OutputError, match=r"3 of 640 values of output 'y' are NaN or infinite"):
        score(split, answer)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: x[:, :1], r"'y', is float32 \(64, 1\).*score per class"),
        (lambda x: x.argmax(axis=1), r"int64 \(64,\)"),
        (lambda x: x[..., None], r"\(64, 10, 1\)"),
        (lambda x: x > 0, r"bool \(64, 10\)"),
        (lambda x: x[:5], r"shape \(5, 10\) for a batch of 64; its first dimension"),
        (lambda x: np.float32(x.sum()), r"shape \(\) for a batch of 64"),
    ],
)
def test_answers_of_another_shape_are_refused(answer: Answer, message: str) -> None:
    with pytest.raises(OutputError, match=message):
        score(noisy(64), answer)


def test_label_beyond_the_classes_is_a_fault_of_the_data() -> None:
    split = split_of(np.zeros((3, 4)), np.array([0, 3, 4]))

    with pytest.raises(DataError, match=r"labels\[2\] is 4, the model has 4 classes"):
        score(split)


METRICS = """
import numpy as np

def closeness(outputs, labels):
    return 1 - np.abs(outputs["y"][:, 0] - labels)

def total(outputs, labels):
    return float(labels.sum())

def broken(outputs, labels):
    return labels / outputs["z"]

def undefined(outputs, labels):
    return np.where(labels == 0.7, np.nan, 1.0)

constant = 3
"""


@pytest.fixture
def metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Put a module of metrics on Python's path."""
    (tmp_path / "some_metrics.py").write_text(METRICS, encoding="utf-8")
    (tmp_path / "half_metrics.py").write_text("import not_there_at_all\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("some_metrics", "half_metrics"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "some_metrics"


def custom(metric: str) -> Task:
    return Task(kind=TaskKind.CUSTOM, metric=metric, data=None, preprocessing=Preprocessing())


def custom_split() -> Split:
    answers = np.array([[0.0], [0.5], [1.0]], dtype=np.float32)
    return Split(
        name="search",
        arrays=(("", answers),),
        labels=np.array([0.0, 0.7, 0.5]),
        cohorts=np.array(["a", "a", "b"]),
        digest="d",
    )


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_custom_score_is_the_mean_of_the_users_scores(metrics: str, batch_size: int) -> None:
    task = custom(f"{metrics}:closeness")

    quality = score(custom_split(), task=task, batch_size=batch_size)

    [(name, estimate)] = quality.scores
    assert name == "score"
    assert estimate.value == pytest.approx((1 + 0.8 + 0.5) / 3)
    assert [one.score.value for one in quality.cohorts] == pytest.approx([0.9, 0.5])
    assert quality.calibration is None


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("some_metrics:total", r"some_metrics:total returned float64 of shape \(\).*\(3,\)"),
        (
            "some_metrics:broken",
            r"some_metrics:broken, given the outputs .*, failed: KeyError: 'z'",
        ),
        ("some_metrics:undefined", r"undefined returned nan for sample 1 of the search split"),
        ("some_metrics:closenes", r"no function 'closenes'; did you mean 'closeness'"),
        ("some_metrics:constant", r"no function 'constant'"),
        ("no_such_metrics:f", r"there is no module 'no_such_metrics'; install it, or add"),
        ("some_metrics.deeper:f", r"there is no module 'some_metrics\.deeper'"),
        ("half_metrics:f", r"importing half_metrics failed.*not_there_at_all"),
    ],
)
@pytest.mark.usefixtures("metrics")
def test_metric_that_cannot_score_is_named(metric: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        score(custom_split(), task=custom(metric))

    assert "\n" not in str(caught.value)


def test_custom_metric_sees_every_output(metrics: str) -> None:
    def infer(inputs: Tensors) -> Tensors:
        return {"first": inputs["x"] * 0, "y": inputs["x"]}

    quality = score_engine(
        infer,
        (TensorSpec(name="x", dtype="float32", shape=(None, 1)),),
        custom_split(),
        task=custom(f"{metrics}:closeness"),
        preprocessing=Preprocessing(),
        batch_size=2,
        source="space.yaml",
    )

    assert quality.scores[0][1].value == pytest.approx(2.3 / 3)
