"""An engine that came as files: built, asked, scored and driven without space, study or store.

Each function is one errand for a process of its own (``trials.isolation.errand``). What it needs
travels with it as values and paths, so that the files may come from another machine.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from search_spaces.deployment import Deployment
from search_spaces.space import MeasuringPlan, Task
from trials.abilities import RewritesModels
from trials.backend import Engine, EngineKind, EngineSpec, Tensors
from trials.backends.catalog import backend_named
from trials.capabilities import facts_of_engine
from trials.data.dataset import split_from_path
from trials.errors import DataError
from trials.machine.environment import environment
from trials.measurement import Block, Quality
from trials.measuring.driving import drive_deployment
from trials.references import answers
from trials.scoring.scoring import score_engine

_MIN_BATCHES, _MAX_BATCHES = 4, 64  # that requests cycle over, as in a trial


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFile:
    """A built engine and how it is to be served."""

    backend: str
    path: Path
    deployment: Deployment


@dataclass(frozen=True, slots=True, kw_only=True)
class Building:
    """An engine to be built.

    Attributes:
        model: The portable model.
        spec: Its environment is that of the machine that builds.
        plan: Where to; must not exist.
    """

    model: Path
    spec: EngineSpec
    plan: Path


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asking:
    """Samples to be answered, of shape ``(samples, …)``."""

    engine: EngineFile
    inputs: Tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """A file of labelled samples to be scored.

    Attributes:
        task: Says how; its own data are not looked at.
        data: An npz file or a folder of class folders.
    """

    engine: EngineFile
    task: Task
    data: Path


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Driving:
    """A load to be measured: requests cycle over the inputs, of shape ``(samples, …)``."""

    engine: EngineFile
    inputs: Tensors
    plan: MeasuringPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What driving an engine found out.

    Attributes:
        flags: Words of caution, as in a trial's outcome.
    """

    blocks: tuple[Block, ...]
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where something runs.

    Attributes:
        engines: Versions and device facts that change a backend's engines, sorted by name.
        facts: All that is recorded with a trial, those included.
    """

    engines: tuple[tuple[str, str], ...]
    facts: tuple[tuple[str, str], ...]


def describe_machine(kind: EngineKind) -> Machine:
    """Say where this process runs and what of that changes engines of one kind.

    Raises:
        UnsupportedError: This version or machine does not have the backend.
    """
    found = backend_named(kind.backend)
    capabilities = found.capabilities()  # asks the machine, where that is needed
    engines = facts_of_engine(found.environment(), dict(kind.options), capabilities)
    return Machine(engines=engines, facts=environment(extra=engines).facts)


def build_engine(building: Building) -> str:
    """Build an engine from its portable model; returns its SHA-256, hexadecimal.

    Raises:
        UnsupportedError: The machine, version or model does not allow it.
        MemoryLimitError: It does not fit.
        FaultError: The builder broke.
    """
    backend_named(building.spec.backend).build(building.model, building.spec, building.plan)
    with building.plan.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def rewrite_model(building: Building) -> bool:
    """Write the model that the backend really builds from, where that is another one.

    Returns:
        Whether it is another one, written to the building's ``plan``.

    Raises:
        TrialError: As for :func:`build_engine`.
    """
    backend = backend_named(building.spec.backend)
    return isinstance(backend, RewritesModels) and backend.rewrite(
        building.model, building.spec, building.plan
    )


def ask_engine(asking: Asking) -> Tensors:
    """Answer samples in the deployment's batches.

    Raises:
        TrialError: The engine cannot be loaded or run, or does not take these samples.
    """
    size = asking.engine.deployment.batch_size
    with loaded(asking.engine) as engine:
        given = {spec.name for spec in engine.inputs}
        if given != asking.inputs.keys():
            raise DataError(
                f"the engine takes {', '.join(sorted(given))}; recorded were "
                f"{', '.join(sorted(asking.inputs))}"
            )
        return answers(engine.infer, asking.inputs, batch_size=size)


def score_file(scoring: Scoring) -> Quality:
    """Score an engine on a file of labelled samples.

    Raises:
        DataError: Samples or labels that cannot be used.
        TrialError: The engine cannot be loaded or run.
    """
    split = split_from_path(scoring.data, scoring.task, source="--data")
    with loaded(scoring.engine) as engine:
        return score_engine(
            engine.infer,
            engine.inputs,
            split,
            task=scoring.task,
            preprocessing=scoring.task.preprocessing,
            batch_size=scoring.engine.deployment.batch_size,
            source="--data",
        )


def drive_engine(driving: Driving) -> Measured:
    """Measure an engine under the deployment's own load.

    Raises:
        TrialError: The engine cannot be loaded or run.
    """
    deployment = driving.engine.deployment
    with loaded(driving.engine) as engine:
        driven = drive_deployment(
            engine, batches_of(driving), deployment=deployment, plan=driving.plan
        )
    return Measured(blocks=driven.blocks, flags=driven.flags)


def batches_of(driving: Driving) -> list[Tensors]:
    """Cut the inputs into batches, each sample once before any twice."""
    size = driving.engine.deployment.batch_size
    count = len(next(iter(driving.inputs.values())))
    batches = min(_MAX_BATCHES, max(_MIN_BATCHES, count // size))
    order = np.random.default_rng(driving.plan.seed).permutation(count)
    return [
        {
            name: array[order[np.arange(start, start + size) % count]]
            for name, array in driving.inputs.items()
        }
        for start in range(0, batches * size, size)
    ]


@contextmanager
def loaded(file: EngineFile) -> Iterator[Engine]:
    """Load an engine, and close it whatever happens.

    Raises:
        TrialError: It cannot be loaded here.
    """
    engine = backend_named(file.backend).load(file.path, file.deployment)
    try:
        yield engine
    finally:
        engine.close()
