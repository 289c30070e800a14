"""Reproduce a trial: build its deployment again from its sources, and measure and score it again.

Nothing comes from the workspace but the trial's own record and raw blocks: models are converted
and engines built into a store of their own, which is gone afterwards.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from optimizer.errors import StudyError
from optimizer.export.gathering import measured
from optimizer.study.records import TrialRecord
from optimizer.study.study import SearchStudy
from optimizer.verification.findings import Findings, ScoreFinding
from optimizer.verification.machines import other_hardware, other_surroundings
from optimizer.verification.scores import compare_score
from optimizer.verification.speed import (
    compare_sessions,
    measure_sessions,
    metrics_of,
    wanted_speeds,
)
from optimizer.workspace import STORE_LIMIT_BYTES, load_blocks
from trials.engine_files import Measured
from trials.errors import FaultError, InfeasibleError
from trials.isolation.worker import Worker
from trials.machine.environment import environment
from trials.measurement import Block, Quality
from trials.measuring.load import CONTENDED
from trials.outcome import Completed, Environment, Failed, Infeasible
from trials.scoring.sample_scores import unpacked


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproduceOrder:
    """What a user asks of a reproduction.

    Attributes:
        blocks: Where the trial's raw blocks would lie.
        margin: Share of a speed that does not matter, > 0.
        sessions: How often it is measured, >= 1.
    """

    blocks: Path
    margin: float
    sessions: int


def reproduce(
    record: TrialRecord,
    study: SearchStudy,
    order: ReproduceOrder,
    *,
    on_step: Callable[[str], None],
) -> Findings:
    """Rebuild, measure and score a trial's deployment, and hold it against its record.

    Raises:
        ExportError: The trial was not measured.
        StudyError: A model or data are no longer what the trial was measured with.
        TrialError: The deployment cannot be run tonight, or no longer at all.
    """
    old = measured(record)
    blocks = load_blocks(order.blocks) if order.blocks.is_file() else None
    with tempfile.TemporaryDirectory(prefix="trifront-reproduce-") as store:
        worker = Worker(study.space, store_root=Path(store), store_limit_bytes=STORE_LIMIT_BYTES)
        with worker:
            on_step("reading models and data")
            facts = worker.describe()
            refuse_changed(old, study, dict(facts.digests))
            reason = _why_no_speed(old, environment(extra=facts.environment), blocks)
            runs = _Runs(worker, old)
            count = 1 if reason else order.sessions  # once, to build and to score
            sessions = measure_sessions(runs.measure, count=count, on_step=on_step)
            on_step("scoring")
            scores = tuple(_scores(runs.first(), record, study, worker))
    return Findings(
        subject=f"trial {record.number} of study {record.study}: {old.deployment}",
        facts=tuple(_facts(old, runs.first())),
        unchecked=(f"speed: {reason}",) if reason else sessions.cautions(),
        outputs=(),
        predictions=None,
        scores=scores,
        speeds=()
        if reason
        else compare_sessions(
            sessions,
            blocks or (),
            wanted_speeds(metrics_of(study.space.objectives, study.space.constraints)),
            margin=order.margin,
            busy=CONTENDED in old.flags,
        ),
        margin=order.margin,
    )


class _Runs:
    """Tries a deployment again and again, each time in a fresh process."""

    def __init__(self, worker: Worker, old: Completed) -> None:
        self._worker = worker
        self._deployment = old.deployment
        self._outcomes: list[Completed] = []

    def measure(self) -> Measured:
        """Try it once.

        Raises:
            InfeasibleError: It can no longer run.
            FaultError: It broke tonight.
        """
        outcome = self._worker.run(self._deployment, on_phase=lambda _: None)
        self._worker.close()  # the next session begins in a fresh process
        match outcome:
            case Infeasible(reason=reason):
                raise InfeasibleError(f"{self._deployment} was measured, and now: {reason}")
            case Failed(reason=reason):
                raise FaultError(f"{self._deployment}: {reason}")
            case Completed():
                self._outcomes.append(outcome)
                return Measured(blocks=outcome.blocks, flags=outcome.flags)

    def first(self) -> Completed:
        """Return the first outcome, which was built and scored from nothing."""
        return self._outcomes[0]


def refuse_changed(old: Completed, study: SearchStudy, now: Mapping[str, str]) -> None:
    """See that a trial's model and data are still those that it was measured with.

    Args:
        old: The trial's outcome.
        study: Its study.
        now: SHA-256 by name of what was read now; see :class:`trials.bench.BenchFacts`.

    Raises:
        StudyError: One is another; the message names it.
    """
    wanted = {f"variant:{old.deployment.variant}", "code:metric"}
    for name, digest in sorted(study.digests.items()):
        if (name in wanted or name.startswith("data:")) and now.get(name) != digest:
            kind, _, which = name.partition(":")
            raise StudyError(
                f"{kind} '{which}' is no longer what the trial was measured with (it was "
                f"{digest[:12]}, it is {now.get(name, 'absent')[:12]})",
                hint="put the old file back, or search the new one under another --study name",
            )


def _scores(
    new: Completed, record: TrialRecord, study: SearchStudy, worker: Worker
) -> Iterator[ScoreFinding]:
    """Compare what was scored on the search split, and on the report split where that was."""
    old = measured(record)
    if new.quality is not None and old.quality is not None:
        yield from _compared(new.quality, old.quality)
    verdict = study.verdicts().get(record.number)
    if verdict is not None:
        yield from _compared(worker.report(old.deployment), verdict)


def _compared(new: Quality, old: Quality) -> Iterator[ScoreFinding]:
    known = dict(new.scores)
    for name, then in old.scores:
        if name in known:
            yield compare_score(
                name,
                known[name],
                then,
                data=f"the {old.split} split{_agreement(new, old)}",
                same_samples=new.split_digest == old.split_digest,
            )


def _agreement(new: Quality, old: Quality) -> str:
    """Say on how many samples both engines scored alike, where that was kept."""
    if new.per_sample is None or old.per_sample is None:
        return ""
    now, then = unpacked(new.per_sample), unpacked(old.per_sample)
    if now.shape != then.shape:
        return ""
    return f" (alike on {np.count_nonzero(now == then):,} of {now.size:,} samples)"


def _facts(old: Completed, new: Completed) -> Iterator[str]:
    names = (
        ("model", old.engine.model_digest, new.engine.model_digest),
        ("engine", old.engine.engine_digest, new.engine.engine_digest),
    )
    for name, then, now in names:
        same = f"the same, bit by bit ({now[:12]})"
        yield f"{name}: {same if then == now else f'another, it was {then[:12]}, is {now[:12]}'}"
    facts = dict(old.environment.facts), dict(new.environment.facts)
    yield from other_hardware(*facts)
    yield from other_surroundings(*facts)


def _why_no_speed(
    old: Completed, here: Environment, blocks: tuple[Block, ...] | None
) -> str | None:
    differences = other_hardware(dict(old.environment.facts), dict(here.facts))
    if differences:
        return f"measured on other hardware: {differences[0]}"
    return None if blocks else "the trial's raw blocks are not in this workspace"
