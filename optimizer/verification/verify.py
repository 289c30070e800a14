"""Verify an export: is it whole, does it answer alike, is it as right and as fast as it was?

Everything that runs the engine runs in processes of its own, on this machine or another. On the
same kind of machine with the same library the engine that was measured is loaded, and must answer
the references bit by bit alike. Elsewhere it is built anew from the portable model, and answers
within a bound that depends on the precision.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from optimizer.verification.bundle import Bundle, open_bundle
from optimizer.verification.findings import Findings, ScoreFinding
from optimizer.verification.machines import other_hardware, other_surroundings
from optimizer.verification.readiness import ReadyEngine, ready_engine
from optimizer.verification.scores import compare_predictions, compare_score
from optimizer.verification.speed import compare_sessions, measure_sessions, wanted_speeds
from search_spaces.space import TaskKind
from trials.backend import Tensors
from trials.data.dataset import split_from_path
from trials.data.feeding import feeds
from trials.engine_files import (
    Asking,
    Driving,
    EngineFile,
    Machine,
    Scoring,
    ask_engine,
    describe_machine,
    drive_engine,
    score_file,
)
from trials.isolation.child import Limits
from trials.isolation.errand import run_errand
from trials.measuring.comparison import Compared
from trials.measuring.load import CONTENDED
from trials.references import References
from trials.scoring.agreement import Agreement, Predictions, agreements, predictions

_PATIENCE_S = 600.0  # for one step at least: this machine may be slower than the study's
_SAMPLES_IN_FLIGHT = 512  # of a data file, that requests cycle over


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOrder:
    """What a user asks of a verification.

    Attributes:
        margin: Share of a speed that does not matter, > 0.
        sessions: How often the speed is measured, >= 0; 0 for not at all.
        data: Labelled samples to score as well.
    """

    folder: Path
    margin: float
    sessions: int
    data: Path | None


def verify(order: VerifyOrder, *, on_step: Callable[[str], None]) -> Findings:
    """Check an export.

    Args:
        order: What to check.
        on_step: Told what goes on, in words.

    Raises:
        BundleError: The folder is not what was exported.
        TrialError: The engine cannot be loaded, built or run here, or the data cannot be used.
    """
    on_step("reading every file")
    bundle = open_bundle(order.folder)
    check = _Check(bundle, order, on_step)
    with tempfile.TemporaryDirectory(prefix="trifront-verify-") as scratch:
        return check.run(Path(scratch))


class _Check:
    """One verification under way."""

    def __init__(self, bundle: Bundle, order: VerifyOrder, on_step: Callable[[str], None]) -> None:
        self._bundle = bundle
        self._manifest = bundle.manifest
        self._order = order
        self._on_step = on_step
        self._unchecked: list[str] = []
        self._plan = bundle.plan()
        self._limits = Limits(
            deadline_s=max(_PATIENCE_S, self._plan.deadline_s), memory_bytes=None
        )

    def run(self, scratch: Path) -> Findings:
        manifest = self._manifest
        self._on_step("getting the engine ready")
        machine = run_errand(describe_machine, manifest.engine.backend, self._limits)
        ready = ready_engine(self._bundle, machine, scratch, self._limits)
        references = self._bundle.references()
        outputs, predicted = self._answers(ready, references)
        scores = self._scores(ready.file)
        if predicted is not None:
            scores = (compare_predictions(predicted), *scores)
        speeds = self._speeds(ready.file, machine, references)
        then, now = manifest.environment, dict(machine.facts)
        return Findings(
            subject=str(self._bundle.folder),
            facts=(
                *self._identity(),
                ready.story,
                *other_hardware(then, now),
                *other_surroundings(then, now),
            ),
            unchecked=tuple(self._unchecked),
            outputs=outputs,
            predictions=predicted,
            scores=scores,
            speeds=speeds,
            margin=self._order.margin,
        )

    def _identity(self) -> tuple[str, str]:
        manifest = self._manifest
        files = len(manifest.files) + 2  # the manifest and the sums are not among their own
        return (
            f"{files} files are whole, fingerprint {self._bundle.fingerprint}",
            f"trial {manifest.trial.number} of study {manifest.trial.study}: "
            + str(manifest.deployment.deployment()),
        )

    def _answers(
        self, ready: ReadyEngine, references: References | None
    ) -> tuple[tuple[Agreement, ...], Predictions | None]:
        if references is None:
            self._unchecked.append("outputs: the export has no references")
            return (), None
        self._on_step(f"answering {len(references)} references")
        asking = Asking(engine=ready.file, inputs=references.inputs)
        new = run_errand(ask_engine, asking, self._limits)
        outputs = agreements(
            new,
            references.outputs,
            precision=self._manifest.deployment.precision,
            identical=ready.identical,
        )
        if self._manifest.task.kind is not TaskKind.CLASSIFICATION:
            self._unchecked.append(
                "accuracy on the references: the metric is code, which is not exported; --data "
                "scores with it"
            )
            return outputs, None
        first = self._manifest.outputs[0].name
        labels = np.asarray(references.labels, dtype=np.int64)
        return outputs, predictions(new[first], references.outputs[first], labels)

    def _scores(self, file: EngineFile) -> tuple[ScoreFinding, ...]:
        """Score the user's own data against the export's scores on the report split."""
        if self._order.data is None:
            return ()
        old = self._manifest.scores.get("report") or self._manifest.scores.get("search")
        if old is None:
            self._unchecked.append("--data: the export has no scores to compare with")
            return ()
        self._on_step(f"scoring {self._order.data}")
        scoring = Scoring(
            engine=file, task=self._manifest.task.task(), data=self._order.data.absolute()
        )
        quality = run_errand(score_file, scoring, self._limits)
        return tuple(
            compare_score(
                name,
                new,
                old.scores[name].estimate(),
                data="--data",
                same_samples=quality.split_digest == old.sha256,
            )
            for name, new in quality.scores
            if name in old.scores
        )

    def _speeds(
        self, file: EngineFile, machine: Machine, references: References | None
    ) -> tuple[Compared, ...]:
        reason = self._why_no_speed(machine)
        inputs = None if reason else self._inputs(references)
        old = self._bundle.blocks()
        if reason or inputs is None or old is None:
            missing = "inputs" if inputs is None else "raw blocks of the measurement"
            self._unchecked.append(f"speed: {reason or f'the export has no {missing}'}")
            return ()
        driving = Driving(engine=file, inputs=inputs, plan=self._plan)
        sessions = measure_sessions(
            partial(run_errand, drive_engine, driving, self._limits),
            count=self._order.sessions,
            on_step=self._on_step,
        )
        self._unchecked += sessions.cautions()
        return compare_sessions(
            sessions,
            old,
            wanted_speeds(self._metrics()),
            margin=self._order.margin,
            busy=CONTENDED in self._manifest.measurement.flags,
        )

    def _why_no_speed(self, machine: Machine) -> str | None:
        if self._order.sessions == 0:
            return "not asked for"
        differences = other_hardware(self._manifest.environment, dict(machine.facts))
        return f"measured on other hardware: {differences[0]}" if differences else None

    def _inputs(self, references: References | None) -> Tensors | None:
        """Return what requests cycle over: the references, else samples of the user's data."""
        if references is not None:
            return references.inputs
        if self._order.data is None:
            return None
        task = self._manifest.task.task()
        split = split_from_path(self._order.data, task, source="--data")
        chosen = np.arange(min(len(split), _SAMPLES_IN_FLIGHT))
        specs = tuple(  # a fixed batch is cut from these samples later
            replace(spec, shape=(None, *spec.shape[1:]))
            for spec in (one.tensor() for one in self._manifest.inputs)
        )
        return feeds(split.samples(chosen, task.preprocessing), specs, source="--data")

    def _metrics(self) -> Sequence[str]:
        manifest = self._manifest
        return (
            *(one.metric for one in manifest.objectives),
            *(one.metric for one in manifest.constraints),
        )
