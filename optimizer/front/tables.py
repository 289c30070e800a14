"""Fronts and trials as tables for a terminal."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from optimizer.front.front import Candidate, Front
from optimizer.front.words import label, number, short, standing_of, text_of, threads_of
from optimizer.study.records import TrialRecord
from trials.measurement import Estimate, GpuUse, OnDevice, Quality, Queueing, Quiet
from trials.measuring.sentinel import Sighting, level_of
from trials.outcome import Completed

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_LEAST_DEPLOYMENT = 11  # characters; below it the deployment's words break
_BYTES_PER_MB = 1e6
_STANDING = "on front"


def table_of_front(
    front: Front,
    verdicts: Mapping[int, Quality],
    *,
    width: int,
    shown: Sequence[Candidate] | None = None,
) -> "Table":
    """Lay the front out for a terminal of ``width`` characters: the knee marked, ties dimmed.

    On a narrow terminal the interval stands below its value and the standing below the
    deployment, on a very narrow one the limits below each other: nothing is cut off.

    Args:
        front: What is laid out.
        verdicts: Scores on the report split by trial number.
        width: Characters.
        shown: Which candidates, in which order; all, in their own order, unless told.
    """
    from rich.table import Table
    from rich.text import Text  # brackets are markup to rich, and intervals to us

    candidates = front.candidates if shown is None else shown
    labels = [objective.metric.label for objective in front.objectives]
    if verdicts:
        labels.append(f"{_verdict_label(verdicts)} on report split")
    rows = [_estimates(one.record, front, verdicts) for one in candidates]
    trials = [_number(one, front) for one in candidates]
    names = [short(one.record.outcome.deployment) for one in candidates]
    standings = [standing_of(one) for one in candidates]
    left = width - _widest(["trial", *trials]) - 1
    apart = _widest([_STANDING, *standings]) + 1
    write, widths = _layout(rows, labels, names, left - apart)
    beside = write is text_of
    if not beside:
        names = [f"{name}\n{text}".rstrip() for name, text in zip(names, standings, strict=True)]
        write, widths = _layout(rows, labels, names, left)
    table = Table(header_style="bold", pad_edge=False, box=None, collapse_padding=True)
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("deployment", overflow="fold", width=widths[0])
    if beside:
        table.add_column(_STANDING, no_wrap=True)
    for heading, wide in zip(labels, widths[1:], strict=True):
        table.add_column(Text(heading), justify="right", overflow="fold", width=wide)
    for one, trial, name, text, row in zip(
        candidates, trials, names, standings, rows, strict=True
    ):
        cells: list[str | Text] = [trial, Text(name), *([text] if beside else [])]
        cells += [Text("" if estimate is None else write(estimate)) for estimate in row]
        table.add_row(*cells, style=_style(one, front))
    return table


def _number(one: Candidate, front: Front) -> str:
    return f"{'*' if one.record is front.knee else ''}{one.record.number}"


def _style(one: Candidate, front: Front) -> str | None:
    if one.record is front.knee:
        return "bold"
    return None if one.is_member else "dim"


def topics_of_trial(
    record: TrialRecord, verdict: Quality | None
) -> Iterator[tuple[str, Sequence[tuple[str, str]]]]:
    """Yield everything about one trial: a heading and rows of (name, value), topic by topic."""
    outcome = record.outcome
    yield (
        f"trial {record.number} of study {record.study}: {outcome.state}",
        [(axis, str(value)) for axis, value in outcome.deployment.axes()],
    )
    if not isinstance(outcome, Completed):
        yield "why", [(outcome.kind, outcome.reason)]
        yield "environment", outcome.environment.facts
        return
    flags = f" ({', '.join(outcome.flags)})" if outcome.flags else ""
    yield f"measured, with 95 % intervals{flags}", _written(outcome.metrics().items())
    if outcome.quality is not None:
        yield from _by_cohort(outcome.quality)
    yield from _circumstances(outcome, started_s=record.started_s)
    if verdict is not None:
        yield f"on the report split, {verdict.samples:,} samples", _written(verdict.scores)
        yield from _by_cohort(verdict)
    costs = asdict(outcome.costs).items()
    yield (
        "cost, 0 where the store had it",
        [(_in_seconds(one), number(value)) for one, value in costs],
    )
    yield "engine", [(name, str(value)) for name, value in asdict(outcome.engine).items()]
    yield "environment", outcome.environment.facts


def _circumstances(
    outcome: Completed, *, started_s: float
) -> Iterator[tuple[str, Sequence[tuple[str, str]]]]:
    """Yield how the load was driven and what machine and GPU did meanwhile, as far as told."""
    if outcome.queueing is not None:
        yield "under its open load", list(_queueing(outcome.queueing))
    if outcome.on_device is not None:
        yield "on its device", list(_on_device(outcome.on_device))
    if outcome.quiet is not None and outcome.flags:
        yield "how quiet the machine was", list(_of_quiet(outcome.quiet, outcome.speed.blocks))
    if outcome.gpu is not None:
        yield "the GPU meanwhile", list(_of_gpu(outcome.gpu))
    if outcome.sentinel is not None:
        yield "the sentinel before it", list(_of_sentinel(outcome.sentinel, started_s))


def _by_cohort(quality: Quality) -> Iterator[tuple[str, Sequence[tuple[str, str]]]]:
    """Yield the main score of each cohort, with the split that it rests on."""
    if quality.cohorts:
        yield (
            f"{label(quality.scores[0][0])} by cohort, on the {quality.split} split",
            [(f"{one.cohort} ({one.samples})", text_of(one.score)) for one in quality.cohorts],
        )


def tables_of_trial(
    record: TrialRecord, verdict: Quality | None
) -> Iterator["tuple[Text, Table]"]:
    """Lay everything about one trial out: a heading and a table a topic."""
    from rich.table import Table
    from rich.text import Text

    for heading, rows in topics_of_trial(record, verdict):
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(style="dim")
        table.add_column(overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        yield Text(heading, style="italic"), table


def _of_quiet(quiet: Quiet, blocks: int) -> Iterator[tuple[str, str]]:
    yield "blocks with other work beside them", f"{quiet.contended_blocks} of {blocks}"
    yield "blocks measured again for that", str(quiet.repeated_blocks)
    if quiet.cpu_s_per_request is not None:
        yield "CPU time per request, at most [ms]", number(quiet.cpu_s_per_request * 1e3)


def _of_gpu(gpu: GpuUse) -> Iterator[tuple[str, str]]:
    told = {
        "mean power [W]": gpu.power_w,
        "highest temperature [°C]": gpu.temperature_c,
        "memory in use, of everybody [MB]": _in_mb(gpu.memory_bytes),
        "reading its meters around a block [us]": gpu.reading_s * 1e6,
    }
    yield "GPU", f"{gpu.name}, {gpu.uuid}{', cut into parts (MIG)' if gpu.is_mig else ''}"
    yield from ((name, number(value)) for name, value in told.items() if value is not None)
    for name, clock in (("multiprocessors", gpu.sm_mhz), ("memory", gpu.memory_mhz)):
        if clock is not None:
            yield f"clock of the {name} [MHz]", " to ".join(map(str, sorted(set(clock))))
    yield from _disturbances_of(gpu)


def _disturbances_of(gpu: GpuUse) -> Iterator[tuple[str, str]]:
    if gpu.reasons:
        yield "what held the clocks back", ", ".join(gpu.reasons).replace("_", " ")
    counts = {
        "slowed by heat, a brake or the hardware": gpu.throttled_blocks,
        "held by its power limit, which is no disturbance": gpu.capped_blocks,
        "shared with processes of others": gpu.shared_blocks,
    }
    yield from ((f"blocks {what}", str(count)) for what, count in counts.items() if count)


def _in_mb(size_bytes: int | None) -> float | None:
    return None if size_bytes is None else size_bytes / _BYTES_PER_MB


def _of_sentinel(sighting: Sighting, began_s: float) -> Iterator[tuple[str, str]]:
    yield "deployment", short(sighting.deployment)
    yield "mean latency of a block [ms]", text_of(level_of(sighting).scaled(1e3))
    yield "measured before [s]", f"{max(0.0, began_s - sighting.at_s):.0f}"


def _written(estimates: Iterable[tuple[str, Estimate]]) -> list[tuple[str, str]]:
    return [(label(name), text_of(estimate)) for name, estimate in estimates]


def _queueing(found: Queueing) -> Iterator[tuple[str, str]]:
    for name, mean_s, p99_s in (
        ("waiting", found.wait_mean_s, found.wait_p99_s),
        ("service", found.service_mean_s, found.service_p99_s),
    ):
        yield f"{name} [ms]", f"mean {number(mean_s * 1e3)}, p99 {number(p99_s * 1e3)}"
    filling = f", {found.padded_share:.0%} of it filling" if found.padded_share else ""
    yield "batch", f"mean {number(found.batch_mean)}{filling}"
    late = f"median {number(found.late_p50_s * 1e6)}, p99 {number(found.late_p99_s * 1e6)}"
    yield "lateness of the load generator [us]", late


def _on_device(found: OnDevice) -> Iterator[tuple[str, str]]:
    yield "transfers between host and GPU", found.transfers
    yield "CUDA graph", "yes" if found.uses_graphs else "no"
    timing = found.timing
    if timing is None:
        return
    for name, p50_s, p99_s in (
        ("GPU time without transfers [ms]", timing.gpu_p50_s, timing.gpu_p99_s),
        ("enqueuing a request [ms]", timing.enqueue_p50_s, timing.enqueue_p99_s),
        ("it and its place in line [ms]", timing.wall_p50_s, timing.wall_p99_s),
    ):
        yield name, f"median {number(p50_s * 1e3)}, p99 {number(p99_s * 1e3)}"
    yield (
        "driven by",
        f"{threads_of(timing)}, busy enqueuing for {timing.enqueue_share:.0%} of the time",
    )
    yield "requests in flight for each context", str(timing.depth)


def _in_seconds(cost: str) -> str:
    return f"{cost.removesuffix('_s').replace('_', ' ')} [s]"


def _estimates(
    record: TrialRecord, front: Front, verdicts: Mapping[int, Quality]
) -> list[Estimate | None]:
    """Return what stands in a member's row; the last is its verdict where there are any."""
    assert isinstance(record.outcome, Completed)
    found: list[Estimate | None] = [
        record.outcome.metric(objective.metric.name) for objective in front.objectives
    ]
    if verdicts:
        verdict = verdicts.get(record.number)
        found.append(None if verdict is None else verdict.scores[0][1])
    return found


