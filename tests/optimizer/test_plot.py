"""Pictures of fronts: what must be seen in them, and that the odd ones can be drawn at all."""

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from itertools import islice

import pytest
from matplotlib.text import Annotation
from PIL import Image
from search_fakes import infeasible, measured, record_of

from optimizer.errors import UsageError
from optimizer.front.front import Front, front_of
from optimizer.front.plot import figure_of_front, png_of_front
from optimizer.study.records import TrialRecord
from search_spaces.metrics import METRICS
from search_spaces.space import Objective, SearchSpace
from trials.measurement import Estimate
from trials.outcome import Completed

THREE = ("latency_p99_ms", "throughput_sps", "accuracy")
TWO = THREE[:2]


def objectives(*names: str) -> tuple[Objective, ...]:
    return tuple(Objective(metric=METRICS[one], direction=METRICS[one].direction) for one in names)


def records_of(space: SearchSpace, count: int) -> list[TrialRecord]:
    deployments = islice(space.deployments(), count)
    return [record_of(number, measured(one)) for number, one in enumerate(deployments)]


def drawn(records: Sequence[TrialRecord], names: Sequence[str] = TWO) -> Front:
    return front_of(records, objectives(*names), ())


def unbounded(record: TrialRecord) -> TrialRecord:
    """Take the upper limit of p99 away, as a short measurement does."""
    assert isinstance(record.outcome, Completed)
    speed = record.outcome.speed
    latency = Estimate(value=speed.latency_p99_s.value, low=speed.latency_p99_s.low, high=None)
    return replace(
        record, outcome=replace(record.outcome, speed=replace(speed, latency_p99_s=latency))
    )


def legend(front: Front) -> list[str]:
    shown = figure_of_front(front, "title").axes[0].get_legend()
    return [] if shown is None else [text.get_text() for text in shown.get_texts()]


def test_picture_is_a_png_of_a_size_for_print(space: SearchSpace) -> None:
    content = png_of_front(drawn(records_of(space, 80), THREE), "tiny")

    with Image.open(BytesIO(content)) as image:
        assert image.format == "PNG"
        assert image.size == (1350, 900)


def test_axes_say_quantity_unit_and_which_way_is_better(space: SearchSpace) -> None:
    axes = figure_of_front(drawn(records_of(space, 8)), "tiny").axes[0]

    assert axes.get_xlabel() == "p99 latency [ms], lower is better"
    assert axes.get_ylabel() == "throughput [samples/s], higher is better"
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_title(loc="left") == "tiny"


def test_score_has_a_linear_axis(space: SearchSpace) -> None:
    axes = figure_of_front(drawn(records_of(space, 8), ("accuracy", *TWO)), "tiny").axes[0]

    assert axes.get_xscale() == "linear"


def test_third_objective_is_the_colour(space: SearchSpace) -> None:
    _, colours = figure_of_front(drawn(records_of(space, 80), THREE), "tiny").axes

    assert colours.get_ylabel() == "top-1 accuracy, higher is better"


def test_fourth_objective_is_named_as_not_shown(space: SearchSpace) -> None:
    front = drawn(records_of(space, 8), (*THREE, "peak_memory_mb"))

    title = figure_of_front(front, "tiny").axes[0].get_title(loc="left")

    assert title == "tiny; not shown: peak memory [MB]"


def test_unknown_limit_is_an_arrow_that_the_legend_explains(space: SearchSpace) -> None:
    front = drawn([unbounded(record) for record in records_of(space, 80)])

    arrows = [
        child
        for child in figure_of_front(front, "tiny").axes[0].get_children()
        if isinstance(child, Annotation)
    ]

    assert len(arrows) == len(front.members)
    assert "no limit is known" in legend(front)


def test_known_limits_need_no_arrow(space: SearchSpace) -> None:
    assert "no limit is known" not in legend(drawn(records_of(space, 80)))


def test_members_knee_and_the_others_are_told_apart(space: SearchSpace) -> None:
    front = front_of(records_of(space, 80), objectives(*THREE), space.constraints)
    strict = replace(space.constraints[0], bound=0.9)
    bounded = front_of(records_of(space, 80), objectives(*THREE), [strict])

    assert legend(front)[-1] == f"knee: trial {front.knee.number if front.knee else None}"
    assert any(text.startswith("dominated") for text in legend(front))
    assert f"misses a bound ({len(bounded.missed)})" in legend(bounded)
    assert bounded.missed


@pytest.mark.parametrize("names", [TWO, THREE, ("accuracy", "peak_memory_mb", "latency_p99_ms")])
def test_lone_member_can_be_drawn(space: SearchSpace, names: Sequence[str]) -> None:
    front = drawn([unbounded(record) for record in records_of(space, 1)], names)

    assert png_of_front(front, "one").startswith(b"\x89PNG")


def test_front_without_any_measurement_says_so(space: SearchSpace) -> None:
    deployment = next(space.deployments())

    for records in ([], [record_of(0, infeasible(deployment))]):
        figure = figure_of_front(drawn(records, THREE), "empty")

        assert [text.get_text() for text in figure.axes[0].texts] == ["nothing was measured"]
        assert png_of_front(drawn(records, THREE), "empty")


def test_front_where_everything_misses_a_bound_can_be_drawn(space: SearchSpace) -> None:
    impossible = replace(space.constraints[0], bound=1.0)
    front = front_of(records_of(space, 8), objectives(*THREE), [impossible])

    assert not front.members
    assert legend(front) == ["misses a bound (8)"]


def test_one_objective_is_no_picture_and_the_mend_is_named(space: SearchSpace) -> None:
    with pytest.raises(UsageError, match="has latency_p99_ms alone") as caught:
        png_of_front(drawn(records_of(space, 3), TWO[:1]), "one")

    assert "--csv" in caught.value.hint


def test_one_colour_alone_makes_no_scale_beyond_what_can_be(space: SearchSpace) -> None:
    """Around an accuracy of 0.975 a drawn scale would reach 1.07."""
    front = drawn(records_of(space, 1), THREE)
    [only] = front.members
    assert isinstance(only.outcome, Completed)

    _, scale = figure_of_front(front, "title").axes

    assert list(scale.get_yticks()) == [only.outcome.metric("accuracy").value]
    assert list(scale.get_yticks(minor=True)) == []
