"""How right an engine's answers are, on one split: scores, cohorts and calibration.

Every number has its interval, because a front of points that chance has placed is no front. Only
full batches are run: the last one is filled up from the first samples and its surplus is dropped,
so engines of a fixed batch size serve too, and precisions whose answers depend on the batch see
none that deployment would not. How many samples a batch has is the caller's choice.

How far stated probabilities can be believed is in ``calibration``.

References:
    Wilson, E. (1927), Probable inference. JASA 22, 209-212. Accuracies.
    Takahashi, K. et al. (2022), Confidence interval for micro-averaged F1 and macro-averaged F1
        scores. Applied Intelligence 52, 4961-4972. The delta method for macro F1.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from search_spaces.space import Preprocessing, Task, TaskKind
from trials.backend import Tensors, TensorSpec
from trials.data.dataset import Split
from trials.data.feeding import feeds
from trials.errors import DataError, OutputError
from trials.measurement import CohortScore, Estimate, Quality
from trials.measuring.statistics import mean_score, proportion
from trials.models.users_code import function_from_name, users_code
from trials.scoring.calibration import Floats, calibration, probabilities, squares
from trials.scoring.sample_scores import packed

Infer: TypeAlias = Callable[[Tensors], Tensors]

RECIPE = 2  # part of a stored score's key; to be raised when the same answers score otherwise

_TOP = 5
_FEWEST_CLASSES = 2
_Z = 1.959963984540054  # normal quantile at 0.975


def score_engine(
    infer: Infer,
    inputs: tuple[TensorSpec, ...],
    split: Split,
    *,
    task: Task,
    preprocessing: Preprocessing,
    batch_size: int,
    source: str,
) -> Quality:
    """Run a whole split through an engine and score the answers.

    Args:
        infer: The engine's.
        inputs: The engine's.
        split: What is scored.
        task: How it is scored; a custom task's function is called once per batch.
        preprocessing: What makes the samples model inputs.
        batch_size: Samples per call, >= 1; every call gets exactly as many.
        source: The space file, for messages.

    Raises:
        OutputError: Answers that are not finite or not of the shape that the task needs.
        DataError: Samples that do not fit the engine, labels beyond its classes, or a metric that
            is not there, breaks or returns no scores.
    """
    calls = _Calls(
        infer=infer,
        inputs=inputs,
        split=split,
        preprocessing=preprocessing,
        batch_size=batch_size,
        source=source,
    )
    if task.kind is TaskKind.CLASSIFICATION:
        return _classified(np.concatenate(list(_first_outputs(calls))), split, source=source)
    assert task.metric is not None
    return _scored(_custom_scores(calls, task.metric), split)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Marks:
    """The scores of each sample, for comparing engines on the same ones.

    Attributes:
        metric: What ``scores`` are: ``accuracy`` or ``score``.
        scores: Shape ``(samples,)``; higher is better.
        brier: Squared distance of the class probabilities from the truth, shape ``(samples,)``;
            None for a custom task.
    """

    metric: str
    scores: Floats
    brier: Floats | None


def mark_engine(
    infer: Infer,
    inputs: tuple[TensorSpec, ...],
    split: Split,
    *,
    task: Task,
    preprocessing: Preprocessing,
    batch_size: int,
    source: str,
) -> Marks:
    """Run a whole split through an engine and score each sample.

    Args and errors are those of :func:`score_engine`, whose means these are.
    """
    calls = _Calls(
        infer=infer,
        inputs=inputs,
        split=split,
        preprocessing=preprocessing,
        batch_size=batch_size,
        source=source,
    )
    if task.kind is not TaskKind.CLASSIFICATION:
        assert task.metric is not None
        return Marks(metric="score", scores=_custom_scores(calls, task.metric), brier=None)
    scores = np.concatenate(list(_first_outputs(calls)))
    check_labels(split, classes=scores.shape[1], source=source)
    return Marks(
        metric="accuracy",
        scores=(_ranks(scores, split.labels) < 1).astype(np.float64),
        brier=squares(probabilities(scores), split.labels),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Calls:
    """The calls that run a whole split; see :func:`score_engine`."""

    infer: Infer
    inputs: tuple[TensorSpec, ...]
    split: Split
    preprocessing: Preprocessing
    batch_size: int
    source: str

    def __iter__(self) -> Iterator[tuple[slice, Tensors]]:
        """Yield which samples were answered, and their answers of shape ``(samples, …)``."""
        count = len(self.split)
        for start in range(0, count, self.batch_size):
            stop = min(start + self.batch_size, count)
            indices = np.arange(start, start + self.batch_size) % count
            samples = self.split.samples(indices, self.preprocessing)
            outputs = self.infer(feeds(samples, self.inputs, source=self.source))
            for name, output in outputs.items():
                self._check(name, output)
            yield slice(start, stop), {n: output[: stop - start] for n, output in outputs.items()}

    def _check(self, name: str, output: NDArray[Any]) -> None:
        if output.ndim == 0 or len(output) != self.batch_size:
            raise OutputError(
                f"output {name!r} has shape {output.shape} for a batch of {self.batch_size}; "
                "its first dimension must be the batch"
            )
        if output.dtype.kind == "f" and not np.isfinite(output).all():
            bad = output.size - np.count_nonzero(np.isfinite(output))
            raise OutputError(
                f"{bad} of {output.size} values of output {name!r} are NaN or infinite in a batch "
                f"of {self.batch_size}; the model is broken, or this precision too narrow for it"
            )


def _first_outputs(calls: _Calls) -> Iterator[NDArray[Any]]:
    """Yield class scores, shape ``(samples, classes)``, batch by batch."""
    for _, outputs in calls:
        name, first = next(iter(outputs.items()))
        scores = first.dtype.kind in "fiu" and first.ndim == len(("samples", "classes"))
        if not scores or first.shape[1] < _FEWEST_CLASSES:
            raise OutputError(
                f"the first output, {name!r}, is {first.dtype.name} {first.shape}; classification "
                "needs (samples, classes) with a score per class, anything else is kind: custom"
            )
        yield first


def check_labels(split: Split, *, classes: int | None, source: str) -> None:
    """Refuse labels beyond the classes of a model; None where it does not say how many.

    Raises:
        DataError: With the first such label.
    """
    labels = split.labels
    if classes is not None and labels.max() >= classes:
        first = int(np.argmax(labels >= classes))
        raise DataError(
            f"{source}: {split.name} split: labels[{first}] is {labels[first]}, the model has "
            f"{classes} classes (from 0); mend the labels or take the model that was trained on "
            "them"
        )


def _classified(scores: NDArray[Any], split: Split, *, source: str) -> Quality:
    labels, classes = split.labels, scores.shape[1]
    check_labels(split, classes=classes, source=source)
    ranks = _ranks(scores, labels)
    found = [("accuracy", _share(ranks < 1))]
    if classes > _TOP:
        found.append(("accuracy_top5", _share(ranks < _TOP)))
    found.append(("macro_f1", macro_f1(labels, scores.argmax(axis=1))))
    return Quality(
        split=split.name,
        split_digest=split.digest,
        samples=len(split),
        scores=tuple(found),
        cohorts=_cohorts(split, ranks < 1, _share),
        calibration=calibration(probabilities(scores), labels),
        per_sample=packed(ranks < 1),
    )


def _scored(scores: Floats, split: Split) -> Quality:
    return Quality(
        split=split.name,
        split_digest=split.digest,
        samples=len(split),
        scores=(("score", mean_score(scores)),),
        cohorts=_cohorts(split, scores, mean_score),
        per_sample=packed(scores),
    )


def _custom_scores(calls: _Calls, metric: str) -> Floats:
    """Return what the user's function says, shape ``(samples,)``."""
    function = function_from_name(metric, key="task.metric", refusal=DataError)
    scores = np.empty(len(calls.split))
    for answered, outputs in calls:
        labels = calls.split.labels[answered]
        given = f"task.metric: {metric}, given the outputs {', '.join(map(repr, outputs))},"
        with users_code(given, refusal=DataError):
            returned = np.asarray(function(outputs, labels))
        if returned.shape != (len(labels),) or returned.dtype.kind not in "biuf":
            raise DataError(
                f"task.metric: {metric} returned {returned.dtype.name} of shape {returned.shape}; "
                f"return one number per sample, shape ({len(labels)},)"
            )
        if not np.isfinite(returned).all():
            first = answered.start + int(np.argmin(np.isfinite(returned)))
            raise DataError(
                f"task.metric: {metric} returned {returned[first - answered.start]} for sample "
                f"{first} of the {calls.split.name} split; return finite numbers"
            )
        scores[answered] = returned
    return scores


