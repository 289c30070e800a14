"""Run a sampler over a deployment table: no device, the recorded prices.

The sampler sees an in-memory Optuna study that is told as a search tells it (logarithms,
constraints, the worst for what cannot run). A trial is charged what its model and engine cost if
nobody needed them before, and its own loading and measuring each time, a repeat's too. Besides,
each trial carries the attribute ``price_s``: [seconds of what is shared, seconds of its own].
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from time import process_time

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from optimizer.errors import SpaceExhaustedError
from optimizer.front.volume import Costs, costs_of_values, hypervolume, nondominated
from optimizer.replaying.table import FAILED, INFEASIBLE, STATES, Column, DeploymentTable
from optimizer.study.encoding import Encoding
from optimizer.study.objectives import (
    DEPLOYABLE,
    Told,
    told_of_infeasible,
    value_from_metric,
)
from trials.outcome import Environment, Infeasible

PRICE = "price_s"  # attribute of a trial

_TIMED = ("latency_", "throughput_", "energy_", "load_", "cold_call_")  # what noise is in


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a replay ends, besides when every row was tried; None is no limit.

    Attributes:
        trials: Told trials.
        price_s: Charged seconds; the trial that passes the limit counts.
        share: Of the full table's hypervolume, in (0, 1].
    """

    trials: int | None = None
    price_s: float | None = None
    share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replayed:
    """What a sampler did, each shape ``(trials,)``.

    Attributes:
        rows: Which row each trial tried.
        prices_s: What all trials so far cost, seconds.
        shares: Hypervolume of the feasible rows so far as a share of the full table's; ascends.
        ask_s: CPU seconds that the sampler took to propose; not part of the price.
    """

    rows: NDArray[np.int64]
    prices_s: Column
    shares: Column
    ask_s: Column


class Truth:
    """What is to be found in a table: feasible rows, their costs, the front and its volume.

    Attributes:
        feasible: Shape ``(rows,)``; measured, and every bound of the space is met.
        costs: Shape ``(rows, objectives)``; NaN where nothing was measured.
        members: Shape ``(members,)``; the rows on the front, ascending.
    """

    def __init__(self, table: DeploymentTable) -> None:
        self.feasible = table.completed.copy()
        for bound in table.space.constraints:
            column = table.metrics.column(bound.metric.name)
            meets = column <= bound.bound if bound.upper else column >= bound.bound
            self.feasible &= meets
        columns = [
            costs_of_values(table.metrics.column(one.metric.name), one)
            for one in table.space.objectives
        ]
        self.costs: Costs = np.stack(columns, axis=1)
        rows = np.flatnonzero(self.feasible)
        feasible = self.costs[rows]
        self.members = rows[nondominated(feasible)]
        # only the ends of the frame count; two rows are as good as all
        self._frame = np.stack([feasible.min(axis=0), feasible.max(axis=0)]) if rows.size else None
        self._whole = self.volume(self.costs[self.members])

    def volume(self, front: Costs) -> float:
        """Return the volume that points dominate in the frame of all feasible rows."""
        if self._frame is None or not len(front):
            return 0.0
        return hypervolume(np.unique(front, axis=0), self._frame)

    def share(self, front: Costs) -> float:
        """Return the volume that points dominate as a share of the full table's."""
        return self.volume(front) / self._whole if self._whole else 0.0


