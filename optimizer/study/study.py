"""A study: one search over one space, remembered in Optuna's storage.

How it is made and found is in ``opening``.

Every trial is signed by the process that runs it, so that a search that starts after a kill -9 can
tell an orphan from a trial that another process is running now.
"""

import re
from collections.abc import Container, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from optimizer.errors import StudyError
from optimizer.sampling.marks import INTERRUPTED, PRICE
from optimizer.search.samplers import DistinctSampler
from optimizer.study.attributes import (
    DIGESTS,
    ENVIRONMENT,
    FORMAT,
    FORMAT_ATTRIBUTE,
    IDENTITY,
    SPACE,
    SPACE_FILE,
)
from optimizer.study.encoding import Encoding
from optimizer.study.objectives import (
    DEPLOYABLE,
    Told,
    told_of_completed,
    told_of_infeasible,
)
from optimizer.study.owner import this_process
from optimizer.study.records import (
    TrialRecord,
    json_from_outcome,
    json_from_quality,
    legible,
    outcome_from_json,
    quality_from_json,
    space_from_json,
)
from optimizer.study.running import OWNER, is_orphan, params_of, seems_alive
from optimizer.study.storage import storage_errors
from optimizer.study.turns import Turn
from search_spaces.deployment import Deployment
from trials.bench import BenchFacts
from trials.measurement import Quality
from trials.outcome import Completed, Environment, Failed, Infeasible, Outcome

_VERDICT = "trifront:report:"
_OUTCOME = "outcome"
_MENDED = "mended"  # of a trial that another process ended: when, says nothing of how long it ran
_IDENTITY_FORM = re.compile("[0-9a-f]{12}")

