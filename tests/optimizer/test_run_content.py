"""What MLflow is told of trials, engines and searches, before anybody talks to MLflow."""

import csv
import io
import json
from dataclasses import replace

import pytest
from search_fakes import ON_DEVICE, completed, failed, infeasible, measured, record_of
from tracking_fakes import (
    DEPLOYMENT,
    FACTS,
    a_failure,
    a_measurement,
    a_record,
    a_trial,
)

from optimizer.front.front import front_of
from optimizer.front.growth import csv_of_growth, fixed_hypervolume, growth_of
from optimizer.tracking.run_content import content_of_engine, content_of_record, device_of
from optimizer.tracking.search_content import (
    SearchFacts,
    Summary,
    content_of_begin,
    content_of_end,
    content_of_front,
    experiment_of,
)
from search_spaces.deployment import Precision
from search_spaces.space import SearchSpace
from trials.outcome import Outcome


@pytest.fixture
def facts(space: SearchSpace) -> SearchFacts:
    return SearchFacts(
        study="night",
        study_id="0123456789ab",
        space=space,
        space_file="version: 1\n",
        digests=(("data:report", "r" * 64), ("variant:small", "s" * 64)),
    )


def test_metrics_are_in_peoples_units_with_their_interval_ends() -> None:
    metrics = dict(a_trial("x").metrics)

    assert metrics["latency_p50_ms"] == pytest.approx(2.0)
    assert metrics["latency_p50_ms.low"] == pytest.approx(1.8)
    assert metrics["latency_p50_ms.high"] == pytest.approx(2.2)
    assert metrics["cost.convert_s"] == pytest.approx(1.5)


def test_unbounded_counted_and_infinite_numbers_leave_no_made_up_metric() -> None:
    names = {name for name, _ in a_trial("x").metrics}

    assert "latency_p99_ms.low" in names
    assert "latency_p99_ms.high" not in names
    assert "peak_memory_mb" in names
    assert "peak_memory_mb.low" not in names
    assert "latency_p999_ms" not in names


def test_objectives_come_first_because_the_page_compares_by_the_first_metric() -> None:
    names = [name for name, _ in a_trial("x").metrics]

    assert names[:2] == ["latency_p99_ms", "latency_p99_ms.low"]
    assert names[2] == "throughput_sps"
    assert names[-1].startswith("cost.")
    assert len(names) == len(set(names))


def test_tags_say_what_people_filter_by() -> None:
    tags = dict(a_trial("u-7").tags)

    assert {
        "kind": "trial",
        "trial_uid": "u-7",
        "trial_number": "7",
        "state": "completed",
        "variant": "small",
        "precision": "int8",
        "backend": "ort",
        "device": "a fast one",
        "host": "h1",
        "on_front": "false",
        "flags": "contended,target_not_met",
    }.items() <= tags.items()
    assert tags["digest.search"] == FACTS.digests["data:search"]
    assert tags["mlflow.source.name"].startswith("trifront ")


@pytest.mark.parametrize(
    ("outcome", "device"),
    [
        (a_measurement(), "a fast one"),
        (replace(a_measurement(), on_device=ON_DEVICE), "H0"),
        (a_failure(), "unknown"),
    ],
    ids=["cpu", "gpu", "nowhere"],
)
def test_device_is_the_processor_that_the_engine_ran_on(outcome: Outcome, device: str) -> None:
    assert device_of(outcome) == device


def test_failed_trial_says_why() -> None:
    told = a_trial("x", a_failure())

    assert told.status == "FAILED"
    assert dict(told.tags)["reason"] == "killed by SIGSEGV"
    assert "raw_blocks" not in dict(told.tags)


def test_only_a_calibrated_precision_claims_the_calibration_split_and_none_the_report() -> None:
    plain = replace(a_measurement(), deployment=replace(DEPLOYMENT, precision=Precision.FP32))

    assert [split for split, _ in a_trial("x").datasets] == ["calibration", "search"]
    assert [split for split, _ in a_trial("x", plain).datasets] == ["search"]


def test_outcome_goes_along_whole() -> None:
    texts = dict(content_of_record(a_record("x"), FACTS).texts)

    assert json.loads(texts["outcome.json"])["state"] == "completed"
    assert json.loads(texts["environment.json"]) == {
        "cpu_model": "a fast one",
        "gpu": "H0",
        "host": "h1",
    }


def test_engine_has_a_name_that_mlflow_takes() -> None:
    outcome = replace(a_measurement(), deployment=replace(DEPLOYMENT, variant="net.v2:a/b"))

    told = content_of_engine(outcome, FACTS)

    assert told.name == "net_v2_a_b-int8-eeeeeeee"
    assert told.file == "engine.onnx"


def test_experiment_says_what_is_searched_and_how_to_look_at_it(facts: SearchFacts) -> None:
    description = experiment_of(facts).description

    assert "deployments of *tiny* on *fake*" in description
    assert "latency_p99_ms (minimize)" in description
    assert "`accuracy >= 0.7`" in description
    assert "tags.on_front = 'true'" in description


