"""What a search would tell of a row of a table, and what the row would cost it."""

from collections.abc import Sequence

import numpy as np

from optimizer.replaying.table import FAILED, INFEASIBLE, STATES, Column, DeploymentTable
from optimizer.study.objectives import (
    DEPLOYABLE,
    Told,
    told_of_infeasible,
    value_from_metric,
)
from search_spaces.metrics import Direction
from trials.capabilities import wanted_metrics
from trials.outcome import Environment, Infeasible

_TIMED = ("latency_", "throughput_", "energy_", "load_", "cold_call_")  # what noise is in


class Teller:
    """What a search would tell of a row, with noise where it is wanted."""

    def __init__(self, table: DeploymentTable, *, noise: float, seed: int) -> None:
        self._table = table
        self._random = np.random.default_rng((seed, 1))  # unlike the sampler's own stream
        space = table.space
        self._names = tuple(dict.fromkeys(wanted_metrics(space)))
        self._values = np.stack([table.metrics.column(name) for name in self._names], axis=1)
        timed = np.array([name.startswith(_TIMED) for name in self._names])
        self._noise = np.where(timed, noise, 0.0)
        is_lower_better = [one.direction is Direction.MINIMIZE for one in space.objectives]
        self._signs = np.where(is_lower_better, 1.0, -1.0)
        self._badness: Column | None = None  # a row for each objective

    def told(self, row: int) -> Told | None:
        """Return what is told; None for a row that failed."""
        state = STATES[self._table.states[row]]
        if state == FAILED:
            return None
        if state == INFEASIBLE:
            outcome = Infeasible(
                deployment=self._table.deployment(row),
                kind="unsupported",
                reason=self._table.reasons[row],
                environment=Environment(facts=()),
            )
            # the worst alone says as much as all that was measured
            worst = [] if self._badness is None else [(self._signs * self._badness).tolist()]
            return told_of_infeasible(outcome, self._table.space, worst)
        told = self._measured(row)
        self._remember(told.values)
        return told

    def _measured(self, row: int) -> Told:
        factors = np.exp(self._random.normal(0.0, self._noise))
        metrics = dict(zip(self._names, (self._values[row] * factors).tolist(), strict=True))
        space = self._table.space
        values = (value_from_metric(metrics[o.metric.name], o.metric) for o in space.objectives)
        violations = (
            (str(bound), bound.violation(metrics[bound.metric.name]))
            for bound in space.constraints
        )
        return Told(values=tuple(values), constraints=((DEPLOYABLE, 0.0), *violations))

    def _remember(self, values: Sequence[float]) -> None:
        badness = self._signs * values
        known = self._badness
        self._badness = badness if known is None else np.maximum(known, badness)


class Till:
    """Charges what is shared once."""

    def __init__(self, table: DeploymentTable) -> None:
        self._table = table
        self._convert_s, self._engine_s = table.prices.convert_s, table.prices.engine_s
        self._own_s = table.prices.own_s
        self._models: set[int] = set()
        self._engines: set[int] = set()

    def charge(self, row: int) -> tuple[float, float]:
        """Return the seconds of what is shared and not yet stored, and those of the row's own."""
        model, engine = int(self._table.models[row]), int(self._table.engines[row])
        shared_s = 0.0
        if model not in self._models:
            self._models.add(model)
            shared_s += float(self._convert_s[row])
        if engine not in self._engines:
            self._engines.add(engine)
            shared_s += float(self._engine_s[row])
        return shared_s, float(self._own_s[row])
