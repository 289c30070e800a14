"""Explain a search: what our sampler believed whenever it was asked, and what it believes now.

Nothing was written down for this: proposals follow from the trials, so what was believed at a
trial is computed again from those that had ended when it began. Of the trials of another sampler,
whose reasons were others, it is what ours would have believed.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from optuna.trial import FrozenTrial

from optimizer.errors import StudyError
from optimizer.sampling.history import History
from optimizer.sampling.proposing import Proposer, Weighed, has_learned
from optimizer.search.own_sampler import knowledge_of, lattice_of_space
from optimizer.search.sampler_setup import Setup, setup_from_json
from optimizer.study.attributes import SAMPLER
from optimizer.study.objectives import DEPLOYABLE
from optimizer.study.records import legible
from optimizer.study.study import SearchStudy
from search_spaces.deployment import Deployment
from search_spaces.metrics import Direction, Scale
from search_spaces.space import Objective
from trials.capabilities import EngineIdentity
from trials.outcome import Completed

_Z95 = 1.96
_USUAL_ENGINE_AXES = ("variant", "precision")


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """One metric as it was expected, in people's unit, with its 95 % interval."""

    metric: str
    value: float
    low: float
    high: float

    @property
    def is_known(self) -> bool:
        """Tell whether there was no doubt, as of the accuracy of an engine that was scored."""
        return self.low == self.high

    def covers(self, value: float) -> bool:
        """Tell whether a value lies in the interval."""
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """What was believed of a deployment before it was tried.

    Attributes:
        number: Of the trial; None for a deployment that was never tried.
        deployment: Which one.
        is_early: Too little was known to expect anything.
        rank: 1 where no other promised more for its price; None where nothing was expected, early
            or because it was not looked at.
        gain: Expected growth of the hypervolume, as a share of the box; None likewise.
        shared_s: Expected price of its engine, seconds; 0 where it was there.
        own_s: Expected price of its own, seconds.
        chance: How likely it could run and would meet bounds that are on no objective.
        expected: The objectives; empty while too little was known.
        measured: (metric, value) that came of it; empty where it could not run or failed.
    """

    number: int | None
    deployment: Deployment
    is_early: bool = False
    rank: int | None = None
    gain: float | None = None
    shared_s: float = 0.0
    own_s: float = 0.0
    chance: float = 1.0
    expected: tuple[Belief, ...] = ()
    measured: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """How much of one objective an axis explains alone, in [0, 1]."""

    axis: str
    metric: str
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A search explained.

    Attributes:
        reasons: One per trial, in the order of their numbers.
        untried: The most promising deployments that were not tried, best first.
        importances: By axis and objective.
        covered: How many of ``predicted`` values, of all trials and objectives that were in doubt,
            lay within the 95 % interval that was believed before they were measured.
    """

    reasons: tuple[Reason, ...]
    untried: tuple[Reason, ...]
    importances: tuple[Importance, ...]
    covered: int
    predicted: int


def explained(study: SearchStudy, *, untried: int = 10) -> Explanation:
    """Explain a study.

    Args:
        study: With at least one ended trial.
        untried: How many deployments that were never tried to tell of.

    Raises:
        StudyError: Nothing was measured yet that anything could be learned from.
    """
    explainer = _Explainer(study)
    reasons = tuple(explainer.reasons())
    beliefs = [
        (belief, dict(reason.measured)[belief.metric])
        for reason in reasons
        for belief in reason.expected
        if reason.measured and not belief.is_known
    ]
    return Explanation(
        reasons=reasons,
        untried=tuple(explainer.untried(untried)),
        importances=tuple(explainer.importances()),
        covered=sum(belief.covers(value) for belief, value in beliefs),
        predicted=len(beliefs),
    )


class _Explainer:
    def __init__(self, study: SearchStudy) -> None:
        self._study = study
        self._objectives = study.space.objectives
        setup = setup_of(study)
        self._lattice = lattice_of_space(study.encoding, setup.engines)
        self._proposer = Proposer(
            self._lattice,
            knowledge_of(study.encoding),
            objectives=len(self._objectives),
            seed=setup.seed,
        )
        self._history = History(self._lattice, study.study.directions, unmeasured=DEPLOYABLE)
        self._trials = study.study.get_trials(deepcopy=False)
        self._now = self._history.snapshot(self._trials, but=-1)
        if not has_learned(self._now):
            raise StudyError(
                f"study '{study.name}' has too few measured trials to explain anything",
                hint="search on: from the fifth on there are reasons",
            )

    def reasons(self) -> Iterator[Reason]:
        """Yield what was believed at each ended trial that had a deployment."""
        known = {record.number: record for record in self._study.records()}
        for trial in self._trials:
            record = known.get(trial.number)
            if record is None:
                continue
            outcome = record.outcome
            measured: tuple[tuple[str, float], ...] = ()
            if isinstance(outcome, Completed):
                names = [one.metric.name for one in self._objectives]
                measured = tuple((name, outcome.metric(name).value) for name in names)
            reason = self._reason(trial, outcome.deployment)
            yield replace(reason, number=trial.number, measured=measured)

    def untried(self, count: int) -> Iterator[Reason]:
        """Yield the most promising of what was never tried."""
        weighed = self._proposer.weighed(self._now)
        worth = self._proposer.worths(weighed)
        for rank, at in enumerate(np.argsort(-worth, kind="stable")[:count], start=1):
            if weighed.gains[at] > 0:
                yield self._told(weighed, int(at), rank)

    def importances(self) -> Iterator[Importance]:
        """Yield what each axis explains alone, by what is believed now."""
        shares = self._proposer.believed(self._now.seen).main_effects()
        for place, parameter in enumerate(self._study.encoding.parameters):
            for goal, objective in enumerate(self._objectives):
                share = float(shares[place, goal])
                if len(parameter.codes) > 1 and not math.isnan(share):
                    yield Importance(
                        axis=parameter.axis.name, metric=objective.metric.name, share=share
                    )

    def _reason(self, trial: FrozenTrial, deployment: Deployment) -> Reason:
        then = self._history.snapshot_at(trial, self._trials)
        row = self._lattice.row(trial.params)
        assert row is not None, "the trials of a study lie in its space"
        if not has_learned(then):
            return Reason(number=None, deployment=deployment, is_early=True)
        weighed = self._proposer.weighed(then)
        at = np.flatnonzero(weighed.rows == row)
        if not len(at):  # tried before, or of a large space one that was not looked at
            return Reason(number=None, deployment=deployment)
        worths = self._proposer.worths(weighed)
        rank = 1 + int((worths > worths[at[0]] * (1 + 1e-6)).sum())
        return self._told(weighed, int(at[0]), rank)

    def _told(self, weighed: Weighed, at: int, rank: int) -> Reason:
        params = self._lattice.params(int(weighed.rows[at]))
        return Reason(
            number=None,
            deployment=self._study.encoding.deployment(params),
            rank=rank,
            gain=float(weighed.gains[at]),
            shared_s=float(weighed.shared_s[at]),
            own_s=float(weighed.own_s[at]),
            chance=float(weighed.chances[at]),
            expected=tuple(
                belief_of(objective, float(cost), float(doubt))
                for objective, cost, doubt in zip(
                    self._objectives, weighed.costs[at], weighed.doubts[at], strict=True
                )
            ),
        )


def setup_of(study: SearchStudy) -> Setup:
    """Return what the study's own sampler was, or would be, made with.

    Raises:
        StudyError: It cannot be read.
    """
    kept = study.remembered(SAMPLER).get(SAMPLER)
    if kept is None:  # never searched by a session
        return Setup(engines=EngineIdentity(axes=_USUAL_ENGINE_AXES), seed=0)
    with legible(f"the sampler of study '{study.name}'"):
        return setup_from_json(kept)


def belief_of(objective: Objective, cost: float, doubt: float) -> Belief:
    """Turn an expected cost into people's unit.

    Args:
        objective: Whose cost.
        cost: As samplers see it, to be minimized.
        doubt: Standard deviation of the cost.
    """
    sign = -1.0 if objective.direction is Direction.MAXIMIZE else 1.0
    ends = sorted(sign * (cost + step * _Z95 * doubt) for step in (-1, 1))
    values = [sign * cost, *ends]
    if objective.metric.scale is Scale.LOG:
        values = [10.0**value for value in values]
    value, low, high = values
    return Belief(metric=objective.metric.name, value=value, low=low, high=high)
