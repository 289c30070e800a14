"""Interactive figures of fronts: what is in them, and that any page can show them."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_fakes import completed, infeasible, measured, record_of

from optimizer.front.figures import figures_of_front, plane_of_front, space_of_front
from optimizer.front.front import Front, front_of
from optimizer.study.records import TrialRecord
from search_spaces.deployment import Deployment, Precision
from search_spaces.metrics import METRICS
from search_spaces.space import Constraint, Objective, SearchSpace
from trials.measurement import Estimate
from trials.outcome import Completed

THREE = ("latency_p99_ms", "throughput_sps", "accuracy")
TWO = THREE[:2]


def objectives(*names: str) -> tuple[Objective, ...]:
    return tuple(Objective(metric=METRICS[one], direction=METRICS[one].direction) for one in names)


def records_of(space: SearchSpace, count: int = 80) -> list[TrialRecord]:
    deployments = islice(space.deployments(), count)
    return [record_of(number, measured(one)) for number, one in enumerate(deployments)]


def front_over(records: Sequence[TrialRecord], names: Sequence[str] = THREE) -> Front:
    return front_of(records, objectives(*names), ())


def unbounded(record: TrialRecord) -> TrialRecord:
    """Take the upper limit of p99 away, as a short measurement does."""
    assert isinstance(record.outcome, Completed)
    speed = record.outcome.speed
    latency = Estimate(value=speed.latency_p99_s.value, low=speed.latency_p99_s.low, high=None)
    return replace(
        record, outcome=replace(record.outcome, speed=replace(speed, latency_p99_s=latency))
    )


def traces(figure: Any) -> dict[str, Any]:
    """Return a figure's traces by the first word of their names, as a page reads them."""
    data = json.loads(figure.to_json())["data"]
    return {str(one.get("name", one["mode"])).split(" (")[0].split(":")[0]: one for one in data}


def test_front_of_three_objectives_has_a_plane_and_a_space(space: SearchSpace) -> None:
    figures = figures_of_front(front_over(records_of(space)), "tiny")

    assert list(figures) == ["front-2d", "front-3d"]
    assert figures["front-2d"].layout.xaxis.type == "log"
    assert figures["front-2d"].layout.yaxis.type == "log"
    assert figures["front-3d"].layout.scene.xaxis.type == "log"
    assert figures["front-3d"].layout.scene.zaxis.type == "linear"


@pytest.mark.parametrize(("names", "found"), [(THREE[:1], []), (TWO, ["front-2d"])])
def test_fewer_objectives_have_fewer_figures(
    space: SearchSpace, names: Sequence[str], found: list[str]
) -> None:
    assert list(figures_of_front(front_over(records_of(space), names), "tiny")) == found


def test_error_bars_are_the_intervals(space: SearchSpace) -> None:
    front = front_over(records_of(space))

    shown = traces(plane_of_front(front, "tiny"))["front"]

    for index, record in enumerate(front.members):
        assert isinstance(record.outcome, Completed)
        estimate = record.outcome.metric("latency_p99_ms")
        assert estimate.low is not None
        assert estimate.high is not None
        assert shown["x"][index] == pytest.approx(estimate.value, rel=1e-4)
        assert shown["error_x"]["array"][index] == pytest.approx(
            estimate.high - estimate.value, rel=1e-4
        )
        assert shown["error_x"]["arrayminus"][index] == pytest.approx(
            estimate.value - estimate.low, rel=1e-4
        )


def test_limit_that_is_not_known_is_an_arrow_and_an_infinity_and_no_bar(
    space: SearchSpace,
) -> None:
    front = front_over([unbounded(record) for record in records_of(space, 1)])

    shown = traces(plane_of_front(front, "tiny"))

    assert shown["front"]["error_x"]["array"] == [0.0]
    assert "∞]" in shown["front"]["text"][0]
    assert len(shown["no limit is known"]["x"]) == 1


def test_text_under_the_pointer_names_trial_deployment_and_every_objective(
    space: SearchSpace,
) -> None:
    front = front_over(records_of(space))
    assert front.knee is not None

    texts = traces(space_of_front(front, "tiny"))["front"]["text"]

    knee = texts[front.members.index(front.knee)]
    assert knee.startswith(f"trial {front.knee.number}, the knee<br>")
    assert all(METRICS[name].label in knee for name in THREE)


