"""The tables of a report, as texts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from optimizer.front.front import Candidate, Front
from optimizer.front.words import label, number, short, standing_of, text_of, threads_of
from optimizer.study.records import TrialRecord
from optimizer.study.study import SearchStudy
from search_spaces.metrics import Direction
from search_spaces.space import Objective
from trials.measurement import DeviceTiming, Estimate, Quality
from trials.outcome import Completed, Failed, Infeasible

_FLAGS = {
    "target_not_met": "its intervals are wider than the space asked for",
    "contended": "other work took the processor meanwhile, or its GPU was hot or shared",
    "no_steady_state": "its latencies drifted throughout",
    "decided": "it was measured no longer, because it misses a bound for certain",
    "level_shift": "its speed jumped in the middle of the measurement",
    "power_capped": "the power limit of its GPU held the clocks back, as under any full load",
    "enqueue_bound": "asking for a request took the host about as long as the GPU needed for it",
    "late_arrivals": "the load generator sent requests later than they were due",
}
_MOMENTARY = ("load_", "psi_")  # facts of the environment that differ at each trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of texts."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def table_of_choices(front: Front) -> Table:
    """Name the deployments that somebody would look at first."""
    picked: list[tuple[str, TrialRecord]] = []
    if front.knee is not None:
        picked.append(("knee: would be missed most", front.knee))
    for objective in front.objectives:
        best = _best(front, objective)
        if best is not None:
            picked.append((f"best {label(objective.metric.name)}", best))
    rows = tuple(
        (why, f"{record.number}", short(record.outcome.deployment), *_texts(record, front))
        for why, record in picked
    )
    return Table(columns=("", "trial", "deployment", *_labels(front)), rows=rows)


def _best(front: Front, objective: Objective) -> TrialRecord | None:
    sign = 1 if objective.direction is Direction.MINIMIZE else -1
    return min(
        front.members,
        key=lambda record: sign * _estimate(record, objective.metric.name).value,
        default=None,
    )


def table_of_candidates(front: Front, verdicts: Mapping[int, Quality]) -> Table:
    """List members and ties with their intervals, and the report split's verdict on members."""
    columns = ("trial", "deployment", "on front", *_labels(front), "on report split", "flags")
    rows = []
    for one in front.candidates:
        assert isinstance(one.record.outcome, Completed)
        verdict = verdicts.get(one.record.number)
        rows.append(
            (
                f"{one.record.number}{' (knee)' if one.record is front.knee else ''}",
                short(one.record.outcome.deployment),
                _standing(one),
                *_texts(one.record, front),
                "" if verdict is None else text_of(verdict.scores[0][1]),
                ", ".join(one.record.outcome.flags),
            )
        )
    return Table(columns=columns, rows=tuple(rows))


def _standing(one: Candidate) -> str:
    return standing_of(one) or ("member" if one.is_member else "tie")


def table_of_devices(front: Front) -> Table:
    """Say of members and ties that ran on a device how, and where the time of requests went."""
    rows = []
    for one in front.candidates:
        assert isinstance(one.record.outcome, Completed)
        found = one.record.outcome.on_device
        if found is not None:
            graph = "yes" if found.uses_graphs else "no"
            times = _times(found.timing) if found.timing is not None else ("", "", "")
            rows.append((f"{one.record.number}", found.transfers, graph, *times))
    columns = ("trial", "transfers", "CUDA graph", "GPU time [ms]", "enqueuing [ms]", "driven by")
    return Table(columns=columns, rows=tuple(rows))


def _times(timing: DeviceTiming) -> tuple[str, str, str]:
    """Write medians, and who drove."""
    times = number(timing.gpu_p50_s * 1e3), number(timing.enqueue_p50_s * 1e3)
    return *times, threads_of(timing)


def engines_of(front: Front) -> dict[str, Quality]:
    """Return the quality of each engine on the front, by variant and precision."""
    found = {}
    for record in front.members:
        assert isinstance(record.outcome, Completed)
        if record.outcome.quality is not None:
            deployment = record.outcome.deployment
            found[f"{deployment.variant} {deployment.precision}"] = record.outcome.quality
    return dict(sorted(found.items()))


