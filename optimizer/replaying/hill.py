"""Hill climbing over batch size and concurrency, as Triton Model Analyzer's quick mode does it.

After the documentation of ``--run-config-search-mode quick`` and the behaviour of version 1.58
(https://github.com/triton-inference-server/model_analyzer, ``docs/config_search.md``). It looks
at one model at a time and has no precisions or builds, so each combination of the axes that are
not climbed is one model here, in a random order. Then, in steps of the axes' values, which double:

1. Begin at the smallest of all. Measure three others within a distance of 3 (Euclidean), first
   those that share fewest values with what was measured.
2. Step on each axis by the gain per step of what was measured, seen from here: 1, 2 or 3 values
   for more than 9, 30 or 100 %. Where bounds are missed here, misses count instead of gains.
3. Where only some of the surroundings meet the bounds, measure all direct neighbours instead, and
   go to the best. Where a step leads to what cannot run, or from met to missed bounds, go back to
   the point nearest to the best so far, and look at its direct neighbours.
4. End where a step leads nowhere, or for the second time to the same point.
5. Raise the concurrency of the best three by doubling, until four in a row gain less than 5 %.

It climbs throughput, as Model Analyzer does by default; the first objective where there is none.
What was measured is not measured again. When all was climbed, it has nothing more to propose.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

from optimizer.study.encoding import Encoding

Indices: TypeAlias = tuple[int, ...]

_RADIUS = 3
_FEWEST = 3  # measured besides the point where the climb is
_BOUNDS = (0.09, 0.3, 1.0)  # gain per step, for a step of 1, 2, 3 values
_SWEPT = 3  # best points of a climb, whose concurrency is raised
_WINDOW, _LEAST_GAIN = 4, 0.05
_MOST_VISITS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a climb knows of a point that ran.

    Attributes:
        goodness: Higher is better; relative gains are differences of logarithms where the metric
            is logarithmic.
        missed: By how much the bounds are missed, all together; 0 where they are met.
    """

    goodness: float
    missed: float