class _Growing:
    """The front of the rows that were tried so far."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._front: Costs = np.empty((0, truth.costs.shape[1]))
        self.share = 0.0

    def add(self, row: int) -> None:
        if not self._truth.feasible[row]:
            return
        cost = self._truth.costs[row]
        if (self._front <= cost).all(axis=1).any():
            return
        kept = self._front[~(cost <= self._front).all(axis=1)]
        self._front = np.vstack([kept, cost])
        self.share = max(self.share, self._truth.share(self._front))


class _Teller:
    """What a search would tell of a row, with noise where it is wanted."""

    def __init__(self, table: DeploymentTable, *, noise: float, seed: int) -> None:
        self._table = table
        self._random = np.random.default_rng((seed, 1))  # unlike the sampler's own stream
        space = table.space
        wanted = [one.metric.name for one in (*space.objectives, *space.constraints)]
        self._names = tuple(dict.fromkeys(wanted))
        self._values = np.stack([table.metrics.column(name) for name in self._names], axis=1)
        timed = np.array([name.startswith(_TIMED) for name in self._names])
        self._noise = np.where(timed, noise, 0.0)
        self._worst: tuple[float, ...] | None = None

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
            measured = [] if self._worst is None else [self._worst]
            return told_of_infeasible(outcome, self._table.space, measured)
        told = self._measured(row)
        self._remember(told.values)
        return told

    def _measured(self, row: int) -> Told:
        factors = np.exp(self._random.normal(0.0, self._noise))
        metrics = dict(zip(self._names, (self._values[row] * factors).tolist(), strict=True))
        space = self._table.space
        values = (value_from_metric(metrics[o.metric.name], o.metric) for o in space.objectives)
        violations = (
            (str(bound), bound.violation(metrics[bound.metric.name])) for bound in space.constraints
        )
        return Told(values=tuple(values), constraints=((DEPLOYABLE, 0.0), *violations))

    def _remember(self, values: Sequence[float]) -> None:
        if self._worst is None:
            self._worst = tuple(values)
            return
        pairs = zip(self._table.space.objectives, self._worst, values, strict=True)
        self._worst = tuple(
            max(old, new) if one.better(0.0, 1.0) else min(old, new) for one, old, new in pairs
        )


class _Till:
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


def replay(
    table: DeploymentTable,
    sampler: BaseSampler,
    *,
    limits: Limits,
    noise: float = 0.0,
    seed: int = 0,
    truth: Truth | None = None,
) -> Replayed:
    """Let a sampler search a table.

    Args:
        table: What is searched, by the objectives and constraints of its space.
        sampler: Proposes positions that the table has.
        limits: When to end.
        noise: Standard deviation of the logarithm of a factor that each told time and rate is
            multiplied with, drawn for each trial; the score uses the true values.
        seed: Of the noise.
        truth: What is to be found, if it is known already.
    """
    encoding = Encoding(table.space)
    truth = truth or Truth(table)
    study = _study(table, sampler)
    teller, till, growing = _Teller(table, noise=noise, seed=seed), _Till(table), _Growing(truth)
    tried: set[int] = set()
    rows, prices_s, shares, ask_s = [], [], [], []
    price_s = 0.0
    while not _is_over(limits, len(rows), price_s, growing.share) and len(tried) < len(table):
        began_s = process_time()
        try:
            trial = study.ask(encoding.distributions)
        except SpaceExhaustedError:
            break
        ask_s.append(process_time() - began_s)
        row = table.row(encoding.indices(trial.params))
        shared_s, own_s = till.charge(row)
        _tell(study, trial, teller.told(row), (shared_s, own_s))
        if row not in tried:
            tried.add(row)
            growing.add(row)
        price_s += shared_s + own_s
        rows.append(row)
        prices_s.append(price_s)
        shares.append(growing.share)
    return Replayed(
        rows=np.array(rows, dtype=np.int64),
        prices_s=np.array(prices_s, dtype=float),
        shares=np.array(shares, dtype=float),
        ask_s=np.array(ask_s, dtype=float),
    )


def _study(table: DeploymentTable, sampler: BaseSampler) -> optuna.Study:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(
            directions=[one.direction.value for one in table.space.objectives], sampler=sampler
        )
    finally:
        optuna.logging.set_verbosity(verbosity)


def _tell(
    study: optuna.Study, trial: optuna.Trial, told: Told | None, price_s: tuple[float, float]
) -> None:
    trial.set_user_attr(PRICE, list(price_s))
    if told is None:
        study.tell(trial, state=TrialState.FAIL)
        return
    for name, value in told.constraints:
        trial.set_constraint(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.tell(trial, told.values)


def _is_over(limits: Limits, trials: int, price_s: float, share: float) -> bool:
    return (
        (limits.trials is not None and trials >= limits.trials)
        or (limits.price_s is not None and price_s >= limits.price_s)
        or (limits.share is not None and share >= limits.share)
    )
