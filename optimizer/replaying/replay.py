"""Run a sampler over a deployment table: no device, the recorded prices.

The sampler sees an in-memory Optuna study that is told as a search tells it (logarithms,
constraints, the worst for what cannot run). A trial is charged what its model and engine cost if
nobody needed them before, and its own loading and measuring each time, a repeat's too. Besides,
each trial carries the attribute ``price_s``: [seconds of what is shared, seconds of its own].
"""

import warnings
from dataclasses import dataclass
from time import process_time

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from optimizer.errors import SpaceExhaustedError
from optimizer.replaying.table import Column, DeploymentTable
from optimizer.replaying.telling import Teller, Till
from optimizer.replaying.truth import GrowingFront, Truth
from optimizer.sampling.marks import PRICE
from optimizer.study.encoding import Encoding
from optimizer.study.objectives import Told


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
        has_ended: More trials would have brought nothing: all was tried or the wanted share
            reached, or the sampler had no more to propose.
    """

    rows: NDArray[np.int64]
    prices_s: Column
    shares: Column
    ask_s: Column
    has_ended: bool


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
        sampler: Proposes positions that the table has; one that raises SpaceExhaustedError ends.
        limits: When to end.
        noise: Standard deviation of the logarithm of a factor that each told time and rate is
            multiplied with, drawn for each trial; the score uses the true values.
        seed: Of the noise.
        truth: What is to be found, if it is known already.
    """
    course = _Course(table, truth or Truth(table), noise=noise, seed=seed)
    encoding = Encoding(table.space)
    study = _study(table, sampler)
    with warnings.catch_warnings():
        for quiet in (optuna.exceptions.ExperimentalWarning, FutureWarning):
            warnings.simplefilter("ignore", quiet)
        while not course.is_over(limits):
            began_s = process_time()
            try:
                trial = study.ask(encoding.distributions)
            except SpaceExhaustedError:
                return course.run(has_ended=True)
            course.ask_s.append(process_time() - began_s)
            row = table.row(encoding.indices(trial.params))
            told, price_s = course.visit(row)
            _tell(study, trial, told, price_s)
    return course.run(has_ended=course.has_ended(limits))


class _Course:
    """A table on which one sampler runs: what it is told, what it is charged, what it reached."""

    def __init__(self, table: DeploymentTable, truth: Truth, *, noise: float, seed: int) -> None:
        self._teller = Teller(table, noise=noise, seed=seed)
        self._till = Till(table)
        self._front = GrowingFront(truth)
        self._tried = np.zeros(len(table), dtype=bool)
        self._untried = len(table)
        self._price_s = 0.0
        self._rows: list[int] = []
        self._prices_s: list[float] = []
        self._shares: list[float] = []
        self.ask_s: list[float] = []

    def visit(self, row: int) -> tuple[Told | None, tuple[float, float]]:
        """Return what is told of a row and what it costs: what is shared, and its own."""
        shared_s, own_s = self._till.charge(row)
        if not self._tried[row]:
            self._tried[row] = True
            self._untried -= 1
            self._front.add(row)
        self._price_s += shared_s + own_s
        self._rows.append(row)
        self._prices_s.append(self._price_s)
        self._shares.append(self._front.share)
        return self._teller.told(row), (shared_s, own_s)

    def is_over(self, limits: Limits) -> bool:
        return (
            self.has_ended(limits)
            or (limits.trials is not None and len(self._rows) >= limits.trials)
            or (limits.price_s is not None and self._price_s >= limits.price_s)
        )

    def has_ended(self, limits: Limits) -> bool:
        return not self._untried or (
            limits.share is not None and self._front.share >= limits.share
        )

    def run(self, *, has_ended: bool) -> Replayed:
        return Replayed(
            rows=np.array(self._rows, dtype=np.int64),
            prices_s=np.array(self._prices_s, dtype=float),
            shares=np.array(self._shares, dtype=float),
            ask_s=np.array(self.ask_s, dtype=float),
            has_ended=has_ended,
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
    study.tell(trial, told.values)
