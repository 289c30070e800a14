"""Build the engines of a space ahead of time: in parallel, resumably, for this machine or others.

What is built is kept in the store by content: a search finds it, and building again after an
interruption goes on where it was.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from queue import SimpleQueue

from optimizer.wiring import Place
from optimizer.workspace import STORE_LIMIT_BYTES
from search_spaces.deployment import Deployment, Precision, Scalar
from search_spaces.errors import SpaceError
from search_spaces.space import SearchSpace
from trials.abilities import BuildsForOthers
from trials.backend import Capabilities
from trials.backends.catalog import backend_named
from trials.capabilities import (
    batch_in_engine,
    engine_options,
    engines_of,
    largest_in_engine,
    narrowed,
    refusal_of,
    refuse_ignored,
)
from trials.errors import AbandonedError, FaultError, InfeasibleError, UnsupportedError
from trials.isolation.worker import Worker


class Standing(StrEnum):
    """What came of an engine."""

    BUILT = "built"
    FOUND = "was there"
    CANNOT = "cannot"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """An engine that is wanted.

    Attributes:
        deployment: One of those that it serves.
        target: The device; None for this machine.
        batch_size: None where the engine serves more than one.
        largest_batch: The largest that it serves; None where it serves any.
        engine_options: Backend options that change the engine, as the space has them.
        refusal: Why the target has no such engine; empty where it may be built.
    """

    deployment: Deployment
    target: str | None
    batch_size: int | None
    largest_batch: int | None
    engine_options: tuple[tuple[str, Scalar], ...] = ()
    refusal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What came of a job.

    Attributes:
        build_s: Seconds of the builder; None where nothing was built now.
        size_bytes: Of the engine; None where there is none.
        reason: Why there is none; empty where there is one.
    """

    job: Job
    standing: Standing
    build_s: float | None = None
    size_bytes: int | None = None
    reason: str = ""


def jobs_of(space: SearchSpace, targets: Sequence[str]) -> tuple[Job, ...]:
    """List the engines of a space, for each target.

    Args:
        space: What is to be built.
        targets: Devices, which may honour different precisions; none for this machine.

    Raises:
        SpaceError: An axis that the backend does not honour, or precisions that no target has.
        UnsupportedError: The backend does not build here, or not for a target.
    """
    known = {
        target: backend_named(space.backend, target=target).capabilities()
        for target in targets or (None,)
    }
    jobs = [
        Job(
            deployment=deployment,
            target=target,
            batch_size=batch_in_engine(deployment, capabilities),
            largest_batch=largest_in_engine(deployment, capabilities, largest=space.largest_batch),
            engine_options=engine_options(deployment, capabilities),
            refusal=refusal_of(deployment.precision, capabilities),
        )
        for target, capabilities in known.items()
        for deployment in engines_of(space, capabilities)
    ]
    for target, capabilities in known.items():
        is_alone = target is None or all(job.refusal for job in jobs)
        refuse_ignored(space if is_alone else narrowed(space, capabilities), capabilities)
    return tuple(jobs)


def elsewhere(space: SearchSpace) -> tuple[str, ...]:
    """Say what of a space can be built here for devices that this machine does not have.

    Returns:
        A line for each precision, and one for each axis that some of them ignore; none where the
        backend builds for this machine alone.
    """
    backend = backend_named(space.backend)
    if not isinstance(backend, BuildsForOthers):
        return ()
    try:
        targets = backend.targets()
    except UnsupportedError as error:
        return (str(error),)
    known = {
        target: backend_named(space.backend, target=target).capabilities() for target in targets
    }
    if not known:
        return ()
    precisions = (Precision(str(value)) for value in space.axis("precision").values)
    lines = [_built_for(precision, known) for precision in precisions]
    for target, capabilities in known.items():
        try:
            refuse_ignored(narrowed(space, capabilities), capabilities)
        except SpaceError as error:
            lines.append(f"{target}: {error}")
    return tuple(lines)


