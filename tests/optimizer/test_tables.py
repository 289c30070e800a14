"""Tables that fit where they are shown, and data that says the same."""

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from search_fakes import ON_DEVICE, completed, failed, infeasible, measured, record_of

from optimizer.front.data import csv_of_records, data_of_front, data_of_trial
from optimizer.front.front import Front, front_of
from optimizer.front.tables import table_of_front, tables_of_trial
from optimizer.front.words import (
    number,
    short,
    summary_of_front,
    text_of,
    text_of_difference,
    why_empty,
)
from optimizer.study.records import TrialRecord, json_from_outcome, outcome_from_json
from search_spaces.metrics import METRICS
from search_spaces.space import Objective, SearchSpace
from trials.measurement import CohortScore, Estimate, OnDevice, Quality, Quiet, exact
from trials.outcome import Completed, Outcome

METRIC_NAMES = ("latency_p99_ms", "throughput_sps", "accuracy", "latency_p50_ms")


def front_with(space: SearchSpace, *, objectives: int) -> Front:
    wanted = tuple(
        Objective(metric=METRICS[name], direction=METRICS[name].direction)
        for name in METRIC_NAMES[:objectives]
    )
    records = [record_of(n * 1000, measured(one)) for n, one in enumerate(space.deployments())]
    return front_of(records, wanted, ())


def verdicts_of(front: Front) -> dict[int, Quality]:
    score = Estimate(value=0.9012, low=0.8876, high=0.9154)
    quality = Quality(
        split="report", split_digest="r", samples=2000, scores=(("accuracy", score),)
    )
    return {record.number: quality for record in front.members[1:] or front.members}


def printed(front: Front, verdicts: dict[int, Quality], *, width: int) -> str:
    console = Console(file=StringIO(), width=width, force_terminal=False)
    console.print(table_of_front(front, verdicts, width=width))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def numbers_in(front: Front) -> set[str]:
    texts = set()
    for record in front.members:
        assert isinstance(record.outcome, Completed)
        for objective in front.objectives:
            estimate = record.outcome.metric(objective.metric.name)
            assert estimate.low is not None
            assert estimate.high is not None
            texts |= {number(estimate.value), number(estimate.low), number(estimate.high)}
    return texts


@pytest.mark.parametrize("width", [72, 80, 100, 120, 160])
@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_front_fits_and_nothing_is_cut_off(
    space: SearchSpace, objectives: int, width: int
) -> None:
    front = front_with(space, objectives=objectives)

    text = printed(front, verdicts_of(front), width=width)

    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for shown in numbers_in(front) | {"0.901", "0.888", "0.915"}:
        assert shown in text
    for word in ("trial", "deployment", *(str(record.number) for record in front.members)):
        assert word in text


def test_three_objectives_are_one_line_each_in_a_pipe(space: SearchSpace) -> None:
    front = front_with(space, objectives=3)

    text = printed(front, verdicts_of(front), width=160)

    rows = text[text.index("trial deployment") :].splitlines()[1:]
    assert len(rows) == len(front.candidates)


def test_knee_is_starred_once(space: SearchSpace) -> None:
    front = front_with(space, objectives=3)
    assert front.knee is not None

    text = printed(front, {}, width=160)

    assert text.count("*") == 1
    assert f"*{front.knee.number} " in text


def test_member_without_a_verdict_has_an_empty_cell(space: SearchSpace) -> None:
    front = front_with(space, objectives=2)
    judged = verdicts_of(front)

    text = printed(front, judged, width=160)

    assert len(judged) == len(front.members) - 1
    assert text.count("0.901 [0.888, 0.915]") == len(judged)


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (exact(0.5), "0.5"),
        (Estimate(value=1.234, low=1.2, high=1.27), "1.23 [1.2, 1.27]"),
        (Estimate(value=5.0, low=4.0, high=None), "5 [4, ∞]"),
        (Estimate(value=5.0, low=None, high=6.0), "5 [0, 6]"),
        (Estimate(value=43958.4, low=40000.0, high=123456.0), "43,958 [40,000, 123,456]"),
    ],
)
def test_interval_is_written_behind_its_value(estimate: Estimate, text: str) -> None:
    assert text_of(estimate) == text


