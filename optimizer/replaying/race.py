"""A race: several samplers over one table, each with several seeds."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from optimizer.errors import UsageError
from optimizer.replaying.contestants import Contestant, contestants_named
from optimizer.replaying.replay import Limits, Replayed, replay
from optimizer.replaying.table import DeploymentTable
from optimizer.replaying.truth import Truth
from optimizer.study.encoding import Encoding

OnDone = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """One who races.

    Attributes:
        name: Of a contestant.
        trials: After how many it is stopped; None for the race's own limit.
    """

    name: str
    trials: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RaceOrder:
    """Who races how.

    Attributes:
        seeds: Each entrant races once with each.
        limits: When a run ends.
        noise: See :func:`replay`.
        jobs: Processes that run at a time, >= 1; results do not depend on it.
    """

    entrants: tuple[Entrant, ...]
    seeds: tuple[int, ...]
    limits: Limits
    noise: float = 0.0
    jobs: int = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Runs:
    """What one entrant did, a run for each seed."""

    contestant: Contestant
    runs: tuple[Replayed, ...]

    @property
    def name(self) -> str:
        """Name of the contestant."""
        return self.contestant.name


def entrants_from_text(text: str) -> tuple[Entrant, ...]:
    """Read names that commas separate, each perhaps with a limit: ``random:2000,tpe,hill``.

    Raises:
        UsageError: There is no such contestant, it cannot be made here, or a limit is no number.
    """
    found: dict[str, Entrant] = {}
    for part in text.split(","):
        name, _, limit = part.strip().partition(":")
        if limit and not (limit.isdecimal() and int(limit) > 0):
            raise UsageError(
                f"{part.strip()!r}: {limit!r} is no number of trials", hint=f"write {name}:1000"
            )
        for contestant in contestants_named([name]):
            found[contestant.name] = Entrant(
                name=contestant.name, trials=int(limit) if limit else None
            )
    return tuple(found.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    entrant: int
    name: str
    seed: int
    limits: Limits
    noise: float


def race(table: DeploymentTable, order: RaceOrder, on_done: OnDone) -> tuple[Runs, ...]:
    """Let everybody search a table.

    Args:
        table: What is searched.
        order: Who races how.
        on_done: Told the contestant's name after each run.

    Raises:
        UsageError: There is no such contestant, or it cannot be made here.
    """
    contestants = contestants_named([one.name for one in order.entrants])
    tasks = [
        _Task(
            entrant=at,
            name=contestant.name,
            seed=seed,
            limits=_limits(order, entrant, contestant),
            noise=order.noise,
        )
        for at, (entrant, contestant) in enumerate(zip(order.entrants, contestants, strict=True))
        for seed in order.seeds
    ]
    found: dict[tuple[int, int], Replayed] = {}
    for task, run in _done(table, tasks, jobs=order.jobs):
        found[task.entrant, task.seed] = run
        on_done(task.name)
    return tuple(
        Runs(contestant=one, runs=tuple(found[at, seed] for seed in order.seeds))
        for at, one in enumerate(contestants)
    )


def _limits(order: RaceOrder, entrant: Entrant, contestant: Contestant) -> Limits:
    """Limit one entrant: by its own limit or the race's, and by what it can do in reason."""
    trials = entrant.trials or order.limits.trials
    if contestant.most_trials is not None:
        trials = min(trials or contestant.most_trials, contestant.most_trials)
    return replace(order.limits, trials=trials)


def _done(
    table: DeploymentTable, tasks: Sequence[_Task], *, jobs: int
) -> Iterator[tuple[_Task, Replayed]]:
    if jobs == 1:
        track = _Track(table)
        for task in tasks:
            yield track.run(task)
        return
    # a fork would copy whatever threads the libraries have running
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, initializer=_enter, initargs=(table,)) as pool:
        yield from pool.imap_unordered(_run, tasks)


class _Track:
    """A table with what is to be found in it, worked out once for all runs."""

    def __init__(self, table: DeploymentTable) -> None:
        self._table = table
        self._truth = Truth(table)
        self._encoding = Encoding(table.space)

    def run(self, task: _Task) -> tuple[_Task, Replayed]:
        (contestant,) = contestants_named([task.name])
        sampler = contestant.make(self._table, self._encoding, task.seed)
        run = replay(
            self._table,
            sampler,
            limits=task.limits,
            noise=task.noise,
            seed=task.seed,
            truth=self._truth,
        )
        return task, run


_tracks: list[_Track] = []  # of a process of the pool: its only one


def _enter(table: DeploymentTable) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends us all
    _tracks[:] = [_Track(table)]


def _run(task: _Task) -> tuple[_Task, Replayed]:
    return _tracks[0].run(task)
