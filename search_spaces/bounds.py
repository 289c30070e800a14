"""What is wanted of a deployment: objectives and constraints, from their words in a space file."""

import math
import re
from collections.abc import Mapping, Sequence

from search_spaces.errors import SpaceError
from search_spaces.metrics import METRICS, Direction, Metric, Scale
from search_spaces.space import Constraint, Objective, TaskKind
from search_spaces.spelling import did_you_mean

_SCORED = {
    TaskKind.CLASSIFICATION: {
        *("accuracy", "accuracy_top5", "macro_f1", "brier", "log_loss", "ece"),
    },
    TaskKind.CUSTOM: {"score"},
}
_FRACTIONS = {"accuracy", "accuracy_top5", "macro_f1", "ece"}
_BOUND = re.compile(r"\s*(?P<metric>\w+)\s*(?P<sign><=|>=)\s*(?P<bound>[^\s<>=]+)\s*")


def objectives_from_document(
    words: Mapping[str, Direction] | None, *, kind: TaskKind
) -> tuple[Objective, ...]:
    """Look up the metrics to optimize, in the order of ``METRICS``; the usual three for None.

    Raises:
        SpaceError: An unknown metric, one that this kind of task does not have, or one that
            is to be optimized the wrong way.
    """
    if words is None:
        score = "accuracy" if kind is TaskKind.CLASSIFICATION else "score"
        words = {
            name: METRICS[name].direction for name in ("latency_p99_ms", "throughput_sps", score)
        }
    for name, direction in words.items():
        metric = _metric(name, kind=kind, key=f"objectives.{name}")
        if direction is not metric.direction:
            raise SpaceError(
                f"{direction} makes no sense, {metric.label} is better the other way; "
                f"write {metric.direction}",
                key=f"objectives.{name}",
            )
    return tuple(
        Objective(metric=metric, direction=metric.direction)
        for name, metric in METRICS.items()
        if name in words
    )


def constraints_from_texts(texts: Sequence[str], *, kind: TaskKind) -> tuple[Constraint, ...]:
    """Parse bounds such as ``accuracy >= 0.85``, sorted in the order of ``METRICS``.

    Raises:
        SpaceError: Not of that form, an unknown metric, a metric bounded twice or on its good
            side, or a bound that the metric cannot have.
    """
    found: dict[str, Constraint] = {}
    for position, text in enumerate(texts):
        key = f"constraints[{position}]"
        constraint = _constraint(text, kind=kind, key=key)
        if constraint.metric.name in found:
            raise SpaceError(
                f"{text!r} bounds {constraint.metric.name} a second time; keep one of the two",
                key=key,
            )
        found[constraint.metric.name] = constraint
    return tuple(found[name] for name in METRICS if name in found)


def _constraint(text: str, *, kind: TaskKind, key: str) -> Constraint:
    parsed = _BOUND.fullmatch(text)
    bound = _number(parsed["bound"]) if parsed is not None else None
    if parsed is None or bound is None:
        raise SpaceError(
            f"{text!r} is no bound; write `metric <= number` or `metric >= number`", key=key
        )
    metric = _metric(parsed["metric"], kind=kind, key=key)
    upper = parsed["sign"] == "<="
    if upper != (metric.direction is Direction.MINIMIZE):
        sign = ">=" if upper else "<="
        raise SpaceError(
            f"{text!r} forbids the good side, as {metric.label} is to "
            f"{metric.direction.value}; write {metric.name} {sign} {bound:g}",
            key=key,
        )
    if metric.name in _FRACTIONS and not 0 <= bound <= 1:
        raise SpaceError(
            f"{text!r} can never be decided, {metric.name} lies in [0, 1]; write a fraction",
            key=key,
        )
    if metric.scale is Scale.LOG and bound <= 0:
        raise SpaceError(f"{text!r} bounds a positive metric; write a number above 0", key=key)
    return Constraint(metric=metric, upper=upper, bound=bound)


def _metric(name: str, *, kind: TaskKind, key: str) -> Metric:
    foreign = {each for other, names in _SCORED.items() if other is not kind for each in names}
    known = METRICS.keys() - foreign
    if name in foreign:
        raise SpaceError(
            f"a {kind.value} task has no {name!r}; {did_you_mean('', _SCORED[kind])}", key=key
        )
    if name not in known:
        raise SpaceError(f"there is no metric {name!r}; {did_you_mean(name, known)}", key=key)
    return METRICS[name]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
