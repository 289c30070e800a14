"""Which point is worth its price most: expected hypervolume per second, of all points at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import qmc

from optimizer.sampling.beliefs import (
    Beliefs,
    chances_to_run,
    fitting_point,
)
from optimizer.sampling.expected_prices import ExpectedPrices
from optimizer.sampling.fitting import usual
from optimizer.sampling.history import Observation, Snapshot
from optimizer.sampling.kernel import Factor, Matrix
from optimizer.sampling.knowledge import Knowledge
from optimizer.sampling.lattice import Lattice, Rows
from optimizer.sampling.posterior import Posterior
from optimizer.sampling.room import Room

_FIRST = 4  # measured points before anything is believed
_NODES = 16  # at which expectations are computed; a power of two, as Sobol' sequences want
_HOPEFUL = 2.5  # standard deviations: what gains nothing even then is not looked at
_MOST_LOOKED_AT = 2000
_MOST_POOLED, _LEAST_POOLED = 8000, 1000
_MOST_KEPT = 8_000_000  # numbers, of each model: points looked at times observations; 64 MB
_MOST_AT_FIRST = 5000
_MARGIN = 0.1  # the reference lies this share of the range beyond the worst, as in fronts
_PRICE_POWER = 0.5  # of the price that gains are divided by; docs/decisions/0020
_AHEAD = 12  # points of a new engine that its price is spread over
_OVERLAP = 0.7  # share of the gain that is left after a better point of the same engine
_LIKELY = 0.5
_LEAST_S = 1e-9
_ALIKE = 1e-6  # relative; what differs less is equally good


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weighed:
    """Free points and what is expected of them, each of shape ``(n,)`` where nothing is said.

    Attributes:
        rows: Their numbers on the lattice.
        costs: Expected costs, shape ``(n, objectives)``.
        doubts: Standard deviations of what would be measured, shape ``(n, objectives)``.
        chances: How likely each can run and meets the bounds on what is no objective.
        gains: Expected growth of the hypervolume, as a share of the box.
        hopes: The growth if all went very well.
        shared_s: Price of what is shared, seconds; 0 where it is there.
        own_s: Price of their own, seconds.
    """

    rows: Rows
    costs: Matrix
    doubts: Matrix
    chances: Matrix
    gains: Matrix
    hopes: Matrix
    shared_s: Matrix
    own_s: Matrix


class Proposer:
    """Proposes points of a lattice; never one that was taken, and the same for the same history.

    Args:
        lattice: The space.
        knowledge: What is known beforehand.
        objectives: How many there are.
        seed: Of ties, of the first points, and of the pool of a large lattice.
    """

    def __init__(
        self, lattice: Lattice, knowledge: Knowledge, *, objectives: int, seed: int
    ) -> None:
        self._lattice = lattice
        self._knowledge = knowledge
        self._seed = seed
        points = qmc.Sobol(objectives, rng=np.random.default_rng(seed)).random(_NODES)
        self._nodes = ndtri(np.clip(points, 1e-6, 1 - 1e-6))
        self._beliefs: Beliefs | None = None
        self._fitted = 0

    def propose(self, now: Snapshot) -> int | None:
        """Return the number of the point to try, or None where all are taken."""
        is_free = self._is_free(now)
        if not is_free.any():
            return None
        if not has_learned(now):
            return self._to_learn_from(now, np.flatnonzero(is_free))
        weighed = self.weighed(now)
        if not len(weighed.rows):
            return int(self._random(len(now.seen)).choice(np.flatnonzero(is_free)))
        return int(weighed.rows[self._worth_most(weighed)])

    def weighed(self, now: Snapshot) -> Weighed:
        """Say what is expected of the free points that are looked at.

        Args:
            now: Of which something was learned; see :func:`has_learned`.
        """
        beliefs = self.believed(now.seen)
        at = np.flatnonzero(self._is_free(now)[beliefs.pool])
        with beliefs.assuming(now.pending):
            return self._weighed(beliefs, at, now)

    def _is_free(self, now: Snapshot) -> NDArray[np.bool_]:
        is_free = np.ones(len(self._lattice), dtype=bool)
        is_free[now.taken] = False
        return is_free

    def believed(self, seen: Sequence[Observation]) -> Beliefs:
        """Bring the beliefs up to date; with new hyperparameters and pool where it is time."""
        fit_at = _fit_at(seen)
        beliefs = self._beliefs
        if beliefs is None or fit_at != self._fitted or not beliefs.knows_begin_of(seen):
            beliefs = Beliefs(
                self._lattice, self._knowledge, self._pool(seen[:fit_at]), seen[:fit_at]
            )
            self._fitted = fit_at
        beliefs.learn(seen)
        self._beliefs = beliefs
        return beliefs

    def _weighed(self, beliefs: Beliefs, at: Rows, now: Snapshot) -> Weighed:
        means, spreads = beliefs.expected()
        chances = beliefs.chances()
        expected = beliefs.coordinates.costs(means, beliefs.pool)
        doubts = np.sqrt(beliefs.coordinates.summed(spreads**2))
        likely = chances.copy()
        for bound in beliefs.bounds:
            likely *= bound.chance(expected, doubts)
        ideal, width = _frame(expected[likely > _LIKELY], now.seen)
        feasible = [one.costs for one in now.seen if one.costs is not None and one.is_feasible]
        running = np.isin(beliefs.pool, now.pending) & (likely > _LIKELY)
        front = np.concatenate([np.reshape(feasible, (-1, means.shape[1])), expected[running]])
        room = Room((front - ideal) / width)
        rows, means, spreads = beliefs.pool[at], means[at], spreads[at]
        expected, chances, likely = expected[at], chances[at], likely[at]
        lowest = expected - _HOPEFUL * beliefs.coordinates.lowest(spreads)
        hopes = room.above((lowest - ideal) / width) * likely
        looked = np.argsort(-hopes, kind="stable")[:_MOST_LOOKED_AT]
        looked = looked[hopes[looked] > 0]
        gains = np.zeros(len(at))
        costs = self._drawn(beliefs, means[looked], spreads[looked], rows[looked])
        gained = room.above((costs - ideal) / width)
        for bound in beliefs.bounds:
            gained = gained * bound.holds(costs)
        gains[looked] = gained.mean(axis=1) * chances[looked]
        shared_s, own_s = ExpectedPrices(self._lattice, now.seen).expected(
            rows, pending=now.pending
        )
        return Weighed(
            rows=rows,
            costs=expected,
            doubts=beliefs.doubts(spreads),
            chances=chances,
            gains=gains,
            hopes=hopes,
            shared_s=shared_s,
            own_s=own_s,
        )

    def _drawn(self, beliefs: Beliefs, means: Matrix, spreads: Matrix, rows: Rows) -> Matrix:
        """Return costs at the nodes of what is believed, shape ``(n, nodes, objectives)``."""
        modelled = means[:, None, :] + self._nodes[None] * spreads[:, None, :]
        return beliefs.coordinates.costs(modelled, rows)

    def worths(self, among: Weighed) -> Matrix:
        """Return what points are worth trying: gain by price, shape ``(n,)``.

        The price of a new engine is spread over its best points, for it is paid once; the best of
        them is worth what they are together.
        """
        gains, shared_s, own_s = among.gains, among.shared_s, among.own_s
        rates = gains / np.maximum(shared_s + own_s, _LEAST_S) ** _PRICE_POWER
        engines = self._lattice.engines[among.rows]
        fresh = np.flatnonzero((shared_s > 0) & (gains > 0))
        for engine in np.unique(engines[fresh]):
            its = fresh[engines[fresh] == engine]
            its = its[np.argsort(-gains[its], kind="stable")][:_AHEAD]
            together = np.cumsum(gains[its] * _OVERLAP ** np.arange(len(its)))
            price = shared_s[its[0]] + np.cumsum(own_s[its])
            rates[its[0]] = max(rates[its[0]], float((together / price**_PRICE_POWER).max()))
        return np.asarray(rates)

    def _worth_most(self, among: Weighed) -> int:
        """Choose by gain and price; where nothing is to be gained, what is least known."""
        if among.gains.max() > 0:
            return _first_best(self.worths(among))
        if (
            among.hopes.max() > 0
        ):  # bounds that none is likely to meet: the likeliest for its price
            price = np.maximum(among.shared_s + among.own_s, _LEAST_S) ** _PRICE_POWER
            return _first_best(among.hopes / price)
        return _first_best(among.doubts.sum(axis=1))

    def _pool(self, seen: Sequence[Observation]) -> Rows:
        """Choose the points that are looked at: all, or of a large lattice some.

        These are the neighbours of what is on the front, along every axis, and a random sample.
        """
        most = max(_LEAST_POOLED, min(_MOST_POOLED, _MOST_KEPT // len(seen)))
        if len(self._lattice) <= most:
            return np.arange(len(self._lattice))
        random = self._random(len(seen))
        half = most // 2
        near = self._near([one.row for one in _front(seen)])
        if len(near) > half:
            near = random.choice(near, half, replace=False)
        sample = random.choice(len(self._lattice), half, replace=False)
        return np.unique(np.concatenate([near, sample]))

    def _near(self, rows: list[int]) -> Rows:
        points = self._lattice.points[rows]
        found = [points]
        for place, axis in enumerate(self._lattice.axes):
            for value in range(len(axis.codes)):
                moved = points.copy()
                moved[:, place] = value
                found.append(moved)
        near = np.unique(self._lattice.rows(np.concatenate(found)))
        return near[near >= 0]

    def _to_learn_from(self, now: Snapshot, free: Rows) -> int:
        """Choose a first point: the middle, then always where least is known."""
        random = self._random(len(now.taken))
        if len(free) > _MOST_AT_FIRST:
            free = random.choice(free, _MOST_AT_FIRST, replace=False)
        lattice = self._lattice
        factors = [
            Factor(place=at, coordinates=axis.coordinates)
            for at, axis in enumerate(lattice.axes)
            if len(axis.codes) > 1
        ]
        points = lattice.with_engines
        ties = 1e-6 * random.random(len(free))
        if not len(now.taken):
            off = np.zeros(len(free))
            for factor in (one for one in factors if one.is_ordinal):
                off += (np.array(factor.coordinates)[points[free, factor.place]] - 0.5) ** 2
            return int(free[np.argmin(off + ties)])
        unknown = Posterior(usual(factors), points[free], center=0.0, spread=1.0)
        chances = chances_to_run(usual(factors), points, free, now.seen)
        with unknown.assuming(points[now.taken]):
            return int(free[np.argmax((unknown.variance + ties) * chances)])

    def _random(self, count: int) -> np.random.Generator:
        return np.random.default_rng((self._seed, count))


def _frame(likely: Matrix, seen: Sequence[Observation]) -> tuple[Matrix, Matrix]:
    """Return the ideal and the size of the box that hypervolume is measured in.

    It spans what was measured and what is expected of points that likely are feasible.

    Args:
        likely: Expected costs of these, shape ``(n, objectives)``.
        seen: Observations.
    """
    feasible = [one.costs for one in seen if one.is_feasible]
    known = feasible or [one.costs for one in seen if one.costs is not None]
    spanned = np.concatenate([np.array(known, dtype=float), likely])
    ideal, worst = spanned.min(axis=0), spanned.max(axis=0)
    width = np.where(worst > ideal, worst - ideal, 1.0) * (1 + _MARGIN)
    return ideal, width


def has_learned(now: Snapshot) -> bool:
    """Tell whether enough was measured to believe anything."""
    return sum(one.costs is not None for one in now.seen) >= _FIRST


def _fit_at(seen: Sequence[Observation]) -> int:
    """Return from how many observations hyperparameters are to be found now.

    Never from fewer than hold the first one that cannot run, for which there is a model only then.
    """
    measured = np.cumsum([one.costs is not None for one in seen])
    first = int(np.searchsorted(measured, _FIRST)) + 1
    unable = next((at for at, one in enumerate(seen, start=1) if one.costs is None), 0)
    return max(fitting_point(len(seen), first=first), unable)


def _first_best(worths: Matrix) -> int:
    """Return the first of the best, so that rounding chooses nothing."""
    return int(np.argmax(worths >= worths.max() * (1 - _ALIKE)))


def _front(seen: Sequence[Observation]) -> list[Observation]:
    """Return the feasible observations that nothing beats, or all measured ones."""
    from optimizer.front.volume import nondominated

    known = [one for one in seen if one.is_feasible]
    known = known or [one for one in seen if one.costs is not None]
    costs = np.array([one.costs for one in known], dtype=float)
    return [one for one, is_best in zip(known, nondominated(costs), strict=True) if is_best]