def _verdict_label(verdicts: Mapping[int, Quality]) -> str:
    return label(next(iter(verdicts.values())).scores[0][0])


def _layout(
    rows: Sequence[Sequence[Estimate | None]],
    labels: Sequence[str],
    names: Sequence[str],
    width: int,
) -> tuple[Callable[[Estimate], str], list[int | None]]:
    """Choose how intervals are written: in the fewest lines that fit ``width``.

    Returns:
        What writes an estimate, and the widths of the columns from ``deployment`` on, which rich
        would else squeeze where it should not.
    """
    columns = list(zip(*rows, strict=True)) or [() for _ in labels]
    longest = _widest(["deployment", *names])
    for write, least in (
        (text_of, longest),
        (_in_two_lines, _LEAST_DEPLOYMENT),
        (_in_three_lines, _LEAST_DEPLOYMENT),
    ):
        widths = [
            _widest([label.replace(" ", "\n"), *(write(one) for one in column if one is not None)])
            for label, column in zip(labels, columns, strict=True)
        ]
        # one space behind every column, the last one too
        left = width - 1 - sum(1 + one for one in widths)
        if left >= least:
            return write, [min(left, longest), *widths]
    return _in_three_lines, [None] * (1 + len(labels))  # so narrow that numbers break


def _widest(texts: Iterable[str]) -> int:
    return max(len(line) for text in texts for line in text.splitlines())


def _in_two_lines(estimate: Estimate) -> str:
    return text_of(estimate).replace(" [", "\n[", 1)


def _in_three_lines(estimate: Estimate) -> str:
    return _in_two_lines(estimate).replace(", ", ",\n", 1)
