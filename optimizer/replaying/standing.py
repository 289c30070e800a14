"""What a race came to, in numbers: prices to reach shares, shares after trials, best points.

Quantiles over seeds are values that a seed had (Hyndman & Fan 1996, type 1), because a share that
was not reached has an infinite price, with which nothing can be averaged.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.replaying.race import Runs
from optimizer.replaying.replay import Replayed
from optimizer.replaying.table import Column, DeploymentTable
from optimizer.replaying.truth import Truth
from search_spaces.space import Objective

SHARES = (0.90, 0.95, 0.99)
TRIALS = (30, 60, 120)
NEAR = 1.02  # a point this close to the best, as a ratio, is as good

_QUARTILES = (0.25, 0.5, 0.75)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Quartiles of a number over the seeds; not finite where it was not reached.

    Attributes:
        reached: Seeds that have the number.
        seeds: All of them.
    """

    low: float
    median: float
    high: float
    reached: int
    seeds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best feasible point of one objective.

    Attributes:
        ratio: How much worse than the true best at the end of a run, as a ratio >= 1; where values
            may be negative, 1 and the distance as a share of the range.
        prices_s: Seconds until it was within 2 % of the true best.
    """

    objective: Objective
    ratio: Spread
    prices_s: Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What one entrant reached.

    Attributes:
        prices_s: Seconds to reach each of ``SHARES``; likewise ``trials``.
        shares: After each of ``TRIALS``; -inf of a run that was stopped before.
        members: Share of the front's members that were found by the end.
        tried: Different deployments by the end.
        ended_s: Price at the end.
        ask_ms: CPU milliseconds to propose one trial, mean of each run.
        bests: One for each objective.
    """

    name: str
    is_builtin: bool
    prices_s: tuple[Spread, ...]
    trials: tuple[Spread, ...]
    shares: tuple[Spread, ...]
    members: Spread
    tried: Spread
    ended_s: Spread
    ask_ms: Spread
    bests: tuple[Best, ...]


def standings_of(table: DeploymentTable, raced: Iterable[Runs]) -> tuple[Standing, ...]:
    """Reduce all runs to what they reached, in the order of the entrants."""
    truth = Truth(table)
    return tuple(_standing(table, truth, one) for one in raced)


def spread_of(values: Sequence[float]) -> Spread:
    """Return the quartiles of at least one number, some of which may be infinite."""
    found = np.asarray(values, dtype=float)
    low, median, high = np.quantile(found, _QUARTILES, method="inverted_cdf").tolist()
    reached = int(np.isfinite(found).sum())
    return Spread(low=low, median=median, high=high, reached=reached, seeds=len(found))


def ratio_of(ours: Spread, theirs: Spread) -> float | None:
    """Return how much of another's median price was paid; None where either did not get there."""
    if not math.isfinite(ours.median) or not math.isfinite(theirs.median) or theirs.median == 0:
        return None
    return ours.median / theirs.median


def best_builtin(standings: Sequence[Standing], at: int) -> Standing | None:
    """Choose the built-in sampler that needed least for a share; None where none got there.

    Args:
        standings: Who raced.
        at: Index into ``SHARES``.
    """
    there = [one for one in standings if one.is_builtin and math.isfinite(one.prices_s[at].median)]
    return min(there, key=lambda one: one.prices_s[at].median, default=None)


def _standing(table: DeploymentTable, truth: Truth, raced: Runs) -> Standing:
    runs, members = raced.runs, set(truth.members.tolist())
    return Standing(
        name=raced.name,
        is_builtin=raced.contestant.is_builtin,
        prices_s=tuple(spread_of([_price(run, to) for run in runs]) for to in SHARES),
        trials=tuple(spread_of([_trial(run, to) for run in runs]) for to in SHARES),
        shares=tuple(spread_of([_share_after(run, count) for run in runs]) for count in TRIALS),
        members=spread_of([_found(run, members) for run in runs]),
        tried=spread_of([len(set(run.rows.tolist())) for run in runs]),
        ended_s=spread_of([float(run.prices_s.max(initial=0.0)) for run in runs]),
        ask_ms=spread_of([float(run.ask_s.sum() * 1e3 / max(1, run.ask_s.size)) for run in runs]),
        bests=tuple(_best(table, truth, runs, one) for one in table.space.objectives),
    )


def _price(run: Replayed, share: float) -> float:
    at = _first(run.shares >= share)
    return math.inf if at is None else float(run.prices_s[at])


def _trial(run: Replayed, share: float) -> float:
    at = _first(run.shares >= share)
    return math.inf if at is None else at + 1.0


def _first(is_there: NDArray[np.bool_]) -> int | None:
    return int(is_there.argmax()) if is_there.any() else None


def _share_after(run: Replayed, trials: int) -> float:
    """Return the share after some trials; of a run that was stopped before, the least."""
    if run.shares.size >= trials:
        return float(run.shares[trials - 1])
    return float(run.shares[-1]) if run.has_ended and run.shares.size else -math.inf


def _found(run: Replayed, members: set[int]) -> float:
    return len(members.intersection(run.rows.tolist())) / max(1, len(members))


def _best(
    table: DeploymentTable, truth: Truth, runs: Sequence[Replayed], objective: Objective
) -> Best:
    ratios = _ratios(table, truth, objective)
    reached = [np.minimum.accumulate(ratios[run.rows]) for run in runs]
    return Best(
        objective=objective,
        ratio=spread_of([float(one[-1]) if one.size else math.inf for one in reached]),
        prices_s=spread_of(
            [
                math.inf if at is None else float(run.prices_s[at])
                for run, at in zip(runs, (_first(one <= NEAR) for one in reached), strict=True)
            ]
        ),
    )


def _ratios(table: DeploymentTable, truth: Truth, objective: Objective) -> Column:
    """Return how much worse each row is than the true best, infinite where infeasible."""
    values = table.metrics.column(objective.metric.name)
    feasible = values[truth.feasible]
    ratios = np.full(len(table), math.inf)
    if not feasible.size:
        return ratios
    is_lower_better = objective.better(0.0, 1.0)
    best = feasible.min() if is_lower_better else feasible.max()
    if (feasible <= 0).any():  # scores that may be negative have no ratios; a share of the range
        found = 1 + np.abs(feasible - best) / max(float(np.ptp(feasible)), math.ulp(1.0))
    else:
        found = feasible / best if is_lower_better else best / feasible
    ratios[truth.feasible] = np.where(feasible == best, 1.0, found)
    return ratios