def test_search_begins_with_its_space_file_and_all_digests(facts: SearchFacts) -> None:
    told = content_of_begin(facts, now_s=12.5)

    assert told.uid == "search-0123456789ab"
    assert told.started_ms == 12_500
    assert dict(told.texts) == {"space.yaml": "version: 1\n"}
    assert dict(told.tags)["digest.variant.small"] == "s" * 64
    assert told.datasets == (("report", "r" * 64),)


def test_search_ends_with_its_front_and_its_growth(facts: SearchFacts, space: SearchSpace) -> None:
    records = [record_of(number, measured(one)) for number, one in enumerate(space.deployments())]
    front = front_of(records, space.objectives, space.constraints)
    growth = growth_of(records, space.objectives, space.constraints)

    told = content_of_end(
        facts.uid,
        now_s=9.0,
        status="FINISHED",
        summary=Summary(front=front, verdicts={}, growth=growth, picture=b"png"),
    )

    texts = dict(told.texts)
    assert len(json.loads(texts["front.json"])["front"]) == len(front.members)
    assert len(list(csv.DictReader(io.StringIO(texts["front.csv"])))) == len(front.members)
    assert len(texts["hypervolume.csv"].splitlines()) == 1 + len(records)
    assert dict(told.metrics) == {"trials": len(records), "front_members": len(front.members)}
    assert told.files == ("front.png",)
    assert f"| {front.members[0].number} |" in dict(told.tags)["mlflow.note.content"]


def test_front_of_hundreds_is_described_no_longer_than_mlflow_keeps(
    facts: SearchFacts, space: SearchSpace
) -> None:
    deployment = next(space.deployments())
    records = [
        record_of(one, completed(deployment, latency_ms=1.0 + one, sps=1.0 + one, accuracy=0.9))
        for one in range(300)
    ]
    front = front_of(records, space.objectives, space.constraints)
    summary = Summary(front=front, verdicts={}, growth=(), picture=None)

    told = content_of_end(facts.uid, now_s=0.0, status="FINISHED", summary=summary)

    description = dict(told.tags)["mlflow.note.content"]
    assert len(front.members) == 300
    assert len(description) < 8_000
    assert description.endswith("|\n\nThe whole front is in `front.csv`.")


def test_front_names_its_members(facts: SearchFacts, space: SearchSpace) -> None:
    records = [record_of(number, measured(one)) for number, one in enumerate(space.deployments())]
    front = front_of(records, space.objectives, space.constraints)

    told = content_of_front(facts, front)

    assert set(told.members) == {record.uid for record in front.members}


def test_growth_of_one_deployment_is_the_product_of_its_gains(space: SearchSpace) -> None:
    """Worst are 10,000 ms, 1 sample/s and an accuracy of 0: 4 decades × 3 decades × 0.9."""
    deployment = next(space.deployments())
    record = record_of(0, completed(deployment, latency_ms=1.0, sps=1000.0, accuracy=0.9))

    (point,) = growth_of([record], space.objectives, space.constraints)

    assert point.volume == pytest.approx(4 * 3 * 0.9)
    assert fixed_hypervolume([record], space.objectives) == pytest.approx(point.volume)


def test_deployment_that_is_worse_than_the_worst_gains_nothing(space: SearchSpace) -> None:
    deployment = next(space.deployments())
    record = record_of(0, completed(deployment, latency_ms=1e5, sps=1000.0, accuracy=0.9))

    (point,) = growth_of([record], space.objectives, space.constraints)

    assert point.volume == 0.0


def test_growth_never_shrinks_and_its_points_are_final(space: SearchSpace) -> None:
    """What was told of an earlier trial need never be told again."""
    records = [record_of(number, measured(one)) for number, one in enumerate(space.deployments())]
    whole = growth_of(records, space.objectives, space.constraints)

    for count in (1, 7, 40):
        part = growth_of(records[:count], space.objectives, space.constraints)
        assert part == whole[:count]
    volumes = [point.volume for point in whole]
    assert volumes == sorted(volumes)
    front = front_of(records, space.objectives, space.constraints)
    assert volumes[-1] == pytest.approx(fixed_hypervolume(front.members, space.objectives))


def test_growth_passes_over_what_does_not_count(space: SearchSpace) -> None:
    first, second, third = list(space.deployments())[:3]
    poor = completed(third, latency_ms=1.0, sps=1.0, accuracy=0.1)
    records = [record_of(0, failed(first)), record_of(1, infeasible(second)), record_of(2, poor)]

    points = growth_of(records, space.objectives, space.constraints)

    assert [point.volume for point in points] == [0.0, 0.0, 0.0]
    assert csv_of_growth(points).splitlines()[1] == "0,0.500,0.0"
