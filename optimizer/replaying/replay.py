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
from optimizer.study.encoding import Encoding
from optimizer.study.objectives import Told

PRICE = "price_s"  # attribute of a trial


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
    teller, till, growing = Teller(table, noise=noise, seed=seed), Till(table), GrowingFront(truth)
    tried: set[int] = set()
    rows: list[int] = []
    prices_s: list[float] = []
    shares: list[float] = []
    ask_s: list[float] = []
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
