"""The load axes and the arrivals: what a space file may ask for, and what it may not."""

from collections.abc import Callable
from pathlib import Path

import pytest

from search_spaces.arrivals import (
    ConstantArrivals,
    DayArrivals,
    GammaArrivals,
    PoissonArrivals,
    StepArrivals,
    TraceArrivals,
)
from search_spaces.deployment import OpenLoad
from search_spaces.meaning import meaning_of
from search_spaces.space import SearchSpace

FAKE = """\
version: 1
name: tiny
backend: fake
variants: [{name: small, fake: {work_ms: 0.3, accuracy: 0.91, size_mb: 40}}]
"""
OPEN = "axes: {load: [open], rate_rps: [100, 50.5], max_queue_delay_us: [500, 0]}\n"
TRACE = "time_s\n" + "\n".join(str(at / 10) for at in range(20))

Read = Callable[[str], SearchSpace]
Complaint = Callable[[str], str]


def test_open_load_is_part_of_the_deployment(read: Read, fake: str) -> None:
    space = read(fake + "axes: {variant: [small], load: [open], rate_rps: [100, 50.5]}\n")

    loads = [deployment.load for deployment in space.deployments()]
    assert loads == [OpenLoad(rate_rps=50.5), OpenLoad(rate_rps=100)]
    assert space.plan.arrivals == PoissonArrivals()


def test_closed_load_is_what_a_space_without_one_has(read: Read, fake: str) -> None:
    named, unnamed = read(fake + "axes: {load: [closed]}\n"), read(fake)

    assert named.axes == unnamed.axes
    assert next(unnamed.deployments()).load is None


def test_meaning_of_a_closed_space_is_what_it_was_before_there_were_open_ones(
    read: Read, fake: str
) -> None:
    digests = {"variant:small": "a" * 64, "variant:wide": "b" * 64}

    meaning = meaning_of(read(fake), digests=digests)

    measure = meaning["measure"]
    assert isinstance(measure, dict)
    assert not {"arrivals", "preferred_batch_sizes"} & measure.keys()


def test_single_requests_are_not_tried_once_for_each_delay(read: Read, fake: str) -> None:
    text = "axes: {variant: [small], load: [open], rate_rps: [100], batch_size: [1, 2], "

    space = read(fake + text + "max_queue_delay_us: [0, 500]}\n")

    tried = [
        (one.batch_size, one.load.max_queue_delay_us) for one in space.deployments() if one.load
    ]
    assert tried == [(1, 0), (2, 0), (2, 500)]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("{kind: poisson, seed: 3}", PoissonArrivals(seed=3)),
        ("{kind: gamma, burstiness: 2.5}", GammaArrivals(burstiness=2.5)),
        ("{kind: constant}", ConstantArrivals()),
        ("{kind: steps, steps: [[1, 1], [0.5, 4]]}", StepArrivals(steps=((1, 1), (0.5, 4)))),
        ("{kind: day, period_s: 2}", DayArrivals(period_s=2, swing=0.8)),
    ],
)
def test_arrivals_are_read(read: Read, fake: str, written: str, meant: object) -> None:
    space = read(f"{fake}{OPEN}measure: {{arrivals: {written}}}\n")

    assert space.plan.arrivals == meant