def table_of_scores(front: Front, verdicts: Mapping[int, Quality]) -> Table:
    """List each engine's scores on the search split and, where it was opened, the report split."""
    names = list(
        dict.fromkeys(name for one in engines_of(front).values() for name, _ in one.scores)
    )
    rows = []
    seen = set()
    for record in front.members:
        assert isinstance(record.outcome, Completed)
        quality = record.outcome.quality
        deployment = record.outcome.deployment
        engine = f"{deployment.variant} {deployment.precision}"
        if quality is None or engine in seen:
            continue
        seen.add(engine)
        for split in (quality, verdicts.get(record.number)):
            if split is not None:
                scores = dict(split.scores)
                texts = (text_of(scores[name]) if name in scores else "" for name in names)
                rows.append((engine, split.split, f"{split.samples:,}", *texts))
    return Table(
        columns=("engine", "split", "samples", *map(label, names)), rows=tuple(sorted(rows))
    )


def table_of_left_out(front: Front) -> Table:
    """List what cannot run, what failed and what misses a bound, with the reason."""
    rows = []
    for record in (*front.infeasible, *front.failed):
        assert isinstance(record.outcome, Infeasible | Failed)
        outcome = record.outcome
        what = f"{outcome.state}: {outcome.kind}"
        rows.append((f"{record.number}", short(outcome.deployment), what, outcome.reason))
    for record in front.missed:
        assert isinstance(record.outcome, Completed)
        missed = ", ".join(
            f"{one} ({text_of(record.outcome.metric(one.metric.name))})"
            for one in front.constraints
            if one.violation(record.outcome.metric(one.metric.name).value) > 0
        )
        rows.append(
            (f"{record.number}", short(record.outcome.deployment), "misses a bound", missed)
        )
    return Table(columns=("trial", "deployment", "what", "why"), rows=tuple(rows))


def table_of_axes(study: SearchStudy) -> Table:
    """List what was searched."""
    rows = [(axis.name, ", ".join(map(str, axis.values))) for axis in study.space.axes]
    rows += [("rule", rule.text) for rule in study.space.rules]
    rows += [("bound", str(constraint)) for constraint in study.space.constraints]
    return Table(columns=("axis", "values"), rows=tuple(rows))


def table_of_environments(records: Sequence[TrialRecord]) -> Table:
    """List the facts that all measured trials share, and how the others vary."""
    found: dict[str, list[str]] = {}
    for record in records:
        if isinstance(record.outcome, Completed):
            for name, value in record.outcome.environment.facts:
                found.setdefault(name, []).append(value)
    rows = []
    for name, values in sorted(found.items()):
        distinct = sorted(set(values))
        if name.startswith(_MOMENTARY):
            loads = sorted(float(value) for value in distinct if value != "unknown")
            shown = f"{loads[0]:g} to {loads[-1]:g} over the trials" if loads else "unknown"
        else:
            shown = ", ".join(distinct)
        rows.append((name, shown))
    return Table(columns=("fact", "value"), rows=tuple(rows))


def table_of_flags(front: Front) -> Table:
    """List the words of caution that candidates carry."""
    rows = []
    for flag, meaning in _FLAGS.items():
        trials = []
        for one in front.candidates:
            assert isinstance(one.record.outcome, Completed)
            if flag in one.record.outcome.flags:
                trials.append(str(one.record.number))
        if trials:
            rows.append((flag, meaning, ", ".join(trials)))
    return Table(columns=("flag", "meaning", "trials on the front"), rows=tuple(rows))


def _labels(front: Front) -> Iterator[str]:
    return (one.metric.label for one in front.objectives)


def _texts(record: TrialRecord, front: Front) -> Iterator[str]:
    return (text_of(_estimate(record, one.metric.name)) for one in front.objectives)


def _estimate(record: TrialRecord, metric: str) -> Estimate:
    assert isinstance(record.outcome, Completed)
    return record.outcome.metric(metric)