_DEADLINES = 3  # a trial may open its worker anew and then run, each within one deadline
_TRIES = 2  # a fault of tonight is tried once more
_TRIES_INTERRUPTED = 3  # a deployment that takes the machine down must not do so for ever


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A trial that was begun and must be told of."""

    trial: Trial
    deployment: Deployment


class SearchStudy:
    """One search's memory. Who asks and mends does so in :meth:`turn`; any process may read.

    Attributes:
        study: Optuna's study; the search sets its sampler.
        space: The space as it was when the study was made.
        encoding: Deployments as Optuna's parameters.
        identity: Unlike any other study's, also of the same name.
        space_file: Text of the space file.
        digests: SHA-256 of variants and data splits.
        environment: Versions and device facts that change engines, when the study was made.
    """

    def __init__(self, study: Study, url: str, turn: Turn | None = None) -> None:
        attributes = study.user_attrs
        if attributes.get(FORMAT_ATTRIBUTE) != FORMAT:
            found = attributes.get(FORMAT_ATTRIBUTE)
            what = "was not made by trifront" if found is None else f"is of format {found}"
            raise StudyError(
                f"study '{study.study_name}' {what}, this trifront reads {FORMAT}",
                hint="use the trifront that made it, or choose another name with --study",
            )
        self.study = study
        with legible(f"study '{study.study_name}'"):
            self.space = space_from_json(attributes[SPACE])
            self.identity: str = attributes[IDENTITY]
            self.space_file: str = attributes[SPACE_FILE]
            self.digests: dict[str, str] = attributes[DIGESTS]
            self.environment: dict[str, str] = attributes[ENVIRONMENT]
        self.encoding = Encoding(self.space)
        if not _IDENTITY_FORM.fullmatch(self.identity):  # it names files, and others may write it
            raise StudyError(
                f"study '{study.study_name}' has an identity that is not ours, {self.identity!r}",
                hint="choose another name with --study",
            )
        self._url = url
        self._turn = turn
        self._known: dict[int, TrialRecord] = {}
        self._trials: list[FrozenTrial] = []
        self.refresh()

    @property
    def name(self) -> str:
        """The study's name."""
        return self.study.study_name

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Look at what others did, and be the only process that asks and mends meanwhile.

        Raises:
            StorageError: The storage is out of reach.
            WorkspaceError: The lock beside an SQLite database cannot be made.
        """
        with storage_errors(self._url), nullcontext() if self._turn is None else self._turn():
            self.refresh()
            yield

    def changes(self, facts: BenchFacts) -> tuple[str, ...]:
        """Say what of the environment has changed since the study was made."""
        now = dict(facts.environment)
        return tuple(
            f"{name} was {self.environment.get(name, 'absent')}, is {now.get(name, 'absent')}"
            for name in sorted(self.environment.keys() | now.keys())
            if self.environment.get(name) != now.get(name)
        )

    def ask(self) -> Asked:
        """Begin a trial: one that waits to be retried, else what the sampler proposes.

        Raises:
            SpaceExhaustedError: Nothing is left to try.
            StorageError: The storage is out of reach.
        """
        with storage_errors(self._url):
            trial = self.study.ask(self.encoding.distributions)
            trial.set_user_attr(OWNER, this_process())
        return Asked(trial=trial, deployment=self.encoding.deployment(trial.params))

    def tell(self, asked: Asked, outcome: Outcome) -> TrialRecord:
        """End a trial with what came of it; enqueue its deployment again where that may help.

        The outcome is written first: a process that dies in between loses nothing, because
        :meth:`mend` ends the trial from the written outcome.

        Raises:
            StorageError: The storage is out of reach.
        """
        with storage_errors(self._url):
            record = self._record(self._end(asked.trial, outcome))
        self._known[record.number] = record
        return record

    def uid(self, number: int) -> str:
        """Name a trial unlike any other of any study."""
        return f"{self.identity}-{number:05d}"

    def mend(self) -> tuple[int, ...]:
        """End the trials that dead processes left behind; return their numbers.

        One that had its outcome is ended with it, any other is tried again.

        Trials whose owner runs on another host are left alone, because nobody here can know.

        Raises:
            StorageError: The storage is out of reach.
            WorkspaceError: See :meth:`turn`.
        """
        mended = []
        with self.turn():
            for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if is_orphan(frozen, in_turn=self._turn is not None):
                    self._end_orphan(frozen)
                    mended.append(frozen.number)
        self.refresh()
        return tuple(mended)

    def refresh(self) -> None:
        """Read what has ended, here or in other processes; one look, because each costs.

        Raises:
            StorageError: The storage is out of reach.
        """
        with storage_errors(self._url):
            trials = self.study.get_trials(deepcopy=False)
        self._trials = trials
        for frozen in trials:
            ended = frozen.state.is_finished() and _OUTCOME in frozen.user_attrs
            if ended and frozen.number not in self._known:
                self._known[frozen.number] = self._record(frozen)

    def records(self) -> tuple[TrialRecord, ...]:
        """Return the ended trials that had a deployment, as of the last :meth:`refresh`."""
        return tuple(self._known[number] for number in sorted(self._known))

    def record(self, number: int) -> TrialRecord:
        """Return one ended trial.

        Raises:
            StudyError: There is none of that number.
        """
        for record in self.records():
            if record.number == number:
                return record
        numbers = [record.number for record in self.records()]
        known = f"it has {min(numbers)} to {max(numbers)}" if numbers else "it has none yet"
        raise StudyError(
            f"study '{self.name}' has no ended trial {number}; {known}",
            hint="`trifront front` lists the trials on the front",
        )

    def has_waiting(self) -> bool:
        """Tell whether a trial waited to be retried at the last :meth:`refresh`."""
        return any(frozen.state is TrialState.WAITING for frozen in self._trials)

    def running(self) -> int:
        """Count the trials that other processes ran at the last :meth:`refresh`.

        One on another host, of which nobody here can know, counts no longer than it may last.
        """
        longest = timedelta(seconds=_DEADLINES * self.space.plan.deadline_s)
        return sum(seems_alive(frozen, longest) for frozen in self._trials)

    def has_free(self) -> bool:
        """Tell whether a deployment was left to try at the last :meth:`refresh`."""
        sampler = self.study.sampler
        assert isinstance(sampler, DistinctSampler), "only a search asks"
        return sampler.has_free(self._trials)

    def keep_verdict(self, number: int, quality: Quality) -> None:
        """Remember a trial's quality on the report split."""
        with storage_errors(self._url):
            self.study.set_user_attr(f"{_VERDICT}{number}", json_from_quality(quality))

    def verdicts(self) -> dict[int, Quality]:
        """Return the qualities on the report split by trial number."""
        with storage_errors(self._url):
            attributes = self.study.user_attrs
        verdicts = {}
        for name, text in attributes.items():
            if name.startswith(_VERDICT):
                number = int(name.removeprefix(_VERDICT))
                with legible(f"the verdict on trial {number} of study '{self.name}'"):
                    verdicts[number] = quality_from_json(text)
        return verdicts

    def remember(self, name: str, text: str) -> None:
        """Keep a text with the study, in place of an earlier one of that name.

        Raises:
            StorageError: The storage is out of reach.
        """
        with storage_errors(self._url):
            self.study.set_user_attr(name, text)

    def remembered(self, prefix: str) -> dict[str, str]:
        """Return the texts whose names begin so, by name.

        Raises:
            StorageError: The storage is out of reach.
        """
        with storage_errors(self._url):
            attributes = self.study.user_attrs
        return {name: text for name, text in attributes.items() if name.startswith(prefix)}

    def _end(
        self, trial: Trial, outcome: Outcome, *, already: Container[str] = frozenset()
    ) -> FrozenTrial:
        """Write what came of a trial; constraints that are ``already`` written are write-once."""
        told = self._told(outcome)  # first: an outcome that cannot be told would be in every way
        trial.set_user_attr(_OUTCOME, json_from_outcome(outcome))
        if isinstance(outcome, Completed):
            trial.set_user_attr(PRICE, _price_s(outcome))
        if told is None:
            assert isinstance(outcome, Failed)
            if outcome.kind == "interrupted":
                trial.set_user_attr(INTERRUPTED, value=True)
            self._enqueue_again(outcome)  # first: a kill in between must not lose the deployment
            return self.study.tell(trial, state=TrialState.FAIL)
        for name, value in told.constraints:
            if name not in already:
                trial.set_constraint(name, value)
        return self.study.tell(trial, told.values)

    def _end_orphan(self, frozen: FrozenTrial) -> None:
        # a trial of another process is reached by its id, which Optuna does not publish
        trial = Trial(self.study, frozen._trial_id)  # noqa: SLF001
        trial.set_user_attr(_MENDED, value=True)
        params = params_of(frozen)
        if set(params) != set(self.encoding.distributions):
            self.study.tell(trial, state=TrialState.FAIL)  # it died before it had a deployment
            return
        if _OUTCOME in frozen.user_attrs:
            outcome = self._outcome(frozen)
            self._end(trial, outcome, already=frozen.constraints)
            return
        lost = Failed(
            deployment=self.encoding.deployment(params),
            kind="interrupted",
            reason="the process that ran the search died",
            environment=Environment(facts=()),
        )
        self._end(trial, lost)

    def _told(self, outcome: Outcome) -> Told | None:
        match outcome:
            case Completed():
                return told_of_completed(outcome, self.space)
            case Infeasible():
                completed = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
                # not what other infeasible ones were told: the first of them knew no measurement
                measured = [
                    trial.values for trial in completed if trial.constraints.get(DEPLOYABLE) == 0
                ]
                return told_of_infeasible(outcome, self.space, measured)
            case Failed():
                return None

    def _enqueue_again(self, outcome: Failed) -> None:
        """Let a deployment be tried again, unless it broke too often or waits already."""
        params = self.encoding.params(outcome.deployment)
        alike = [
            frozen.state
            for frozen in self.study.get_trials(deepcopy=False)
            if params_of(frozen) == params
        ]
        tries = 1 + alike.count(TrialState.FAIL)
        limit = _TRIES_INTERRUPTED if outcome.kind == "interrupted" else _TRIES
        if tries < limit and TrialState.WAITING not in alike:
            self.study.enqueue_trial(params)

    def _outcome(self, frozen: FrozenTrial) -> Outcome:
        with legible(f"trial {frozen.number} of study '{self.name}'"):
            return outcome_from_json(frozen.user_attrs[_OUTCOME])

    def _record(self, frozen: FrozenTrial) -> TrialRecord:
        assert frozen.datetime_start is not None
        assert frozen.datetime_complete is not None
        outcome = self._outcome(frozen)
        started_s = frozen.datetime_start.timestamp()
        known_s = _known_s(outcome)
        spent_s = frozen.datetime_complete.timestamp() - started_s
        # the clock may have been set meanwhile, which must neither spend a budget nor refill it
        spent_s = min(max(spent_s, known_s), known_s + _DEADLINES * self.space.plan.deadline_s)
        if _MENDED in frozen.user_attrs:
            spent_s = known_s
        return TrialRecord(
            uid=self.uid(frozen.number),
            number=frozen.number,
            study=self.name,
            outcome=outcome,
            started_s=started_s,
            finished_s=started_s + spent_s,
        )


def _price_s(outcome: Completed) -> list[float]:
    """Say what of a trial's seconds went into what others share, and what was its own."""
    costs = outcome.costs
    return [costs.convert_s + costs.build_s + costs.score_s, costs.load_s + costs.measure_s]


def _known_s(outcome: Outcome) -> float:
    """Say how many seconds a trial is known to have spent, whenever it was ended."""
    if not isinstance(outcome, Completed):
        return 0.0
    return sum(_price_s(outcome))
