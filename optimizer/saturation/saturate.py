"""Saturate one trial's deployment: its sources are checked, and its result is kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from optimizer.export.gathering import measured
from optimizer.saturation.result import Saturation, blocks_of_point, save_saturation
from optimizer.saturation.slo import slo_from_texts
from optimizer.saturation.sweep import Bench, SweepOrder, plan_of_points, sweep
from optimizer.study.records import TrialRecord
from optimizer.study.study import SearchStudy
from optimizer.verification.reproduce import refuse_changed
from optimizer.wiring import Place, opened_worker
from optimizer.workspace import save_blocks
from trials.machine.environment import environment
from trials.measurement import Block


@dataclass(frozen=True, slots=True, kw_only=True)
class SaturateOrder:
    """What a user asks for.

    Attributes:
        slo: Bounds in words; empty for those of the study's space.
        time_s: About how long it may take, seconds.
    """

    slo: Sequence[str]
    time_s: float


def saturate(
    record: TrialRecord,
    study: SearchStudy,
    place: Place,
    order: SaturateOrder,
    *,
    on_step: Callable[[str], None],
) -> Saturation:
    """Sweep a trial's deployment and keep what was found beside the trial's raw blocks.

    Raises:
        ExportError: The trial was not measured.
        StudyError: A model or data are no longer what the trial was measured with.
        UsageError: Bounds that cannot be meant.
        TrialError: The deployment cannot be measured tonight, or no longer at all.
        WorkspaceError: The result cannot be written.
    """
    outcome = measured(record)
    slo = slo_from_texts(order.slo, study.space)
    space = replace(study.space, plan=plan_of_points(study.space.plan, time_s=order.time_s))
    made_at = datetime.now(UTC).isoformat(timespec="seconds")

    def keep(point: str, blocks: tuple[Block, ...]) -> None:
        path = blocks_of_point(place.workspace, record.uid, made_at, point=point)
        save_blocks(blocks, path)

    with opened_worker(space, place) as worker:
        on_step("reading models and data")
        refuse_changed(outcome, study, dict(worker.describe().digests))
        found = sweep(
            SweepOrder(
                study=study.name,
                trial=record.number,
                deployment=outcome.deployment,
                slo=slo,
                time_s=order.time_s,
            ),
            Bench(measure=worker.measure, keep=keep, on_step=on_step),
            made_at=made_at,
            environment=environment().facts,
        )
    save_saturation(found, place.workspace, record.uid)
    return found