def test_trace_stands_for_itself_by_its_content(read: Read, fake: str, folder: Path) -> None:
    digests = {"variant:small": "a" * 64, "variant:wide": "b" * 64}
    spaces = []
    for name in ("one.csv", "other.csv"):
        (folder / name).write_text(TRACE, encoding="utf-8")
        text = f"{fake}{OPEN}measure: {{arrivals: {{kind: trace, path: {name}}}}}\n"
        spaces.append(read(text))

    one, other = (meaning_of(space, digests=digests) for space in spaces)

    assert isinstance(spaces[0].plan.arrivals, TraceArrivals)
    assert one == other


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ("{load: [open], rate_rps: [0]}", "axes.rate_rps[0]: 0 is too small; it must be > 0"),
        ("{rate_rps: [5]}", "axes.rate_rps: a closed loop sends the next request when one is"),
        ("{max_queue_delay_us: [5]}", "axes.max_queue_delay_us: a closed loop sends the next"),
        ("{load: [open]}", "axes.rate_rps: is missing, and load: [open] needs it; write the"),
        ("{load: [open, closed], rate_rps: [5]}", "axes.load: an open and a closed loop ask"),
        ("{load: [opn]}", "axes.load[0]: 'opn' is not known; did you mean 'open'?"),
        ("{rate_rp: [5]}", "axes.rate_rp: is an unknown axis; did you mean 'rate_rps'?"),
        ("{load: [open], rate_rps: [0.5]}", "axes.rate_rps: at 0.5 requests/s only 5 come"),
    ],
)
def test_load_that_cannot_be_meant_is_refused(
    complaint: Complaint, fake: str, axes: str, said: str
) -> None:
    assert complaint(f"{fake}axes: {axes}\n").startswith(said)


@pytest.mark.parametrize(
    ("measure", "said"),
    [
        ("arrivals: {kind: gam}", "arrivals: kind 'gam' is not known; did you mean 'gamma'?"),
        ("arrivals: {seed: 1}", "arrivals: has no kind; write one of constant, day, gamma"),
        ("arrivals: 5", "arrivals: 5 is not a mapping; write `key: value` lines"),
        ("arrivals: {kind: gamma}", "arrivals.burstiness: is missing; add it"),
        ("arrivals: {kind: constant, seed: 1}", "arrivals.seed: is an unknown key; use one of"),
        ("arrivals: {kind: day, period_s: 6}", "arrivals: repeats after 6 s, and max_s = 10 s"),
        (
            "arrivals: {kind: steps, steps: [[1, 1], [0, 2]]}",
            "arrivals.steps[1]: [0, 2] is no step; write [seconds, relative rate]",
        ),
        (
            "arrivals: {kind: steps, steps: [[1, 0], [1, 0]]}",
            "arrivals.steps: has no step with a rate above 0; give one",
        ),
        ("preferred_batch_sizes: [8]", "preferred_batch_sizes: 8 is larger than any batch"),
    ],
)
def test_arrivals_that_cannot_be_meant_are_refused(
    complaint: Complaint, fake: str, measure: str, said: str
) -> None:
    text = f"{fake}axes: {{load: [open], rate_rps: [100]}}\nmeasure: {{{measure}}}\n"

    assert complaint(text).startswith(f"measure.{said}")


@pytest.mark.parametrize("measure", ["arrivals: {kind: constant}", "preferred_batch_sizes: [1]"])
def test_what_an_open_load_has_is_refused_beside_a_closed_one(
    complaint: Complaint, fake: str, measure: str
) -> None:
    said = complaint(f"{fake}measure: {{{measure}}}\n")

    assert "is for load: [open] alone" in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "'t.csv' holds 0 arrivals; a trace needs at least 10, and not all at one time"),
        ("t\n0\n1\n0.5\n", "'t.csv' line 4: 0.5 s comes after 1 s; sort the arrival times"),
        ("0\nsoon\n", "'t.csv' line 2: 'soon' is no time; write seconds as 0.25"),
        ("1\n" * 20, "'t.csv' holds 20 arrivals; a trace needs at least 10, and not all at one"),
        ("0\nnan\n", "'t.csv' line 2: 'nan' is no time; write seconds as 0.25"),
    ],
)
def test_trace_that_cannot_be_replayed_is_refused(
    complaint: Complaint, folder: Path, content: str, said: str
) -> None:
    (folder / "t.csv").write_text(content, encoding="utf-8")

    found = complaint(f"{FAKE}{OPEN}measure: {{arrivals: {{kind: trace, path: t.csv}}}}\n")

    assert found.startswith(f"measure.arrivals.path: {said}")
