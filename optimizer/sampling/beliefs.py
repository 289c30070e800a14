"""What is believed of the points of a pool: expected objectives, and whether they can run.

Hyperparameters are found anew after 15 % more observations, from the observations at that time, so
that a sampler which begins again in another process believes the same. In between, observations
are added as they come.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from optimizer.sampling.fitting import fitted
from optimizer.sampling.history import Observation
from optimizer.sampling.kernel import Factor, Kernel, Matrix
from optimizer.sampling.knowledge import Coordinates, Knowledge
from optimizer.sampling.lattice import Lattice, Points, Rows
from optimizer.sampling.posterior import Posterior

_GROWTH = 1.15
_MOST_FITTED = 200  # observations that hyperparameters are found from
_HOPE = 0.6  # prior mean of a label that is 1 where a point runs and -1 where it cannot
_EXACT = 1e-9  # relative; bounds of an objective are linear in it up to rounding
_CERTAIN = 1e-12  # a standard deviation below which a value is known
_LEAST_LINKED = 3  # observations that a line must go through before it is believed


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A constraint that is a line in one objective: ``slope × cost + offset <= 0``."""

    objective: int
    slope: float
    offset: float

    def holds(self, costs: Matrix) -> Matrix:
        """Tell of each point, shape ``(…, objectives)``, whether it meets the bound: 1 or 0."""
        return np.asarray(self.slope * costs[..., self.objective] + self.offset <= 0, dtype=float)

    def chance(self, costs: Matrix, spreads: Matrix) -> Matrix:
        """Return how likely points meet the bound.

        Args:
            costs: Expected ones, shape ``(n, objectives)``.
            spreads: Their standard deviations, shape ``(n, objectives)``; 0 where known.
        """
        missed = self.slope * costs[:, self.objective] + self.offset
        doubt = abs(self.slope) * np.maximum(spreads[:, self.objective], _CERTAIN)
        return np.asarray(ndtr(-missed / doubt))


def fitting_point(count: int, *, first: int) -> int:
    """Return from how many of ``count`` observations the hyperparameters are to be found."""
    found = first
    while (following := max(found + 1, math.ceil(found * _GROWTH))) <= count:
        found = following
    return found


