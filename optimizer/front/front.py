"""The Pareto front of the deployments that were measured: who is on it, and how surely.

Everything is computed from outcomes, never from the values that the sampler was told. Two fronts
are told apart. By **point values**, a deployment is a member where no other is better: that gives
the knee and the hypervolume. By **certainty**, a deployment leaves the front only where another
one beats it beyond both intervals (see ``certainty``); one that is beaten by point values alone is
a *tie*, shown as such. Bounds are judged likewise: who misses one for certain is out, who may miss
or meet it stays and is marked. Deployments that cannot run are on no front.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np

from optimizer.front.certainty import Certainty, Verdict, Weighed, verdict_of_bounds, weighed
from optimizer.front.volume import Costs, hypervolume, knee_weights, nondominated
from optimizer.study.objectives import meets
from optimizer.study.records import TrialRecord
from search_spaces.space import Constraint, Objective
from trials.outcome import Completed, Failed, Infeasible


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A deployment that may be on the front.

    Attributes:
        is_member: It is on the front by point values.
        tied_with: Members that beat it by point values, but not beyond both intervals; ascending.
        bounds: *meets* or *undecided*.
        probability: That it is on the front, in [0, 1]; None where nobody asked (``resampling``).
    """

    record: TrialRecord
    is_member: bool
    tied_with: tuple[int, ...]
    bounds: Verdict
    probability: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """The front of one study.

    Attributes:
        objectives: What it trades off.
        constraints: What its deployments must meet.
        candidates: Members and ties, in order of the first objective, best first.
        dominated: Measured, beaten for certain.
        missed: Measured, but a bound is missed for certain.
        infeasible: Cannot run.
        failed: Broke and were not retried with success.
        knee: The member that would be missed most, of those that meet all bounds for certain where
            there are any; None on an empty front.
        hypervolume: Share of the box between the ideal and the reference point, in [0, 1].
        certified: When and how its probabilities were certified, in words; None where they rest on
            the trials themselves.
    """

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    candidates: tuple[Candidate, ...]
    dominated: tuple[TrialRecord, ...]
    missed: tuple[TrialRecord, ...]
    infeasible: tuple[TrialRecord, ...]
    failed: tuple[TrialRecord, ...]
    knee: TrialRecord | None
    hypervolume: float
    certified: str | None = None

    @property
    def members(self) -> tuple[TrialRecord, ...]:
        """Who is on the front by point values, in order of the first objective."""
        return tuple(one.record for one in self.candidates if one.is_member)

    @property
    def ties(self) -> tuple[TrialRecord, ...]:
        """Who is not a member, but not beaten for certain, in order of the first objective."""
        return tuple(one.record for one in self.candidates if not one.is_member)

    @property
    def measured(self) -> tuple[TrialRecord, ...]:
        """Whose numbers are known, wherever they stand."""
        return (*(one.record for one in self.candidates), *self.dominated, *self.missed)

    def candidate(self, record: TrialRecord) -> Candidate | None:
        """Return what is said of a record, None where it is not on the front in any way."""
        return next((one for one in self.candidates if one.record.number == record.number), None)


@dataclass(slots=True, kw_only=True, eq=False)
class _Judged:
    """A measured record and what is known of it so far."""

    record: TrialRecord
    weight: Weighed
    bounds: Verdict
    is_within: bool  # by point values
    is_beaten: bool = False  # for certain, by a deployment that meets its bounds for certain

    @property
    def is_open(self) -> bool:
        """Tell whether it may be on the front."""
        return not self.is_beaten and self.bounds is not Verdict.MISSES


