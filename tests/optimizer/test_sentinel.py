"""The sentinel of a search: when it is measured, who carries it, and what is said of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from search_fakes import (
    FACTS,
    FormulaRunner,
    ListeningQuiet,
    ListeningView,
    infeasible,
    measured,
    searched,
)

from optimizer.front.drifting import watches_of
from optimizer.front.words import summary_of_front
from optimizer.search.budget import Budget
from optimizer.search.search import Search
from optimizer.search.sentinel import Sentinel
from optimizer.study.opening import open_study
from optimizer.study.records import TrialRecord
from optimizer.study.storage import open_storage
from optimizer.study.study import SearchStudy
from optimizer.wiring import opened_worker, place_at
from optimizer.workspace import Workspace
from search_spaces.deployment import Deployment
from search_spaces.space import MeasuringPlan, SearchSpace
from trials.errors import FaultError
from trials.machine.environment import environment
from trials.measurement import Block, Quiet
from trials.measuring.load import CONTENDED, Driven
from trials.measuring.sentinel import BLOCKS, level_of, sentinel_of
from trials.outcome import Completed, Outcome


@dataclass
class Machine:
    """A machine whose clock moves where a test says so, and whose pace it sets."""

    now_s: float = 0.0
    pace: Callable[[float], float] = lambda _: 1.0
    seen: list[Deployment] = field(default_factory=list)
    flags: tuple[str, ...] = ()
    blocks: int = BLOCKS

    def clock(self) -> float:
        """Return its time, seconds."""
        return self.now_s

    def run(self, deployment: Deployment) -> Outcome:
        """Measure a trial, which takes ten seconds."""
        self.now_s += 10.0
        return replace(measured(deployment), environment=environment())

    def measure(self, deployment: Deployment, plan: MeasuringPlan) -> Driven:
        """Measure the sentinel, which takes one."""
        assert plan.min_blocks == BLOCKS
        self.seen.append(deployment)
        self.now_s += 1.0
        speed = measured(deployment).speed
        random = np.random.default_rng(len(self.seen))
        latencies = [
            self.pace(self.now_s) * np.exp(random.normal(0, 0.005, 3)) for _ in range(self.blocks)
        ]
        blocks = tuple(
            Block(start_s=0.0, window_s=0.1, latencies_s=each, batch_size=1) for each in latencies
        )
        return Driven(
            blocks=blocks,
            cold_call_s=0.0,
            warmup_s=0.0,
            speed=speed,
            flags=self.flags,
            quiet=Quiet(contended_blocks=0, repeated_blocks=0, cpu_s_per_request=None),
        )


@pytest.fixture
def study(tmp_path: Path, space: SearchSpace) -> SearchStudy:
    workspace = Workspace(root=tmp_path / "work")
    return searched(workspace, space, trials=0)


def watched(
    study: SearchStudy,
    tmp_path: Path,
    machine: Machine,
    *,
    trials: int = 20,
    view: ListeningView | None = None,
    quiet: ListeningQuiet | None = None,
    sentinel: Sentinel | None = None,
    runner: FormulaRunner | None = None,
) -> Sequence[TrialRecord]:
    """Search with a sentinel of 5 %."""
    Search(
        study,
        runner=runner or FormulaRunner(answer=machine.run),
        workspace=Workspace(root=tmp_path / "work"),
        tracker=None,
        quiet=quiet or ListeningQuiet(),
        view=view or ListeningView(),
        sentinel=sentinel
        or Sentinel(machine.measure, study.space.plan, share=0.05, clock=machine.clock),
    ).run(Budget(trials=trials))
    return study.records()


def outcome_of(record: TrialRecord) -> Completed:
    assert isinstance(record.outcome, Completed)
    return record.outcome


def level(record: TrialRecord) -> float:
    sighting = outcome_of(record).sentinel
    assert sighting is not None
    return level_of(sighting).value


def test_sentinel_takes_its_share_of_the_time_and_no_more(
    study: SearchStudy, tmp_path: Path
) -> None:
    machine = Machine()

    watched(study, tmp_path, machine, trials=40)

    assert len(machine.seen) == 20  # after the first trial, then once in 20 s
    assert len(machine.seen) * 1.0 <= 0.05 * machine.now_s


def test_sentinel_is_what_the_study_measured_first_in_every_session(
    study: SearchStudy, tmp_path: Path
) -> None:
    first, second = Machine(), Machine()

    records = watched(study, tmp_path, first, trials=6)
    watched(study, tmp_path, second, trials=12)

    assert set(first.seen) == set(second.seen) == {sentinel_of(records[0].outcome.deployment)}


def test_trials_carry_the_last_sighting_and_keep_it(study: SearchStudy, tmp_path: Path) -> None:
    records = watched(study, tmp_path, Machine(), trials=9)

    sightings = [outcome_of(record).sentinel for record in records]
    assert sightings[0] is None
    assert all(each is not None for each in sightings[1:])
    assert len(set(sightings[1:])) > 1
    workspace = Workspace(root=tmp_path / "work")
    url = workspace.storage_url
    storage = open_storage(url, workspace)
    again = open_study(storage, url, "tiny", space=study.space, facts=FACTS)
    assert [outcome_of(record).sentinel for record in again.records()] == sightings


def test_nothing_works_beside_the_sentinel(study: SearchStudy, tmp_path: Path) -> None:
    quiet, machine = ListeningQuiet(), Machine()
    shut: list[bool] = []

    def measure(deployment: Deployment, plan: MeasuringPlan) -> Driven:
        shut.append(quiet.is_shut)
        return machine.measure(deployment, plan)

    sentinel = Sentinel(measure, study.space.plan, clock=machine.clock)
    watched(study, tmp_path, machine, trials=5, quiet=quiet, sentinel=sentinel)

    assert shut
    assert all(shut)
    assert not quiet.is_shut


def test_sentinel_that_breaks_costs_no_trial_and_is_told_of_once(
    study: SearchStudy, tmp_path: Path
) -> None:
    tries: list[Deployment] = []

    def broken(deployment: Deployment, _plan: MeasuringPlan) -> Driven:
        tries.append(deployment)
        raise FaultError("the engine broke")

    view, machine = ListeningView(), Machine()
    sentinel = Sentinel(broken, study.space.plan, clock=machine.clock)
    records = watched(study, tmp_path, machine, trials=8, view=view, sentinel=sentinel)

    assert len(tries) == 1
    assert [note for note in view.notes if "the engine broke" in note] == [
        "the machine is watched no more, for the sentinel: the engine broke"
    ]
    assert [outcome_of(record).sentinel for record in records] == [None] * 8


def test_without_a_measured_trial_there_is_no_sentinel(study: SearchStudy, tmp_path: Path) -> None:
    machine = Machine()

    watched(study, tmp_path, machine, trials=5, runner=FormulaRunner(answer=infeasible))

    assert machine.seen == []


def test_front_says_which_trials_a_slower_machine_measured(
    study: SearchStudy, tmp_path: Path
) -> None:
    machine = Machine(pace=lambda now_s: 1.3 if 100 < now_s < 200 else 1.0)
    view = ListeningView()

    records = watched(study, tmp_path, machine, trials=30, view=view)

    (watch,) = watches_of(records)
    slow = {record.number for record in records[1:] if level(record) > 1.2}
    assert slow
    assert slow < set(watch.doubtful)  # and those just before the jump, which nobody can know
    assert len(watch.doubtful) <= len(slow) + 3
    assert watch.slowest.value == pytest.approx(1.3, rel=0.02)
    said = [line for line in summary_of_front(view.fronts[-1]) if "not as usual" in line]
    assert len(said) == 1
    assert "trifront certify" in said[0]


def test_front_of_a_steady_machine_says_nothing_of_it(study: SearchStudy, tmp_path: Path) -> None:
    view = ListeningView()

    records = watched(study, tmp_path, Machine(), trials=30, view=view)

    (watch,) = watches_of(records)
    assert watch.doubtful == ()
    assert watch.trials == 29
    assert not any("usual" in line for line in summary_of_front(view.fronts[-1]))


def test_two_machines_are_not_held_against_each_other(study: SearchStudy, tmp_path: Path) -> None:
    def on(host: str) -> Callable[[TrialRecord], TrialRecord]:
        def moved(record: TrialRecord) -> TrialRecord:
            outcome = outcome_of(record)
            environment = replace(outcome.environment, facts=(("host", host),))
            return replace(record, outcome=replace(outcome, environment=environment))

        return moved

    records = watched(study, tmp_path, Machine(pace=lambda now_s: 1.0 + (now_s > 100)), trials=20)
    slow = [record for record in records[1:] if level(record) > 1.5]
    fast = [record for record in records[1:] if record not in slow]

    apart = [*map(on("a"), fast), *map(on("b"), slow)]

    assert [watch.doubtful for watch in watches_of(apart)] == [(), ()]


def test_sighting_beside_other_work_is_not_kept(study: SearchStudy, tmp_path: Path) -> None:
    machine = Machine(flags=(CONTENDED,))

    records = watched(study, tmp_path, machine, trials=6)

    assert machine.seen
    assert [outcome_of(record).sentinel for record in records] == [None] * 6


def test_sentinel_that_is_too_slow_to_tell_is_said_to_be(
    study: SearchStudy, tmp_path: Path
) -> None:
    view, machine = ListeningView(), Machine(blocks=4)

    watched(study, tmp_path, machine, trials=6, view=view)

    assert any("is too slow to tell" in line for line in summary_of_front(view.fronts[-1]))


def test_certified_front_is_not_to_be_certified(study: SearchStudy, tmp_path: Path) -> None:
    view = ListeningView()
    pace = Machine(pace=lambda now_s: 1.3 if 100 < now_s < 200 else 1.0)
    watched(study, tmp_path, pace, trials=30, view=view)
    certified = replace(view.fronts[-1], certified="certified today")

    (said,) = [line for line in summary_of_front(certified) if "not as usual" in line]

    assert "certify" not in said


def test_worker_measures_the_sentinel_briefly(tmp_path: Path, space: SearchSpace) -> None:
    place = place_at(tmp_path / "trifront", None)
    with opened_worker(space, place) as worker:
        deployment = next(space.deployments())
        sentinel = Sentinel(worker.measure, space.plan)
        record = TrialRecord(
            uid="u",
            number=0,
            study="s",
            outcome=measured(deployment),
            started_s=0.0,
            finished_s=1.0,
        )

        sentinel.look([record])

    assert sentinel.last is not None
    assert len(sentinel.last.levels_s) >= BLOCKS
    assert not sentinel.is_due([record])