class Beliefs:
    """Models of everything that was observed, over the points of a pool.

    Args:
        lattice: The space.
        knowledge: What is known beforehand.
        pool: Rows of the lattice, shape ``(pool,)``.
        seen: Observations that hyperparameters are found from; at least one was measured.
    """

    def __init__(
        self, lattice: Lattice, knowledge: Knowledge, pool: Rows, seen: Sequence[Observation]
    ) -> None:
        self.pool = pool
        self.coordinates = Coordinates(lattice, knowledge.law)
        self._lattice = lattice
        self._of_engine = knowledge.of_engine
        self._points = lattice.with_engines
        self._all = tuple(_factors(lattice, shared_only=False))
        self._shared = tuple(_factors(lattice, shared_only=True))
        self._engines: dict[int, Observation] = {}
        self._seen: tuple[Observation, ...] = ()
        measured = [one for one in seen if one.costs is not None]
        rows, costs = _rows_of(measured), _costs_of(measured)
        self._goals = self._models(rows, self.coordinates.modelled(costs, rows))
        self._runs = self._running(seen) if len(measured) < len(seen) else None
        self.bounds, free = _linked(measured, costs)
        self._bound_to_engine = knowledge.bounds_of_engine
        self._violations = {name: self._violation(name, rows, measured) for name in free}
        self.learn(seen)

    def learn(self, seen: Sequence[Observation]) -> None:
        """Take in the observations that came since; see :meth:`knows_begin_of`."""
        assert self.knows_begin_of(seen), "observations are never taken back"
        fresh = seen[len(self._seen) :]
        self._seen = tuple(seen)
        if not fresh:
            return
        if self._runs is not None:
            labels = np.array([_label(one) for one in fresh])
            self._runs.observe(self._points[_rows_of(fresh)], labels)
        measured = [one for one in fresh if one.costs is not None]
        if not measured:
            return
        rows = _rows_of(measured)
        modelled = self.coordinates.modelled(_costs_of(measured), rows)
        news = [at for at, one in enumerate(measured) if self._is_new_engine(one)]
        for goal, model in enumerate(self._goals):
            at = news if goal in self._of_engine else slice(None)
            model.observe(self._points[rows[at]], modelled[at, goal])
        for name, model in self._violations.items():
            at = news if name in self._bound_to_engine else slice(None)
            model.observe(self._points[rows[at]], _violations_of(measured, name)[at])

    def knows_begin_of(self, seen: Sequence[Observation]) -> bool:
        """Tell whether observations begin with those that were learned from."""
        return tuple(seen[: len(self._seen)]) == self._seen

    @contextmanager
    def assuming(self, rows: Rows) -> Iterator[None]:
        """Take points for measured as expected, as long as this lasts."""
        with ExitStack() as stack:
            for model in (*self._goals, *self._violations.values()):
                stack.enter_context(model.assuming(self._points[rows]))
            yield

    def expected(self) -> tuple[Matrix, Matrix]:
        """Return means and standard deviations of what is modelled, ``(pool, objectives)``.

        An objective that belongs to the engine is known exactly once one point of it was measured.
        """
        means = np.stack([model.mean for model in self._goals], axis=1)
        spreads = np.sqrt(np.stack([model.variance for model in self._goals], axis=1))
        for goal in self._of_engine:
            known = self._spread_over_engines(
                {engine: _costs_of([one])[0, goal] for engine, one in self._engines.items()}
            )
            is_known = ~np.isnan(known)
            means[is_known, goal] = known[is_known]
            spreads[is_known, goal] = 0.0
        return means, spreads

    def _spread_over_engines(self, values: Mapping[int, float]) -> Matrix:
        """Return what is known by engine for each point, shape ``(pool,)``; NaN where nothing."""
        known = np.full(int(self._lattice.engines.max()) + 1, np.nan)
        known[list(values)] = list(values.values())
        return np.asarray(known[self._lattice.engines[self.pool]])

    def doubts(self, spreads: Matrix) -> Matrix:
        """Return standard deviations of costs as they would be measured.

        Args:
            spreads: Of what is modelled, shape ``(n, objectives)``.
        """
        noises = np.array([model.noise for model in self._goals])
        noises[list(self._of_engine)] = 0.0
        return np.sqrt(self.coordinates.summed(spreads**2 + noises))

    def main_effects(self) -> Matrix:
        """Return how much of what is believed each axis explains alone.

        The variance of the mean over all points of one value, as a share of the variance of all
        (first-order indices of Sobol' 1993), over the points that are looked at.

        Returns:
            Shape ``(axes, objectives)``, in [0, 1]; NaN where all is alike.
        """
        means, _ = self.expected()
        costs = self.coordinates.costs(means, self.pool)
        points = self._lattice.points[self.pool]
        whole = costs.var(axis=0)
        shares = np.full((len(self._lattice.axes), costs.shape[1]), np.nan)
        for place in range(len(self._lattice.axes)):
            _, group, sizes = np.unique(points[:, place], return_inverse=True, return_counts=True)
            for goal, column in enumerate(costs.T):
                if whole[goal] > _EXACT**2:
                    by_value = np.bincount(group.ravel(), weights=column) / sizes
                    off = by_value[group.ravel()] - column.mean()
                    shares[place, goal] = np.mean(off**2) / whole[goal]
        return shares

    def chances(self) -> Matrix:
        """Return how likely each point can run and meets the bounds that are no :class:`Bound`.

        Returns:
            Shape ``(pool,)``, in [0, 1].
        """
        chances = np.ones(len(self.pool))
        if self._runs is not None:
            doubt = np.sqrt(self._runs.variance + self._runs.noise)
            chances = ndtr(self._runs.mean / doubt)
        for name, model in self._violations.items():
            chance = ndtr(-model.mean / np.sqrt(model.variance + model.noise))
            if name in self._bound_to_engine:
                known = self._spread_over_engines(
                    {engine: dict(one.violations)[name] for engine, one in self._engines.items()}
                )
                chance = np.where(np.isnan(known), chance, known <= 0)
            chances = chances * chance
        return np.asarray(chances)

    def _models(self, rows: Rows, targets: Matrix) -> list[Posterior]:
        models = []
        _, first = np.unique(self._lattice.engines[rows], return_index=True)
        for goal, column in enumerate(targets.T):
            if goal in self._of_engine:
                models.append(self._model(self._shared, rows[first], column[first]))
            else:
                models.append(self._model(self._all, rows, column))
        return models

    def _violation(self, name: str, rows: Rows, measured: Sequence[Observation]) -> Posterior:
        targets = _violations_of(measured, name)
        if name not in self._bound_to_engine:
            return self._model(self._all, rows, targets)
        _, first = np.unique(self._lattice.engines[rows], return_index=True)
        return self._model(self._shared, rows[first], targets[first])

    def _model(self, factors: tuple[Factor, ...], rows: Rows, targets: Matrix) -> Posterior:
        center, spread = float(targets.mean()), float(targets.std())
        if spread <= _EXACT * max(1.0, abs(center)):
            spread = 1e-3  # all alike so far: small surprises are possible
        at = _spread_out(len(rows))
        kernel = fitted(factors, self._points[rows[at]], (targets[at] - center) / spread)
        return Posterior(kernel, self._points[self.pool], center=center, spread=spread)

    def _running(self, seen: Sequence[Observation]) -> Posterior:
        rows = _rows_of(seen)
        labels = np.array([_label(one) for one in seen])
        at = _spread_out(len(rows))
        kernel = fitted(self._all, self._points[rows[at]], labels[at] - _HOPE)
        return Posterior(kernel, self._points[self.pool], center=_HOPE, spread=1.0)

    def _is_new_engine(self, one: Observation) -> bool:
        """Remember what belongs to an engine; tell whether that was not known."""
        assert one.costs is not None
        engine = int(self._lattice.engines[one.row])
        is_new = engine not in self._engines
        self._engines.setdefault(engine, one)
        return is_new