def test_difference_without_a_lower_limit_may_be_anything_below() -> None:
    """A latency may not: where the data give no lower limit, it is 0."""
    difference = Estimate(value=5.0, low=None, high=6.0)

    assert text_of_difference(difference) == "5 [−∞, 6]"


@pytest.mark.parametrize(
    ("value", "text"),
    [(999.4, "999"), (999.7, "1,000"), (-1234.5, "-1,234"), (0.0, "0"), (1e-7, "1e-07")],
)
def test_numbers_have_three_digits_and_no_needless_exponent(value: float, text: str) -> None:
    assert number(value) == text


@given(st.floats(min_value=1e-3, max_value=1e9))
def test_written_number_is_within_half_a_percent(value: float) -> None:
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=0.0051)


def test_deployment_is_written_in_few_characters(space: SearchSpace) -> None:
    first = next(space.deployments())

    assert short(first) == "large fp32 b1 c1 threads=1"


def test_summary_counts_everything_and_names_reasons_once(space: SearchSpace) -> None:
    one, two, three, four = islice(space.deployments(), 4)
    outcomes: list[Outcome] = [measured(one), infeasible(two), infeasible(three), failed(four)]
    front = front_of(
        [record_of(n, outcome) for n, outcome in enumerate(outcomes)],
        space.objectives,
        space.constraints,
    )

    lines = list(summary_of_front(front))

    assert lines[0] == "1 on the front, 2 infeasible, 1 failed"
    assert lines[-2:] == [
        "2 × infeasible (memory): needs 25 GB of 24 GB",
        "1 × failed (crash): killed by SIGSEGV",
    ]


@pytest.mark.parametrize(
    ("latency_ms", "cpu_s", "on_device", "told"),
    [
        (0.04, 4e-5, None, True),
        (0.06, 6e-5, None, False),
        (0.04, None, None, False),  # computed
        (0.04, 4e-5, ON_DEVICE, False),
    ],
)
def test_summary_says_of_short_requests_that_python_is_part_of_them(
    space: SearchSpace,
    latency_ms: float,
    cpu_s: float | None,
    on_device: OnDevice | None,
    *,
    told: bool,
) -> None:
    deployment = next(space.deployments())
    outcome = completed(deployment, latency_ms=latency_ms, sps=100, accuracy=0.9)
    quiet = Quiet(contended_blocks=0, repeated_blocks=0, cpu_s_per_request=cpu_s)
    record = record_of(0, replace(outcome, quiet=quiet, on_device=on_device))

    lines = list(summary_of_front(front_of([record], space.objectives, ())))

    assert any("1 of these 1 answer in less than 50 us" in line for line in lines) == told


def test_empty_front_says_why_and_what_to_do(space: SearchSpace) -> None:
    deployment = next(space.deployments())
    empty = front_of([], space.objectives, ())
    infeasible_alone = front_of([record_of(0, infeasible(deployment))], space.objectives, ())

    assert "search on, or name another study" in why_empty(empty, trials=0)
    assert "loosen a --where" in why_empty(empty, trials=3)
    assert "nothing could be measured" in why_empty(infeasible_alone, trials=1)


def test_summary_of_nothing_says_so(space: SearchSpace) -> None:
    assert list(summary_of_front(front_of([], space.objectives, ()))) == ["no trials"]


def topics(record: TrialRecord, verdict: Quality | None = None) -> str:
    console = Console(file=StringIO(), width=80, force_terminal=False)
    for heading, table in tables_of_trial(record, verdict):
        console.print(heading)
        console.print(table)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_shown_trial_holds_every_metric_with_its_unit(space: SearchSpace) -> None:
    outcome = measured(next(space.deployments()))
    assert outcome.quality is not None
    cohort = CohortScore(cohort="night", samples=9, score=exact(0.5))
    record = record_of(7, replace(outcome, quality=replace(outcome.quality, cohorts=(cohort,))))

    text = topics(record, verdicts_of(front_with(space, objectives=3)).popitem()[1])

    assert "trial 7 of study tiny: completed" in text
    for label in [METRICS[name].label for name in outcome.metrics()]:
        assert label in text
    for words in ("on the report split, 2,000 samples", "night (9)", "build [s]", "engine_digest"):
        assert words in text


