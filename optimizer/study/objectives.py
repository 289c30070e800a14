"""From an outcome to what Optuna is told: values, and constraints that are <= 0 where met.

Latency and throughput are told as log10, because a sampler should see ratios; people never see
these values. A deployment that cannot run has no values of its own. It is told with the worst that
was measured so far and the constraint ``deployable`` > 0: told as FAIL instead, the Gaussian
process proposed out-of-memory points in 91 % of later trials; told this way, in none.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from search_spaces.metrics import Metric, Scale
from search_spaces.space import Constraint, Objective, SearchSpace
from trials.outcome import Completed, Infeasible

DEPLOYABLE = "deployable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is told of one trial.

    Attributes:
        values: One per objective, in the sampler's scale.
        constraints: (name, value); <= 0 where met; the same names on every trial.
    """

    values: tuple[float, ...]
    constraints: tuple[tuple[str, float], ...]


def told_of_completed(outcome: Completed, space: SearchSpace) -> Told:
    """Tell a measured deployment's own values and violations.

    Raises:
        KeyError: An objective or constraint names a metric that was not measured.
    """
    values = tuple(
        value_from_metric(outcome.metric(objective.metric.name).value, objective.metric)
        for objective in space.objectives
    )
    violations = tuple(
        (str(constraint), constraint.violation(outcome.metric(constraint.metric.name).value))
        for constraint in space.constraints
    )
    return Told(values=values, constraints=((DEPLOYABLE, 0.0), *violations))


def told_of_infeasible(
    outcome: Infeasible, space: SearchSpace, measured: Iterable[Sequence[float]]
) -> Told:
    """Tell a deployment that cannot run with the worst values seen and every bound missed.

    Args:
        outcome: Why it cannot run; only the fact counts.
        space: Its objectives and constraints.
        measured: Values of the completed trials so far, in the sampler's scale.
    """
    assert outcome.state == "infeasible"
    columns = list(zip(*measured, strict=True)) or [() for _ in space.objectives]
    values = tuple(
        _worst(objective, column)
        for objective, column in zip(space.objectives, columns, strict=True)
    )
    missed = tuple((str(constraint), 1.0) for constraint in space.constraints)
    return Told(values=values, constraints=((DEPLOYABLE, 1.0), *missed))


def value_from_metric(value: float, metric: Metric) -> float:
    """Bring a metric to the sampler's scale.

    Raises:
        ValueError: A value <= 0 on a log scale.
    """
    return math.log10(value) if metric.scale is Scale.LOG else value


def sampler_name(metric: Metric) -> str:
    """Name an objective's value as the study shows it."""
    return f"log10({metric.name})" if metric.scale is Scale.LOG else metric.name


def meets(outcome: Completed, constraints: Iterable[Constraint]) -> bool:
    """Tell whether the measured values meet every bound."""
    return all(
        constraint.violation(outcome.metric(constraint.metric.name).value) <= 0
        for constraint in constraints
    )


def _worst(objective: Objective, column: Sequence[float]) -> float:
    if not column:
        return value_from_metric(objective.metric.worst, objective.metric)
    return max(column, key=lambda value: _badness(objective, value))


def _badness(objective: Objective, value: float) -> float:
    return -value if objective.better(1.0, 0.0) else value