def chances_to_run(
    kernel: Kernel, points: Points, rows: Rows, seen: Sequence[Observation]
) -> Matrix:
    """Return how likely points can run where nothing else is known of them, shape ``(rows,)``.

    Args:
        kernel: How alike points are.
        points: Of the lattice, with their engines.
        rows: Which to tell of.
        seen: What was tried.
    """
    model = Posterior(kernel, points[rows], center=_HOPE, spread=1.0)
    model.observe(points[_rows_of(seen)], np.array([_label(one) for one in seen]))
    return np.asarray(ndtr(model.mean / np.sqrt(model.variance + model.noise)))


def _factors(lattice: Lattice, *, shared_only: bool) -> Iterator[Factor]:
    """Yield the axes that vary, and the engine where it is more than one axis."""
    varying = [
        (at, axis)
        for at, axis in enumerate(lattice.axes)
        if len(axis.codes) > 1 and (axis.is_shared or not shared_only)
    ]
    for at, axis in varying:
        yield Factor(place=at, coordinates=axis.coordinates)
    shared = sum(axis.is_shared for _, axis in varying)
    if (shared > 1 and shared_only) or 1 < shared < len(varying):
        yield Factor(place=len(lattice.axes))


def _rows_of(seen: Sequence[Observation]) -> Rows:
    return np.array([one.row for one in seen], dtype=np.int64)


def _costs_of(measured: Sequence[Observation]) -> Matrix:
    return np.array([one.costs for one in measured], dtype=float)


def _violations_of(measured: Sequence[Observation], name: str) -> Matrix:
    found = [dict(one.violations).get(name) for one in measured]
    if None in found:
        raise ValueError(
            f"constraint {name!r} is set on some trials and not on others; set it on all of them"
        )
    return np.array(found, dtype=float)


def _label(one: Observation) -> float:
    return -1.0 if one.costs is None else 1.0


def _spread_out(count: int) -> Rows:
    """Choose observations to find hyperparameters from: all, or as many as time allows."""
    if count <= _MOST_FITTED:
        return np.arange(count)
    return np.linspace(0, count - 1, _MOST_FITTED).round().astype(np.int64)


def _linked(
    measured: Sequence[Observation], costs: Matrix
) -> tuple[tuple[Bound, ...], tuple[str, ...]]:
    """Find the constraints that are bounds of an objective, and those that must be modelled."""
    bounds, free = [], []
    for name in sorted({name for one in measured for name, _ in one.violations}):
        values = _violations_of(measured, name)
        found = next((bound for bound in _lines(values, costs)), None)
        if found is None:
            free.append(name)
        else:
            bounds.append(found)
    return tuple(bounds), tuple(free)


def _lines(values: Matrix, costs: Matrix) -> Iterator[Bound]:
    for goal, column in enumerate(costs.T):
        low, high = int(np.argmin(column)), int(np.argmax(column))
        if len(np.unique(column)) < _LEAST_LINKED:
            continue
        slope = (values[high] - values[low]) / (column[high] - column[low])
        offset = values[low] - slope * column[low]
        off = np.abs(values - slope * column - offset).max()
        if slope and off <= _EXACT * max(1.0, np.abs(values).max()):
            yield Bound(objective=goal, slope=float(slope), offset=float(offset))
