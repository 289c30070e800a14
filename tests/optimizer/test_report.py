"""The report: one file that says everything, calls nobody, and lets nothing out of its place."""

import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
from search_fakes import ON_DEVICE, completed, failed, infeasible, measured, record_of, scored

from optimizer.front.front import Front, front_of
from optimizer.front.resampling import with_probabilities
from optimizer.report.album import (
    cohorts_of,
    concurrency_of,
    distributions_of,
    measured_members,
    reliability_of,
    tails_of,
)
from optimizer.report.content import Content, Point
from optimizer.report.page import html_of_content
from optimizer.report.tables import (
    Table,
    engines_of,
    table_of_candidates,
    table_of_choices,
    table_of_devices,
    table_of_environments,
    table_of_flags,
    table_of_left_out,
    table_of_scores,
)
from optimizer.study.records import TrialRecord
from search_spaces.space import SearchSpace
from trials.measurement import Block, CohortScore
from trials.measuring.statistics import proportion
from trials.outcome import Completed, Environment
from trials.scoring.calibration import calibration

NOTHING = Table(columns=(), rows=())
NASTY = "</script><script>alert(1)</script>&\"'"


def blocks_of(uid: str) -> tuple[Block, ...]:
    generator = np.random.default_rng(int(uid.removeprefix("u-")))
    return tuple(
        Block(
            start_s=float(at),
            window_s=0.1,
            latencies_s=generator.lognormal(-7, 0.3, 200),
            batch_size=1,
        )
        for at in range(8)
    )


@pytest.fixture
def records(space: SearchSpace) -> list[TrialRecord]:
    deployments = list(space.deployments())
    found = [record_of(number, measured(one)) for number, one in enumerate(deployments[:-2])]
    found.append(record_of(78, infeasible(deployments[-2])))
    found.append(record_of(79, failed(deployments[-1])))
    return found


@pytest.fixture
def front(space: SearchSpace, records: list[TrialRecord]) -> Front:
    found = front_of(records, space.objectives, space.constraints)
    return with_probabilities(found, blocks_of, draws=20)


def content(front: Front, *, name: str = "study") -> Content:
    return Content(
        study=name,
        made_at="today",
        trifront="1.0",
        question=("Which?",),
        summary=("many trials",),
        choices=table_of_choices(front),
        objectives=tuple(one.metric.name for one in front.objectives),
        knee=None if front.knee is None else front.knee.number,
        points=tuple(
            Point(
                trial=one.record.number,
                name=name,
                standing="member" if one.is_member else "tie",
                note="",
                metrics={"accuracy": (0.5, None, 0.6)},
            )
            for one in front.candidates
        ),
        front=table_of_candidates(front, {}),
        distributions=distributions_of(measured_members(front, blocks_of)),
        tails=tails_of(measured_members(front, blocks_of)),
        concurrency=None,
        saturations=(),
        devices=table_of_devices(front),
        scores=table_of_scores(front, {}),
        cohorts=None,
        reliability=None,
        left_out=table_of_left_out(front),
        axes=NOTHING,
        space_file=name,
        inputs=NOTHING,
        environments=NOTHING,
        flags=table_of_flags(front),
    )


