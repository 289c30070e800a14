"""Two engines that came as files, against each other: driven in turns, and asked the same samples.

Each function is one errand for a process of its own (``trials.isolation.errand``). Both engines of
a duel live in one process, so that they share its memory layout, its clock and its neighbours.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_spaces.space import Preprocessing, Task
from trials.backend import Engine, Tensors, TensorSpec
from trials.data.dataset import Split, dataset_from_task, synthetic_dataset
from trials.data.npz import Array
from trials.engine_files import Driving, EngineFile, batches_of, loaded
from trials.machine.gpu_source import GpuSource
from trials.measuring.gpu_watch import watched
from trials.measuring.load import opened_loop
from trials.measuring.surroundings import Surroundings
from trials.measuring.turns import Turns, drive_in_turns
from trials.scoring.scoring import Marks, mark_engine


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Duel:
    """One session of two engines in turns.

    Attributes:
        old: What is held against; likewise ``new``.
        new: What is compared with it.
        fours: How many times four blocks, >= 1.
        block_s: Length of a block, seconds, > 0.
        seed: Of who begins, in each four; and of which is loaded first.
    """

    old: Driving
    new: Driving
    fours: int
    block_s: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitExam:
    """The search split of a space, to be read where the engine runs.

    Attributes:
        source: The space file, for messages.
        seed: Of the samples that the fake backend makes.
    """

    task: Task
    source: str
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReferenceExam:
    """Labelled samples that came with an engine, as it takes them."""

    task: Task
    inputs: Tensors
    labels: Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sitting:
    """An engine and what it is asked."""

    engine: EngineFile
    exam: SplitExam | ReferenceExam


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sat:
    """What an engine scored.

    Attributes:
        cohorts: Shape ``(samples,)``, or None where the samples have none.
    """

    marks: Marks
    cohorts: NDArray[np.str_] | None


def fight(duel: Duel) -> Turns:
    """Load both engines and measure them in turns.

    Raises:
        TrialError: An engine cannot be loaded or run.
    """
    random = np.random.default_rng(duel.seed)
    sides = [duel.old, duel.new]
    is_swapped = random.random() < 0.5  # noqa: PLR2004 - a coin
    first, second = sides[::-1] if is_swapped else sides
    with loaded(first.engine) as one, loaded(second.engine) as other:
        loops = [
            opened_loop(
                engine,
                batches_of(side),
                concurrency=side.engine.deployment.concurrency,
                batch_size=side.engine.deployment.batch_size,
            )
            for engine, side in ((one, first), (other, second))
        ]
        with loops[0] as here, loops[1] as there, _watched(one, other) as gpu:
            old, new = (there, here) if is_swapped else (here, there)
            return drive_in_turns(
                old,
                new,
                fours=duel.fours,
                block_s=duel.block_s,
                random=random,
                around=Surroundings(gpu=gpu),
            )


@contextmanager
def _watched(*engines: Engine) -> Iterator[GpuSource | None]:
    """Open the meters of the GPU that any of the engines runs on; there is one for a process."""
    with ExitStack() as stack:
        sources = [stack.enter_context(watched(engine)) for engine in engines]
        yield next((source for source in sources if source is not None), None)


def sit(sitting: Sitting) -> Sat:
    """Let an engine answer an exam, and score each sample.

    Raises:
        DataError: Samples, labels or a metric that cannot be used.
        TrialError: The engine cannot be loaded or run.
    """
    exam = sitting.exam
    if isinstance(exam, SplitExam):
        dataset = (
            synthetic_dataset(exam.seed)
            if exam.task.data is None
            else dataset_from_task(exam.task, source=exam.source)
        )
        split, preprocessing, source = dataset.search, dataset.preprocessing, exam.source
    else:
        split, preprocessing = _split_of(exam)
        source = "the references"
    with loaded(sitting.engine) as engine:
        marks = mark_engine(
            engine.infer,
            engine.inputs,
            split,
            task=exam.task,
            preprocessing=preprocessing,
            batch_size=sitting.engine.deployment.batch_size,
            source=source,
        )
    return Sat(marks=marks, cohorts=split.cohorts)


def describe_inputs(file: EngineFile) -> tuple[TensorSpec, ...]:
    """Say what an engine takes.

    Raises:
        TrialError: It cannot be loaded.
    """
    with loaded(file) as engine:
        return engine.inputs


def _split_of(exam: ReferenceExam) -> tuple[Split, Preprocessing]:
    """Make a split of references, which are inputs already and are not preprocessed again."""
    split = Split(
        name="references",
        arrays=tuple(exam.inputs.items()),
        labels=exam.labels,
        cohorts=None,
        digest="",
    )
    types = tuple(sorted((name, array.dtype.name) for name, array in exam.inputs.items()))
    return split, Preprocessing(dtype=types)