class FrontKeeper:
    """Computes the front of a growing set of records, each of which is weighed only once."""

    def __init__(self, objectives: Sequence[Objective], constraints: Sequence[Constraint]) -> None:
        self._objectives = tuple(objectives)
        self._constraints = tuple(constraints)
        self._certainty = Certainty(objectives)
        self._judged: dict[str, _Judged] = {}

    def front(self, records: Sequence[TrialRecord]) -> Front:
        """Sort records into candidates, dominated, missed, infeasible and failed.

        The same front comes out whatever the order of the records, as long as each call is given
        all the records of the calls before. Of repeated trials of one deployment, each is a point
        of its own.
        """
        ordered = sorted(records, key=lambda record: record.number)
        measured = [record for record in ordered if isinstance(record.outcome, Completed)]
        judged = [self._judge(record) for record in measured]
        within = [one for one in judged if one.is_within]
        costs = np.asarray([one.weight.costs for one in within], dtype=float)
        costs = costs.reshape(len(within), len(self._objectives))
        members = list(compress(within, nondominated(costs)))
        candidates = [_candidate(one, members) for one in judged if one.is_open]
        return Front(
            objectives=self._objectives,
            constraints=self._constraints,
            candidates=tuple(candidates[index] for index in _order(candidates, self._judged)),
            dominated=tuple(
                one.record for one in judged if one.is_beaten and one.bounds is not Verdict.MISSES
            ),
            missed=tuple(one.record for one in judged if one.bounds is Verdict.MISSES),
            infeasible=tuple(_of_kind(ordered, Infeasible)),
            failed=_lost(ordered),
            knee=_knee(members),
            hypervolume=hypervolume(costs, costs),
        )

    def _judge(self, record: TrialRecord) -> _Judged:
        if record.uid in self._judged:
            return self._judged[record.uid]
        assert isinstance(record.outcome, Completed)
        one = _Judged(
            record=record,
            weight=weighed(record, self._objectives),
            bounds=verdict_of_bounds(record.outcome, self._constraints),
            is_within=meets(record.outcome, self._constraints),
        )
        others = list(self._judged.values())
        beats, beaten_by = self._certainty.add(one.weight)
        if one.bounds is Verdict.MEETS:
            for row in np.flatnonzero(beats):
                others[row].is_beaten = True
        one.is_beaten = any(
            others[row].bounds is Verdict.MEETS for row in np.flatnonzero(beaten_by)
        )
        self._judged[record.uid] = one
        return one


def front_of(
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
) -> Front:
    """Compute one front; see :meth:`FrontKeeper.front`."""
    return FrontKeeper(objectives, constraints).front(records)


def _candidate(one: _Judged, members: Sequence[_Judged]) -> Candidate:
    is_member = one in members
    ahead = () if is_member else _ahead(one.weight.costs, members)
    return Candidate(
        record=one.record,
        is_member=is_member,
        tied_with=tuple(member.record.number for member in ahead),
        bounds=one.bounds,
    )


def _ahead(costs: Costs, members: Sequence[_Judged]) -> Iterator[_Judged]:
    """Yield the members that are no worse in anything."""
    return (member for member in members if (member.weight.costs <= costs).all())


def _order(candidates: Sequence[Candidate], judged: dict[str, _Judged]) -> list[int]:
    """Return the candidates' order: by the first objective, then the second and so on."""
    rows = [tuple(judged[one.record.uid].weight.costs) for one in candidates]
    return sorted(range(len(candidates)), key=rows.__getitem__)


def _knee(members: Sequence[_Judged]) -> TrialRecord | None:
    sure = [one for one in members if one.bounds is Verdict.MEETS] or list(members)
    if not sure:
        return None
    losses = knee_weights(np.array([one.weight.costs for one in sure]))
    return sure[int(np.argmax(losses))].record


def _lost(ordered: Sequence[TrialRecord]) -> tuple[TrialRecord, ...]:
    """Return the failed trials of deployments of which no other trial tells anything."""
    told = {
        record.outcome.deployment for record in ordered if not isinstance(record.outcome, Failed)
    }
    failed = _of_kind(ordered, Failed)
    return tuple(record for record in failed if record.outcome.deployment not in told)


def _of_kind(
    records: Sequence[TrialRecord], kind: type[Infeasible | Failed]
) -> Iterator[TrialRecord]:
    return (record for record in records if isinstance(record.outcome, kind))
