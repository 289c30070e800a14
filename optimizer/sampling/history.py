"""What a study's trials say, as numbers: which points were tried, with what result and price.

Ended trials never change, so each is read once. A trial that failed says nothing, for it may have
been the machine's fault; a point that failed twice, without being interrupted, is taken for one
that cannot run, until it completes.
"""

import math
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optimizer.sampling.lattice import Lattice, Rows
from optimizer.sampling.marks import INTERRUPTED, PRICE

_HOPELESS = 2  # failures


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One ended trial.

    Attributes:
        row: Its point.
        costs: One per objective, to be minimized; None where nothing could be measured.
        violations: (constraint, by how much it is missed).
        shared_s: Price of what others share, seconds; 0 where it was there.
        own_s: Price of what it alone needed, seconds.
    """

    row: int
    costs: tuple[float, ...] | None
    violations: tuple[tuple[str, float], ...]
    shared_s: float
    own_s: float

    @property
    def is_feasible(self) -> bool:
        """Tell whether it was measured and misses no bound."""
        return self.costs is not None and all(value <= 0 for _, value in self.violations)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """The observations in order, and the points that must not be proposed.

    Attributes:
        seen: Of ended trials, in the order in which they ended.
        pending: Points that are being tried, shape ``(n,)``.
        taken: Points of all trials whatever came of them, and pending ones, shape ``(m,)``.
    """

    seen: tuple[Observation, ...]
    pending: Rows
    taken: Rows


class History:
    """Reads the trials of one study.

    Args:
        lattice: The space.
        directions: Of the study.
        unmeasured: Constraint that is missed where a trial's values were not measured; None where
            they always were.
    """

    def __init__(
        self, lattice: Lattice, directions: Sequence[StudyDirection], *, unmeasured: str | None
    ) -> None:
        self._lattice = lattice
        self._signs = [-1.0 if one is StudyDirection.MAXIMIZE else 1.0 for one in directions]
        self._unmeasured = unmeasured
        self._known: dict[int, Observation] = {}
        self._places: dict[int, int | None] = {}

    def snapshot_at(self, trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> Snapshot:
        """Read the trials as they were when one of them asked."""
        asked = trial.datetime_start
        assert asked is not None, "a trial that waits has not asked"
        earlier = [one for one in trials if one.datetime_start and one.number < trial.number]
        ended = {
            one.number
            for one in earlier
            if one.datetime_complete is not None and one.datetime_complete <= asked
        }
        return self._read_all(earlier, ended)

    def snapshot(self, trials: Sequence[FrozenTrial], *, but: int) -> Snapshot:
        """Read the trials as they are.

        Args:
            trials: Of the study, in the order of their numbers.
            but: Number of the trial that asks.
        """
        others = [one for one in trials if one.number != but]
        return self._read_all(others, {one.number for one in others if one.state.is_finished()})

    def _read_all(self, trials: Sequence[FrozenTrial], ended: Container[int]) -> Snapshot:
        seen: list[tuple[datetime | None, int, Observation]] = []
        pending, taken = [], []
        failures: Counter[int] = Counter()
        complete = {
            self._row(one)
            for one in trials
            if one.number in ended and one.state is TrialState.COMPLETE
        }
        for trial in trials:
            row = self._row(trial)
            if row is None:
                continue
            taken.append(row)
            if trial.number not in ended:
                pending.append(row)
                continue
            is_complete = trial.state is TrialState.COMPLETE
            failures[row] += not is_complete and INTERRUPTED not in trial.user_attrs
            if is_complete or (failures[row] == _HOPELESS and row not in complete):
                if trial.number not in self._known:
                    self._known[trial.number] = self._read(trial, row)
                seen.append((trial.datetime_complete, trial.number, self._known[trial.number]))
        seen.sort(key=_ending)
        return Snapshot(
            seen=tuple(one for *_, one in seen), pending=_rows(pending), taken=_rows(taken)
        )

    def _row(self, trial: FrozenTrial) -> int | None:
        """Find a trial's point; one that has ended is looked for once."""
        if trial.number not in self._places:
            row = self._lattice.row(_params(trial))
            if not trial.state.is_finished():
                return row
            self._places[trial.number] = row
        return self._places[trial.number]

    def _read(self, trial: FrozenTrial, row: int) -> Observation:
        shared_s, own_s = _price(trial)
        if trial.state is not TrialState.COMPLETE:
            return Observation(row=row, costs=None, violations=(), shared_s=shared_s, own_s=own_s)
        limits = dict(trial.constraints)
        costs = tuple(sign * value for sign, value in zip(self._signs, trial.values, strict=True))
        # what is infinite cannot be modelled, and is no better than what cannot run
        is_measured = all(map(math.isfinite, costs))
        if self._unmeasured is not None:
            is_measured = limits.pop(self._unmeasured, 0.0) <= 0 and is_measured
        return Observation(
            row=row,
            costs=costs if is_measured else None,
            violations=tuple(sorted(limits.items())) if is_measured else (),
            shared_s=shared_s,
            own_s=own_s,
        )


def _ending(ended: tuple[datetime | None, int, Observation]) -> tuple[datetime, int]:
    when, number, _ = ended
    assert when is not None, "it has ended"
    return when, number


def _params(trial: FrozenTrial) -> Mapping[str, object]:
    fixed: Mapping[str, object] = trial.system_attrs.get("fixed_params", {})  # one that waits
    return trial.params or fixed


def _price(trial: FrozenTrial) -> tuple[float, float]:
    """Return a trial's prices; its duration where nobody said more."""
    told = trial.user_attrs.get(PRICE)
    if told is not None:
        shared_s, own_s = told
        return float(shared_s), float(own_s)
    duration = trial.duration
    return 0.0, 0.0 if duration is None else duration.total_seconds()


def _rows(rows: list[int]) -> NDArray[np.int64]:
    return np.array(rows, dtype=np.int64)