def test_trial_on_a_device_says_where_its_time_went(space: SearchSpace) -> None:
    outcome = replace(measured(next(space.deployments())), on_device=ON_DEVICE)

    text = topics(record_of(7, outcome))

    assert re.search(r"transfers between host and GPU\s+exclude", text)
    assert re.search(r"GPU time without transfers \[ms\]\s+median 0.5, p99 0.6", text)
    assert re.search(r"enqueuing a request \[ms\]\s+median 0.02, p99 0.03", text)
    assert re.search(r"driven by\s+1 thread, busy enqueuing for 4% of\s+the time", text)


def test_trial_of_an_open_loop_on_a_device_states_its_transfers(space: SearchSpace) -> None:
    on_device = replace(ON_DEVICE, timing=None)
    outcome = replace(measured(next(space.deployments())), on_device=on_device)

    text = topics(record_of(7, outcome))

    assert re.search(r"transfers between host and GPU\s+exclude", text)
    assert "driven by" not in text


def test_record_and_json_of_a_trial_on_a_device_state_its_transfers(space: SearchSpace) -> None:
    outcome = replace(measured(next(space.deployments())), on_device=ON_DEVICE, blocks=())

    read = outcome_from_json(json_from_outcome(outcome))
    data = data_of_trial(record_of(7, read), None)

    assert read == outcome
    assert isinstance(data["on_device"], dict)
    assert data["on_device"]["transfers"] == "exclude"
    assert data["on_device"]["timing"]["gpu_p50_s"] == 0.5e-3


def test_cohorts_are_shown_with_the_split_that_they_rest_on(space: SearchSpace) -> None:
    outcome = measured(next(space.deployments()))
    assert outcome.quality is not None
    searched = CohortScore(cohort="night", samples=9, score=exact(0.5))
    searched_quality = replace(outcome.quality, cohorts=(searched,))
    reported = replace(searched, samples=7)
    verdict = replace(outcome.quality, split="report", cohorts=(reported,))

    text = topics(record_of(7, replace(outcome, quality=searched_quality)), verdict)

    search_split = "top-1 accuracy by cohort, on the search split\nnight (9)"
    report_split = "top-1 accuracy by cohort, on the report split\nnight (7)"
    assert (
        text.index(search_split)
        < text.index("on the report split, 100")
        < text.index(report_split)
    )


def test_shown_infeasible_trial_says_why(space: SearchSpace) -> None:
    text = topics(record_of(3, infeasible(next(space.deployments()))))

    assert "trial 3 of study tiny: infeasible" in text
    assert "needs 25 GB of 24 GB" in text


def test_front_as_data_is_json_with_intervals_and_verdicts(space: SearchSpace) -> None:
    front = front_with(space, objectives=3)
    assert front.knee is not None

    data = json.loads(json.dumps(data_of_front(front, verdicts_of(front)), allow_nan=False))

    assert data["knee"] == front.knee.number
    assert data["objectives"]["latency_p99_ms"] == "minimize"
    assert data["counts"]["front"] == len(data["front"]) == len(front.members)
    assert data["front"][0]["metrics"]["throughput_sps"].keys() == {"value", "low", "high"}
    assert "report" not in data["front"][0]
    assert data["front"][1]["report"]["accuracy"]["value"] == 0.9012


def test_trial_that_was_not_measured_is_data_with_a_reason(space: SearchSpace) -> None:
    data = data_of_trial(record_of(3, failed(next(space.deployments()))), None)

    assert (data["state"], data["kind"]) == ("failed", "crash")
    assert data["reason"] == "killed by SIGSEGV"
    assert "metrics" not in data


def rows_of(records: Sequence[TrialRecord]) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(csv_of_records(records))))


def test_csv_has_a_row_per_trial_and_empty_cells_for_what_was_not_measured(
    space: SearchSpace,
) -> None:
    one, two = islice(space.deployments(), 2)
    outcome = measured(one)

    rows = rows_of([record_of(0, infeasible(two)), record_of(1, outcome)])

    assert [row["state"] for row in rows] == ["infeasible", "completed"]
    assert rows[0]["latency_p99_ms"] == ""
    assert float(rows[1]["latency_p99_ms"]) == outcome.metric("latency_p99_ms").value
    assert float(rows[1]["latency_p99_ms.high"]) == outcome.metric("latency_p99_ms").high
    assert rows[1]["threads"] == "1"


def test_csv_of_no_trials_is_a_file_without_rows() -> None:
    assert rows_of([]) == []
