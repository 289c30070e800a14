"""One session of a search, from the order to the front: open everything, run, close everything."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING

from optimizer.errors import WorkspaceError
from optimizer.search.budget import Budget, tried_deployments
from optimizer.search.sampler_name import SamplerName
from optimizer.search.sampler_setup import Setup, json_from_setup
from optimizer.search.samplers import check_available, sampler_named
from optimizer.search.search import Finished, Search, View
from optimizer.search.sentinel import Sentinel
from optimizer.search.views import opened_view
from optimizer.study.attributes import SAMPLER
from optimizer.study.opening import open_study
from optimizer.study.storage import open_storage
from optimizer.study.study import SearchStudy
from optimizer.tracking.courier import Courier, WaitLimits
from optimizer.tracking.destination import NO_MLFLOW, check_uri, destination_of
from optimizer.tracking.gate import Gate
from optimizer.tracking.telling import waited_for, what_is_left
from optimizer.tracking.tracker import SpoolingTracker
from optimizer.wiring import Place, opened_worker
from optimizer.workspace import Workspace
from search_spaces.catalog import space_path
from search_spaces.files import space_from_yaml
from trials.isolation.worker import Worker

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOrder:
    """What a user asks of a search.

    Attributes:
        space: A space file or the name of a shipped space.
        study: Name of the study; None for the space's own.
        repeats: Allow deployments that were measured before.
        mlflow: Tracking URI; None for the workspace's own, ``none`` for no tracking.
        sentinel: Measure one deployment again and again, to see whether the machine drifts.
    """

    space: str
    study: str | None
    budget: Budget
    sampler: SamplerName
    seed: int
    repeats: bool
    mlflow: str | None
    sentinel: bool = True


@contextmanager
def searched(
    order: SearchOrder, place: Place, console: "Console"
) -> Iterator[tuple[Finished, SearchStudy]]:
    """Run one session of a search; what came of it is known before MLflow has heard of all.

    Leaving the context tells MLflow how the search ended and waits until it has heard.

    Raises:
        SpaceError: The space file cannot be meant.
        TrialError: A model or data that cannot be used.
        OptimizerError: A study, storage or workspace that cannot be used.
    """
    space = space_from_yaml(space_path(order.space))
    check_available(order.sampler)
    if order.mlflow != NO_MLFLOW:
        check_uri(order.mlflow)
    gate = Gate(place.workspace.spool)
    with ExitStack() as stack:
        worker = stack.enter_context(opened_worker(space, place))
        facts = worker.describe()
        storage = open_storage(place.url, place.workspace)
        study = open_study(storage, place.url, order.study or space.name, space=space, facts=facts)
        study.remember(SAMPLER, json_from_setup(Setup(engines=facts.engines, seed=order.seed)))
        study.study.sampler, chosen = sampler_named(
            order.sampler,
            study.encoding,
            seed=order.seed,
            begun=len(study.study.get_trials(deepcopy=False)),
            trials=order.budget.trials,
            repeats=order.repeats,
            engines=facts.engines,
        )
        telling = stack.enter_context(
            _telling(order.mlflow, study, place, gate=gate, console=console)
        )
        done = tried_deployments(study.records())
        with opened_view(console, total=order.budget.trials, done=done) as view:
            view.note(f"study '{study.name}', sampler {chosen}, in {place.workspace.root}")
            for change in study.changes(facts):
                view.note(f"not as when the study was made: {change}; its numbers may not compare")
            search = Search(
                study,
                runner=worker,
                workspace=place.workspace,
                tracker=None if telling is None else telling.tracker,
                quiet=gate,
                view=view,
                sentinel=Sentinel(worker.measure, space.plan) if order.sentinel else None,
            )
            with _interruptible(search, worker, view):
                finished = search.run(order.budget)
        worker.close()
        yield finished, study
        if telling is not None:
            telling.finish(finished)


class _Telling:
    """Tells MLflow of one session, and its user how that goes."""

    def __init__(
        self, study: SearchStudy, courier: Courier, workspace: Workspace, console: "Console"
    ) -> None:
        self._study = study
        self._courier = courier
        self._console = console
        self.tracker = SpoolingTracker(
            study,
            courier.destination,
            workspace=workspace,
            courier=courier,
            note=self._note,
        )

    def finish(self, finished: Finished) -> None:
        """Tell how the search ended, and wait while MLflow hears."""
        try:
            self.tracker.end(
                finished.front,
                self._study.records(),
                self._study.verdicts(),
                killed=finished.interrupted,
            )
            names = frozenset(self.tracker.spooled)
            left = waited_for(self._courier, names, limits=WaitLimits(), console=self._console)
        except WorkspaceError as error:
            self._note(f"MLflow is told no more: {error}; the next session tells it all")
            return
        if left.waiting:
            name = self._courier.destination.name
            self._note(f"{what_is_left(left, name)}; `trifront sync` delivers them")

    def _note(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def _telling(
    uri: str | None, study: SearchStudy, place: Place, *, gate: Gate, console: "Console"
) -> Iterator[_Telling | None]:
    if uri == NO_MLFLOW:
        yield None
        return
    workspace = place.workspace
    destination = destination_of(uri, workspace)
    with Courier(destination, spool=workspace.spool, gate=gate) as courier:
        telling = _Telling(study, courier, workspace, console)
        try:
            yield telling
        finally:
            with suppress(WorkspaceError):  # the disk is full; the next session tells it
                telling.tracker.break_off()


@contextmanager
def _interruptible(search: Search, worker: Worker, view: View) -> Iterator[None]:
    """Let the first Ctrl-C end the search after the running trial, the second abandon it.

    A termination signal abandons at once. An abandoned trial is tried again by the next session.
    """
    presses = 0

    def on_interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal presses
        presses += 1
        search.stop()
        if presses == 1:
            with suppress(RuntimeError):  # the very moment at which something else is written
                view.note("finishing the running trial; Ctrl-C again abandons it")
        else:
            worker.abandon()

    def on_terminate(_number: int, _frame: FrameType | None) -> None:
        search.stop()
        worker.abandon()

    handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]] = {
        signal.SIGINT: on_interrupt,
        signal.SIGTERM: on_terminate,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