class Elements(HTMLParser):
    """Collects what a page refers to and runs."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href")]


def without_libraries(page: str) -> str:
    return re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)


def test_page_refers_to_nothing_outside_itself(front: Front) -> None:
    page = html_of_content(content(front))

    elements = Elements(page)
    assert elements.references
    assert all(one.startswith("data:image/svg+xml;base64,") for one in elements.references)
    assert "default-src 'none'" in page
    assert not {"link", "iframe", "object", "base"} & set(elements.tags)


def test_names_stay_text_wherever_they_stand(front: Front) -> None:
    page = html_of_content(content(front, name=NASTY))

    assert Elements(page).tags.count("script") == Elements(
        html_of_content(content(front))
    ).tags.count("script")
    assert "<script>alert" not in page
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page)
    assert data is not None
    assert json.loads(data[1])["points"][0]["name"] == NASTY


def test_page_without_a_script_has_every_candidate_with_its_intervals(front: Front) -> None:
    page = unescape(without_libraries(html_of_content(content(front))))

    for row in table_of_candidates(front, {}).rows:
        for cell in row:
            assert f"<td>{cell}</td>" in page


def test_every_picture_says_in_words_what_it_shows(front: Front) -> None:
    page = without_libraries(html_of_content(content(front)))

    texts = re.findall(r'<img [^>]*alt="([^"]+)"', page)
    assert len(texts) == page.count("<img ") == 2


def test_candidates_are_listed_with_standing_and_knee(front: Front) -> None:
    table = table_of_candidates(front, {})

    assert front.knee is not None
    assert len(table.rows) == len(front.candidates)
    assert sum("(knee)" in row[0] for row in table.rows) == 1
    assert all(re.search(r"\d %|≈", row[2]) for row in table.rows)


def test_best_of_each_objective_and_the_knee_come_first(front: Front, space: SearchSpace) -> None:
    table = table_of_choices(front)

    assert len(table.rows) == 1 + len(space.objectives)
    assert table.rows[0][0].startswith("knee")


def test_what_ran_on_a_device_says_how(space: SearchSpace) -> None:
    outcome = replace(measured(next(space.deployments())), on_device=ON_DEVICE)
    front = front_of([record_of(3, outcome)], space.objectives, ())

    table = table_of_devices(front)

    assert table.rows == (("3", "exclude", "yes", "0.5", "0.02", "1 thread"),)
    page = html_of_content(content(front))
    assert "<h2>On the device</h2>" in page
    assert "0.02" in page


def test_what_is_left_out_has_its_reason(front: Front) -> None:
    rows = {row[0]: row for row in table_of_left_out(front).rows}

    assert rows["78"][2:] == ("infeasible: memory", "needs 25 GB of 24 GB")
    assert rows["79"][2:] == ("failed: crash", "killed by SIGSEGV")


def test_deployment_that_misses_a_bound_is_left_out_with_the_bound(space: SearchSpace) -> None:
    outcome = completed(next(space.deployments()), latency_ms=1, sps=1, accuracy=0.5)

    table = table_of_left_out(front_of([record_of(0, outcome)], (), space.constraints))

    assert table.rows[0][2:] == ("misses a bound", "accuracy >= 0.7 (0.5)")


def test_facts_that_differ_between_trials_are_all_named(space: SearchSpace) -> None:
    records = [
        record_of(number, replace(measured(one), environment=Environment(facts=facts)))
        for number, (one, facts) in enumerate(
            zip(
                list(space.deployments())[:2],
                (
                    (("cpu_model", "A"), ("load_1m", "0.50")),
                    (("cpu_model", "B"), ("load_1m", "3.25")),
                ),
                strict=True,
            )
        )
    ]

    assert table_of_environments(records).rows == (
        ("cpu_model", "A, B"),
        ("load_1m", "0.5 to 3.25 over the trials"),
    )


def test_words_of_caution_name_their_trials(space: SearchSpace) -> None:
    outcome = replace(measured(next(space.deployments())), flags=("contended",))

    table = table_of_flags(front_of([record_of(7, outcome)], space.objectives, ()))

    assert table.rows == (
        (
            "contended",
            "other work took the processor meanwhile, or its GPU was hot or shared",
            "7",
        ),
    )


def test_series_are_alike_but_for_concurrency(records: list[TrialRecord]) -> None:
    picture = concurrency_of(records)

    assert picture is not None
    assert "small fp32 b1 threads=1" in picture.text
    assert " c2 " not in picture.text


def test_single_levels_of_concurrency_make_no_picture(space: SearchSpace) -> None:
    assert concurrency_of([record_of(0, measured(next(space.deployments())))]) is None


def test_cohorts_and_confidences_are_shown_where_there_are_some(space: SearchSpace) -> None:
    generator = np.random.default_rng(0)
    hits = generator.random(200) < 0.9
    outcome = scored(measured(next(space.deployments())), hits)
    assert outcome.quality is not None
    stated = np.stack([np.linspace(0.55, 0.99, 200), np.linspace(0.45, 0.01, 200)], axis=1)
    quality = replace(
        outcome.quality,
        cohorts=(CohortScore(cohort="night", samples=50, score=proportion(44, 50)),),
        calibration=calibration(stated, (~hits).astype(np.int64)),
    )
    front = front_of([record_of(0, replace(outcome, quality=quality))], space.objectives, ())

    engines = engines_of(front)

    cohorts, reliability = cohorts_of(engines), reliability_of(engines)
    assert cohorts is not None
    assert "night 0.88 [" in cohorts.text
    assert reliability is not None
    assert "ECE" in reliability.text
    assert all(one.svg.count("</svg>") == 1 for one in (cohorts, reliability))


def test_pictures_are_the_same_again(front: Front) -> None:
    members = measured_members(front, blocks_of)

    assert distributions_of(members) == distributions_of(members)
    assert members[0].record == front.knee


def test_front_of_nothing_makes_a_report_that_says_so(space: SearchSpace) -> None:
    empty = front_of([record_of(0, infeasible(next(space.deployments())))], space.objectives, ())

    page = html_of_content(content(empty))

    assert "No deployment that was measured meets the bounds." in page
    assert "needs 25 GB of 24 GB" in page


def test_trials_without_blocks_have_no_picture_of_latencies(front: Front) -> None:
    members = measured_members(front, lambda _: None)

    assert (members, distributions_of(members), tails_of(members)) == ((), None, None)


def test_unmeasured_trials_have_no_part_in_the_environment(space: SearchSpace) -> None:
    record = record_of(0, failed(next(space.deployments())))

    assert not isinstance(record.outcome, Completed)
    assert table_of_environments([record]).rows == ()