def test_tie_has_its_intervals_and_says_with_whom(space: SearchSpace) -> None:
    one, other = islice(space.deployments(), 2)
    best = completed(one, latency_ms=1.0, sps=1000.0, accuracy=0.9)
    close = completed(other, latency_ms=1.001, sps=999.0, accuracy=0.9)

    front = front_over([record_of(0, best), record_of(1, close)], TWO)
    shown = traces(plane_of_front(front, "tiny"))

    assert [record.number for record in front.ties] == [1]
    assert shown["tied with it"]["text"][0].startswith("trial 1, ≈0<br>")
    assert shown["tied with it"]["error_x"]["array"][0] > 0


def test_what_misses_a_bound_is_hollow_and_what_cannot_run_is_not_drawn(
    space: SearchSpace,
) -> None:
    records = records_of(space)
    ghost = record_of(99, infeasible(next(space.deployments())))
    bound = Constraint(metric=METRICS["accuracy"], upper=False, bound=0.85)

    front = front_of([*records, ghost], objectives(*TWO), (bound,))
    shown = traces(plane_of_front(front, "tiny"))

    assert front.missed
    assert shown["misses a bound"]["marker"]["symbol"] == "square-open"
    drawn = [number for trace in shown.values() for number in trace.get("text", [])]
    assert "99" not in drawn


def test_thousands_of_points_are_drawn_by_the_graphics_processor(space: SearchSpace) -> None:
    once = records_of(space)
    records = [
        replace(record, uid=f"{copy}-{record.uid}") for copy in range(20) for record in once
    ]

    shown = traces(plane_of_front(front_over(records, TWO), "tiny"))

    assert shown["dominated"]["type"] == "scattergl"
    assert len(shown["dominated"]["x"]) > 1000


def test_other_objectives_than_the_first_can_be_chosen(space: SearchSpace) -> None:
    front = front_over(records_of(space))

    figure = plane_of_front(front, "tiny", objectives=(front.objectives[2], front.objectives[0]))

    assert figure.layout.xaxis.title.text == "top-1 accuracy, higher is better"
    assert figure.layout.title.text == "tiny; not shown: throughput [samples/s]"


@pytest.mark.parametrize("names", [TWO, TWO[::-1]])
def test_line_of_two_objectives_never_claims_what_no_member_reaches(
    space: SearchSpace, names: Sequence[str]
) -> None:
    """Each corner has the worse x and the worse y of the two members that it joins."""
    front = front_over(records_of(space), TWO)
    chosen = objectives(*names)

    line = traces(plane_of_front(front, "tiny", objectives=chosen))["lines"]

    points = list(zip(line["x"], line["y"], strict=True))
    across = line["line"]["shape"] == "hv"
    for before, after in pairwise(points):
        corner = (after[0], before[1]) if across else (before[0], after[1])
        for axis, objective in enumerate(chosen):
            assert not objective.better(corner[axis], before[axis])
            assert not objective.better(corner[axis], after[axis])


def test_too_few_objectives_are_refused(space: SearchSpace) -> None:
    front = front_over(records_of(space), TWO)

    with pytest.raises(ValueError, match="a plane has two axes, not 1"):
        plane_of_front(front, "tiny", objectives=front.objectives[:1])
    with pytest.raises(ValueError, match="a space has three axes, not 2"):
        space_of_front(front, "tiny")


def test_front_without_members_is_an_empty_figure(space: SearchSpace) -> None:
    ghost = record_of(0, infeasible(next(space.deployments())))

    figures = figures_of_front(front_over([ghost]), "tiny")

    assert [len(figure.data) for figure in figures.values()] == [0, 0]


def test_names_of_users_are_text_and_no_markup() -> None:
    deployment = Deployment(
        variant="<b>bold</b>",
        precision=Precision.FP32,
        batch_size=1,
        concurrency=1,
        options=(("threads", 1),),
    )
    front = front_over([record_of(0, measured(deployment))])

    figure = plane_of_front(front, "<i>title</i>")

    assert "<b>" not in traces(figure)["front"]["text"][0]
    assert "<i>" not in figure.layout.title.text


@settings(max_examples=15, deadline=None)  # the first figure imports plotly
@given(order=st.permutations(range(8)))
def test_figures_do_not_depend_on_the_order_of_trials(order: list[int]) -> None:
    deployments = [
        Deployment(
            variant=variant,
            precision=Precision.FP32,
            batch_size=2**exponent,
            concurrency=1,
            options=(("threads", 1),),
        )
        for variant in ("small", "large")
        for exponent in range(4)
    ]
    records = [record_of(number, measured(one)) for number, one in enumerate(deployments)]
    shuffled = [records[index] for index in order]

    one, other = (figures_of_front(front_over(each), "tiny") for each in (records, shuffled))

    assert {name: each.to_json() for name, each in one.items()} == {
        name: each.to_json() for name, each in other.items()
    }
