"""Certify a front: measure its candidates again, in turns, until it is decided who belongs.

A session measures every candidate once, in an order that is drawn, in a process of its own: each
is loaded, measured by the space's own plan and unloaded. So a slow hour meets all candidates
alike, and what only reloading changes is seen. After each session from the wanted number on, the
probability of each candidate is worked out; the front is decided where every one is at most 5 % or
at least 95 %. Where what is open rests on scores, which more sessions do not change, it ends too.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from optimizer.certifying.certificate import (
    Certificate,
    Certified,
    Remeasured,
    is_open,
    keep_certificate,
    keep_remeasured,
    remeasured_of,
)
from optimizer.certifying.sessions import Speeds, speeds_of
from optimizer.errors import StudyError
from optimizer.front.draws import Drawer, Draws
from optimizer.front.front import Front
from optimizer.front.of_study import blocks_in
from optimizer.front.resampling import DRAWS, with_drawn_probabilities
from optimizer.study.records import TrialRecord
from optimizer.study.study import SearchStudy
from optimizer.workspace import Workspace, save_blocks
from search_spaces.deployment import Deployment
from trials.measuring.comparison import SPEEDS
from trials.measuring.load import CONTENDED
from trials.outcome import Completed, Outcome

MOST_SESSIONS = 30


class Runner(Protocol):
    """Who measures: a worker process, or anything that answers alike."""

    def run(self, deployment: Deployment, *, on_phase: Callable[[str], None]) -> Outcome:
        """Try one deployment; never raises for a fault of the trial."""
        ...

    def close(self) -> None:
        """End the process; a later request starts another."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifyOrder:
    """What a user asks of a certification.

    Attributes:
        sessions: At least so many, >= 2; those of earlier calls count.
        time_s: After which no measurement begins, seconds.
        clock: Seconds from any origin.
    """

    sessions: int
    time_s: float
    clock: Callable[[], float] = time.monotonic


def certify(
    study: SearchStudy,
    front: Front,
    runner: Runner,
    workspace: Workspace,
    *,
    order: CertifyOrder,
    on_step: Callable[[str], None],
) -> Certificate:
    """Measure the candidates of a front until it is decided or the time is over.

    Goes on where an earlier call was stopped or killed.

    Raises:
        StudyError: The front has no candidates, or too few sessions were finished to tell.
        StorageError: The study is out of reach.
        WorkspaceError: Raw blocks cannot be written.
    """
    if not front.candidates:
        raise StudyError("the front is empty, there is nothing to certify", hint="search first")
    return _Certifying(study, front, runner, workspace).run(order, on_step)


class _Certifying:
    """One certification under way."""

    def __init__(
        self, study: SearchStudy, front: Front, runner: Runner, workspace: Workspace
    ) -> None:
        self._study = study
        self._front = front
        self._runner = runner
        self._workspace = workspace
        self._candidates = {one.record.number: one.record for one in front.candidates}
        self._known = [one for one in remeasured_of(study) if one.trial in self._candidates]

    def run(self, order: CertifyOrder, on_step: Callable[[str], None]) -> Certificate:
        ends_s = order.clock() + order.time_s
        session, certificate = 0, None
        while session < MOST_SESSIONS:
            if not self._measure(session, on_step, lambda: order.clock() >= ends_s):
                break
            session += 1
            if session >= order.sessions:
                certificate = self._certificate(session)
                if certificate.decided or not self._sessions_help():
                    break
        certificate = certificate or self._certificate(session)
        keep_certificate(self._study, certificate)
        return certificate

    def _measure(
        self, session: int, on_step: Callable[[str], None], is_over: Callable[[], bool]
    ) -> bool:
        """Measure what is missing of a session; tell whether it was finished."""
        done = {one.trial for one in self._known if one.session == session}
        random = np.random.default_rng((session, len(self._candidates)))
        order = [int(number) for number in random.permutation(sorted(self._candidates))]
        for number in order:
            if number in done:
                continue
            if is_over():
                return False
            on_step(f"session {session + 1}: measuring trial {number}")
            self._measure_one(self._candidates[number], session, on_step)
        if len(done) < len(order):
            self._runner.close()  # the next session loads its libraries anew
        return True

    def _measure_one(
        self, record: TrialRecord, session: int, on_step: Callable[[str], None]
    ) -> None:
        outcome = self._runner.run(record.outcome.deployment, on_phase=lambda _: None)
        if not isinstance(outcome, Completed):
            on_step(f"trial {record.number} was not measured: {outcome.reason}")
            return
        assert isinstance(record.outcome, Completed)
        if outcome.engine.engine_digest != record.outcome.engine.engine_digest:
            on_step(f"trial {record.number} has another engine now, and is not certified")
            return
        save_blocks(outcome.blocks, self._workspace.blocks(f"{record.uid}-s{session:02d}"))
        one = Remeasured(
            trial=record.number,
            session=session,
            flags=outcome.flags,
            speeds=tuple((name, outcome.metric(name).value) for name in SPEEDS),
        )
        keep_remeasured(self._study, one)
        self._known.append(one)

    def _certificate(self, sessions: int) -> Certificate:
        found = self._speeds()
        certified = [number for number in self._candidates if number in found.candidates]
        if not certified:
            raise StudyError(
                "no candidate was measured in two sessions, which is the least that tells",
                hint="give it more --time; the same command goes on from here",
            )
        probabilities = self._probabilities(found)
        busy = [CONTENDED in one.flags for one in self._known]
        return Certificate(
            at_s=time.time(),
            sessions=sessions,
            decided=not any(map(is_open, probabilities.values())),
            trials=len(self._study.records()),
            contended=sum(busy) / len(busy),
            candidates=tuple(
                Certified(
                    trial=number,
                    probability=probabilities[number],
                    sessions=len(self._values("throughput_sps")[number]),
                    speeds=tuple(
                        (name, each[number].estimate()) for name, each in found.spreads.items()
                    ),
                )
                for number in certified
            ),
        )

    def _sessions_help(self) -> bool:
        """Tell whether a candidate would be decided if speeds were known exactly.

        One that would not rests on scores, of which more sessions tell nothing.
        """
        found = self._speeds()
        best = self._probabilities(found.known_exactly())
        now = self._probabilities(found)
        return any(is_open(now[trial]) and not is_open(best[trial]) for trial in now)

    def _speeds(self) -> Speeds:
        return speeds_of({name: self._values(name) for name in SPEEDS})

    def _probabilities(self, found: Speeds) -> dict[int, float]:
        drawer = _SessionDrawer(found, Drawer(blocks_in(self._workspace), draws=DRAWS))
        front = with_drawn_probabilities(self._front, drawer.drawn, draws=DRAWS)
        return {one.record.number: one.probability or 0.0 for one in front.candidates}

    def _values(self, metric: str) -> dict[int, list[float]]:
        values: dict[int, list[float]] = {}
        for one in self._known:
            values.setdefault(one.trial, []).append(dict(one.speeds)[metric])
        return values


class _SessionDrawer:
    """Draws speeds from sessions, and everything else as the front does."""

    def __init__(self, found: Speeds, drawer: Drawer) -> None:
        self._found = found
        self._drawer = drawer

    def drawn(self, record: TrialRecord, names: Sequence[str]) -> dict[str, Draws]:
        """Draw metrics of one completed trial."""
        own = {}
        if record.number in self._found.candidates:
            all_speeds = self._found.drawn(record.number, record.uid, draws=DRAWS)
            own = {name: all_speeds[name] for name in names if name in all_speeds}
        return own | self._drawer.drawn(record, [name for name in names if name not in own])