def _built_for(precision: Precision, known: Mapping[str, Capabilities]) -> str:
    refusals = {target: refusal_of(precision, one) for target, one in known.items()}
    able = [target for target, reason in refusals.items() if not reason]
    reasons = dict.fromkeys(reason for reason in refusals.values() if reason)
    why = f": {'; '.join(reasons)}" if reasons else ""
    if not able:
        return f"{precision.value}: no target builds it{why}"
    unable = [target for target, reason in refusals.items() if reason]
    but = f", not for {', '.join(unable)}{why}" if unable else ""
    return f"{precision.value}: can be built for {', '.join(able)}{but}"


def build_all(
    space: SearchSpace,
    jobs: Sequence[Job],
    place: Place,
    *,
    workers: int,
    on_built: Callable[[Built], None],
    on_phase: Callable[[Job, str], None] = lambda _job, _name: None,
) -> tuple[Built, ...]:
    """Build engines in processes of their own; a crash or a hang costs one.

    Args:
        space: Theirs.
        jobs: What is wanted.
        place: Whose store keeps them.
        workers: Processes at once, >= 1.
        on_built: Told of each as it comes, from the calling thread.
        on_phase: Told in words how far a job's build is, from the thread that waits for it.

    Returns:
        What came of each, in the order of the jobs.

    Raises:
        WorkspaceError: The workspace cannot be written.
        TrialError: Models or data that cannot be used, a full disk.
    """
    place.check()
    pool = _Pool(space, place, targets={job.target for job in jobs}, workers=workers)
    try:
        with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="build") as threads:
            pending = [threads.submit(pool.build, job, on_phase) for job in jobs]
            try:
                for future in as_completed(pending):
                    on_built(future.result())
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                pool.abandon()  # what is being built stops and cleans up before the pool closes
                raise
    finally:
        pool.close()
    return tuple(future.result() for future in pending)


class _Pool:
    """Worker processes, as many for each target as may build at once; started when needed."""

    def __init__(
        self, space: SearchSpace, place: Place, *, targets: set[str | None], workers: int
    ) -> None:
        self._idle: dict[str | None, SimpleQueue[Worker]] = {}
        self._all: list[Worker] = []
        for target in targets:
            self._idle[target] = SimpleQueue()
            capabilities = backend_named(space.backend, target=target).capabilities()
            honoured = narrowed(space, capabilities)
            for _ in range(workers):
                worker = _worker(honoured, place.workspace.store, target)
                self._all.append(worker)
                self._idle[target].put(worker)

    def build(self, job: Job, on_phase: Callable[[Job, str], None]) -> Built:
        if job.refusal:
            return Built(
                job=job,
                standing=Standing.CANNOT,
                reason=f"no {job.deployment.precision}: {job.refusal}",
            )
        worker = self._idle[job.target].get()
        try:
            return _built(worker, job, lambda name: on_phase(job, name))
        finally:
            self._idle[job.target].put(worker)

    def abandon(self) -> None:
        for worker in self._all:
            worker.abandon()

    def close(self) -> None:
        for worker in self._all:
            worker.close()


def _worker(space: SearchSpace, store: Path, target: str | None) -> Worker:
    return Worker(space, store_root=store, store_limit_bytes=STORE_LIMIT_BYTES, target=target)


def _built(worker: Worker, job: Job, on_phase: Callable[[str], None]) -> Built:
    try:
        prepared = worker.prepare(job.deployment, on_phase=on_phase)
    except InfeasibleError as error:
        return Built(job=job, standing=Standing.CANNOT, reason=str(error))
    except AbandonedError:
        raise
    except FaultError as error:
        return Built(job=job, standing=Standing.FAILED, reason=str(error))
    is_new = prepared.build_s > 0
    return Built(
        job=job,
        standing=Standing.BUILT if is_new else Standing.FOUND,
        build_s=prepared.build_s if is_new else None,
        size_bytes=prepared.engine.size_bytes,
    )
