"""What a user asks of a front beside what the study wanted: other objectives, bounds, preferences.

Words come from the command line or from Python; everything here is checked against the study and
refused in one line.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optimizer.errors import UsageError
from optimizer.study.records import TrialRecord
from search_spaces.bounds import constraints_from_texts
from search_spaces.errors import SpaceError
from search_spaces.metrics import METRICS
from search_spaces.rules import Rule, rule_from_text
from search_spaces.space import Constraint, Objective, SearchSpace
from search_spaces.spelling import did_you_mean, nearest
from trials.outcome import Completed

_METRIC_FIRST = re.compile(r"\s*(\w+)\s*[<>]=?")
_ASSIGNMENT = re.compile(r"(?<![<>=!])=(?!=)")
_NAME = re.compile(r"[A-Za-z_][\w-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a front is to be of.

    Attributes:
        constraints: Of the space, and those that were asked for besides.
        rules: Which deployments count, by their axes.
    """

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    rules: tuple[Rule, ...] = ()

    def chosen(self, records: Sequence[TrialRecord]) -> list[TrialRecord]:
        """Return the records whose deployments count."""
        return [
            record
            for record in records
            if all(rule.allows(dict(record.outcome.deployment.axes())) for rule in self.rules)
        ]


def question_of(
    space: SearchSpace,
    records: Sequence[TrialRecord],
    *,
    objectives: Sequence[str] = (),
    where: Sequence[str] = (),
) -> Question:
    """Read what is asked of a study.

    Args:
        space: The study's.
        records: Its trials, which tell what was measured.
        objectives: Names of metrics; none for the study's own.
        where: Bounds such as ``latency_p99_ms <= 10`` or conditions on axes such as
            ``precision == 'int8' and batch_size <= 8``.

    Raises:
        UsageError: A metric that was not measured, or a condition that cannot be meant.
    """
    bounds = [text for text in where if _is_bound(text)]
    return Question(
        objectives=_objectives(objectives, records) if objectives else space.objectives,
        constraints=(*space.constraints, *_constraints(bounds, space)),
        rules=tuple(_rule(text, space) for text in where if text not in bounds),
    )


def weights_from_text(text: str, objectives: Sequence[Objective]) -> Mapping[str, float]:
    """Read weights such as ``latency_p99_ms=2,accuracy=1``.

    Raises:
        UsageError: No number, a negative one, or a metric that is no objective.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, sign, value = part.partition("=")
        objective = _objective(name.strip(), objectives)
        try:
            weight = float(value)
        except ValueError:
            weight = math.nan
        if not sign or not 0 <= weight < math.inf:
            raise UsageError(
                f"'{part.strip()}' is no weight", hint="write for example latency_p99_ms=2"
            )
        weights[objective.metric.name] = weight
    if not any(weights.values()):
        raise UsageError("all weights are 0", hint="give one objective a weight above 0")
    return weights


def order_from_text(text: str, objectives: Sequence[Objective]) -> tuple[Objective, ...]:
    """Read an order of objectives such as ``accuracy,latency_p99_ms``; the others follow.

    Raises:
        UsageError: A metric that is no objective, or one that stands twice.
    """
    names = [name.strip() for name in text.split(",")]
    if len(set(names)) < len(names):
        raise UsageError(f"'{text}' names an objective twice", hint="name each once")
    first = [_objective(name, objectives) for name in names]
    return (*first, *(one for one in objectives if one not in first))


def _objective(name: str, objectives: Sequence[Objective]) -> Objective:
    known = {objective.metric.name: objective for objective in objectives}
    if name not in known:
        raise UsageError(
            f"'{name}' is no objective here",
            hint=f"{did_you_mean(name, known)}; --objectives makes others of what was measured",
        )
    return known[name]


def _objectives(names: Sequence[str], records: Sequence[TrialRecord]) -> tuple[Objective, ...]:
    measured = [
        set(one.outcome.metrics()) for one in records if isinstance(one.outcome, Completed)
    ]
    everywhere = set.intersection(*measured) if measured else set()
    for name in names:
        if name not in everywhere:
            raise UsageError(
                f"'{name}' was not measured of every trial", hint=did_you_mean(name, everywhere)
            )
    if len(set(names)) < len(names):
        raise UsageError("an objective is named twice", hint="name each once")
    return tuple(Objective(metric=METRICS[one], direction=METRICS[one].direction) for one in names)


def _is_bound(text: str) -> bool:
    """Tell whether a condition speaks of a metric; then it is judged by intervals."""
    found = _METRIC_FIRST.match(text)
    return found is not None and found[1] in METRICS


def _constraints(texts: Sequence[str], space: SearchSpace) -> tuple[Constraint, ...]:
    try:
        return constraints_from_texts(texts, kind=space.task.kind)
    except SpaceError as error:
        raise UsageError(error.problem, hint="one bound per --where") from error


def _rule(text: str, space: SearchSpace) -> Rule:
    names = [axis.name for axis in space.axes]
    try:
        rule = rule_from_text(text, axes=names)
        rule.allows({axis.name: axis.values[0] for axis in space.axes})
    except SpaceError as error:
        raise UsageError(
            error.problem,
            hint=_mend(text, space),
        ) from error
    known = {axis.name: [str(value) for value in axis.values] for axis in space.axes}
    for axis, word in rule.mentions():
        if word not in known[axis]:
            raise UsageError(
                f"{axis} is never {word!r} in this study", hint=did_you_mean(word, known[axis])
            )
    return rule


def _mend(text: str, space: SearchSpace) -> str:
    """Say what was most likely meant by a condition that is none."""
    if _ASSIGNMENT.search(text):
        return "compare with =="
    words = {str(value) for axis in space.axes for value in axis.values}
    for name in _NAME.findall(text):
        if name in words:
            return f"put text in quotes: '{name}'"
        metric = nearest(name, METRICS)
        if metric is not None and name not in {axis.name for axis in space.axes}:
            return f"did you mean the metric {metric}?"
    return "write a bound on a metric, or a condition on axes, one per --where"
