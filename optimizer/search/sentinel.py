"""Measure the sentinel between the trials of a search, in the share of the time that it has."""

import time
from collections.abc import Callable, Sequence
from uuid import uuid4

from optimizer.study.records import TrialRecord
from search_spaces.deployment import Deployment
from search_spaces.space import MeasuringPlan
from trials.errors import TrialError
from trials.measuring.load import CONTENDED, Driven
from trials.measuring.sentinel import Sighting, plan_of_sighting, sentinel_of, sighting_of
from trials.outcome import Completed

SHARE = 0.05  # of the time of a long search; the first sighting of a session comes at once


class Sentinel:
    """The sentinel of one session: the deployment that the study measured first."""

    def __init__(
        self,
        measure: Callable[[Deployment, MeasuringPlan], Driven],
        plan: MeasuringPlan,
        *,
        share: float = SHARE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wait until there is a trial to take the deployment from.

        Args:
            measure: Measures a deployment by a plan; raises TrialError where it cannot.
            plan: Of the space.
            share: Of the time, in (0, 1).
            clock: Seconds, for the share.
        """
        self._measure = measure
        self._plan = plan_of_sighting(plan)
        self._share = share
        self._clock = clock
        self._session = uuid4().hex[:8]
        self._due_s = -float("inf")
        self._ended = False
        self.last: Sighting | None = None

    def is_due(self, records: Sequence[TrialRecord]) -> bool:
        """Tell whether to look now.

        Args:
            records: All that have ended.
        """
        return (
            not self._ended
            and self._clock() >= self._due_s
            and any(isinstance(record.outcome, Completed) for record in records)
        )

    def look(self, records: Sequence[TrialRecord]) -> None:
        """Measure it; what was seen is ``last``, unless others took the processor meanwhile.

        Raises:
            TrialError: It cannot be measured; it is not tried again in this session.
        """
        first = min(
            (record for record in records if isinstance(record.outcome, Completed)),
            key=lambda record: record.number,
        )
        deployment = sentinel_of(first.outcome.deployment)
        began_s = self._clock()
        at_s = time.time()
        try:
            driven = self._measure(deployment, self._plan)
        except TrialError:
            self._ended, self.last = True, None
            raise
        if CONTENDED not in driven.flags:
            self.last = sighting_of(deployment, driven.blocks, at_s=at_s, session=self._session)
        ended_s = self._clock()
        self._due_s = ended_s + (ended_s - began_s) * (1 / self._share - 1)