def _ranks(scores: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return how many classes precede the true one; shape ``(samples,)``, 0 is a hit.

    Of equal scores the lower class precedes, as with argmax: so a model that cannot tell classes
    apart gains nothing by it.
    """
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    lower = np.arange(scores.shape[1]) < labels[:, None]
    precede = (scores > own) | ((scores == own) & lower)
    ranks: NDArray[np.intp] = precede.sum(axis=1)
    return ranks


def _share(hits: NDArray[np.bool_]) -> Estimate:
    return proportion(int(np.count_nonzero(hits)), hits.size)


def _cohorts(
    split: Split, scores: NDArray[Any], estimate: Callable[[NDArray[Any]], Estimate]
) -> tuple[CohortScore, ...]:
    if split.cohorts is None:
        return ()
    names, members = np.unique(split.cohorts, return_inverse=True)
    order = np.argsort(members, kind="stable")
    parts = np.split(scores[order], np.cumsum(np.bincount(members))[:-1])
    return tuple(
        CohortScore(cohort=str(name), samples=part.size, score=estimate(part))
        for name, part in zip(names, parts, strict=True)
    )


def macro_f1(labels: NDArray[np.int64], predicted: NDArray[np.intp]) -> Estimate:
    """Estimate the mean F1 over the classes that occur, true or predicted (delta method).

    A sample weighs in through its true and its predicted class; the spread of those influences
    gives the interval, which perfect or hopeless predictions cannot give.

    Args:
        labels: Shape ``(samples,)``, classes from 0.
        predicted: Likewise.
    """
    hits = labels == predicted
    size = int(max(labels.max(), predicted.max())) + 1
    true_positives = np.bincount(labels[hits], minlength=size)
    members = np.bincount(labels, minlength=size) + np.bincount(predicted, minlength=size)
    occurring = np.count_nonzero(members)
    members = np.maximum(members, 1)
    f1 = 2 * true_positives / members
    value = float(f1.sum() / occurring)
    pulls = 2 * hits / members[labels] - (f1 / members)[labels] - (f1 / members)[predicted]
    influences = labels.size / occurring * pulls
    half = _Z * float(influences.std()) / math.sqrt(labels.size)
    if half == 0:
        return Estimate(value=value, low=None, high=None)
    return Estimate(value=value, low=max(0.0, value - half), high=min(1.0, value + half))