class Hill:
    """One combination: its points differ in the climbed axes alone.

    Args:
        encoding: The space.
        places: Of the climbed axes.
        known: What came of points, kept up to date by whoever measures them; None for those that
            cannot run.
        start: Where to begin.
    """

    def __init__(
        self,
        encoding: Encoding,
        places: Sequence[int],
        known: Mapping[Indices, Seen | None],
        *,
        start: Indices,
    ) -> None:
        self._encoding = encoding
        self._places = places
        self._known = known
        self._home = start
        self._visits: dict[Indices, int] = {}
        self._points: set[Indices] = set()
        self._has_passed = False

    def climb(self) -> Iterator[Indices]:
        """Yield the points to measure, each once."""
        is_slow, is_over = False, not self._encoding.allows(self._home)
        while not is_over:
            yield from self._measured(self._home)
            here = self._known[self._home]
            if here is None or (here.missed > 0 and self._has_passed):
                # Model Analyzer waits for a step back that leads nowhere; so do we
                back, is_slow = self._nearest_to_best(), True
                is_over = back == self._home or self._visited(back)
                self._home = back
                continue
            self._has_passed |= here.missed == 0
            yield from self._look_around(is_slow=is_slow)
            new = self._best_around() if self._is_slow(is_slow=is_slow) else self._stepped(here)
            is_over = new == self._home or self._visited(new)
            self._home, is_slow = new, False

    def sweep(self) -> Iterator[Indices]:
        """Yield the best points at rising concurrency."""
        names = [parameter.axis.name for parameter in self._encoding.parameters]
        place = names.index("concurrency")
        if place not in self._places:
            return
        passing = [point for point in self._points if self._passes(point)]
        best = sorted(passing, key=lambda point: (-self._goodness(point), point))[:_SWEPT]
        for point in best:
            gained: list[float] = []
            for level in range(len(self._encoding.parameters[place].codes)):
                at = (*point[:place], level, *point[place + 1 :])
                if not self._encoding.allows(at):
                    break
                yield from self._measured(at)
                gained.append(self._goodness(at))
                if len(gained) >= _WINDOW and _has_saturated(gained[-_WINDOW:]):
                    break

    def _measured(self, point: Indices) -> Iterator[Indices]:
        self._points.add(point)
        if point not in self._known:
            yield point

    def _look_around(self, *, is_slow: bool) -> Iterator[Indices]:
        """Measure until enough of the surroundings is known."""
        while True:
            if self._is_slow(is_slow=is_slow):
                wanted = next((one for one in self._adjacent() if one not in self._known), None)
            elif len(self._ran_around()) >= _FEWEST:
                return
            else:
                wanted = self._least_covered()
            if wanted is None:
                return
            yield from self._measured(wanted)

    def _is_slow(self, *, is_slow: bool) -> bool:
        passing = {self._passes(point) for point in self._ran_around()}
        return is_slow or len(passing) > 1

    def _stepped(self, here: Seen) -> Indices:
        """Go where the gains lead; back to here where the lattice or the rules end."""
        new = list(self._home)
        around = self._ran_around()
        for place in self._places:
            steps = [point[place] - self._home[place] for point in around]
            gains = [self._gain(here, point) for point in around]
            length = sum(map(abs, steps))
            pull = sum(gain * _sign(step) for gain, step in zip(gains, steps, strict=True))
            move = _move(pull / length) if length else 0
            last = len(self._encoding.parameters[place].codes) - 1
            new[place] = min(max(0, self._home[place] + move), last)
        found = tuple(new)
        return found if self._encoding.allows(found) else self._home

    def _gain(self, here: Seen, point: Indices) -> float:
        there = self._known[point]
        assert there is not None, "only points that ran are compared"
        return here.missed - there.missed if here.missed else there.goodness - here.goodness

    def _best_around(self) -> Indices:
        passing = [point for point in (*self._ran_around(), self._home) if self._passes(point)]
        return max(passing, key=self._goodness, default=self._home)

    def _nearest_to_best(self) -> Indices:
        ran = [point for point in sorted(self._points) if self._known.get(point) is not None]
        if not ran:
            return self._home
        best = max(ran, key=lambda point: (-self._missed(point), self._goodness(point)))
        around = [point for point in self._around() if self._known.get(point, best) is not None]
        return min(around, key=lambda point: math.dist(point, best), default=self._home)

    def _least_covered(self) -> Indices | None:
        """Choose the unknown point around that shares fewest values with those that ran."""
        ran = self._ran_around()
        covered = {place: {point[place] for point in ran} for place in self._places}
        unknown = [point for point in self._around() if point not in self._known]
        return max(
            unknown,
            key=lambda point: sum(point[place] not in covered[place] for place in self._places),
            default=None,
        )

    def _around(self) -> list[Indices]:
        """Return the allowed points within the radius, without this one, in the axes' order."""
        ranges = []
        for place, at in enumerate(self._home):
            last = len(self._encoding.parameters[place].codes) - 1
            reach = _RADIUS if place in self._places else 0
            ranges.append(range(max(0, at - reach), min(last, at + reach) + 1))
        return [
            point
            for point in product(*ranges)
            if 0 < math.dist(point, self._home) <= _RADIUS and self._encoding.allows(point)
        ]

    def _adjacent(self) -> list[Indices]:
        return [point for point in self._around() if math.dist(point, self._home) <= 1]

    def _ran_around(self) -> list[Indices]:
        return [point for point in self._around() if self._known.get(point) is not None]

    def _visited(self, point: Indices) -> bool:
        """Count a visit, and tell whether it is one too many."""
        self._visits[point] = self._visits.get(point, 0) + 1
        return self._visits[point] > _MOST_VISITS

    def _passes(self, point: Indices) -> bool:
        return self._missed(point) == 0

    def _missed(self, point: Indices) -> float:
        seen = self._known[point]
        return math.inf if seen is None else seen.missed

    def _goodness(self, point: Indices) -> float:
        seen = self._known[point]
        return -math.inf if seen is None else seen.goodness


def _sign(step: int) -> int:
    return (step > 0) - (step < 0)


def _move(gain: float) -> int:
    """Translate a gain per step into a number of steps."""
    return int(math.copysign(sum(abs(gain) > bound for bound in _BOUNDS), gain))


def _has_saturated(goodness: Sequence[float]) -> bool:
    first, best = goodness[0], max(goodness)
    return best == first or best - first < _LEAST_GAIN
