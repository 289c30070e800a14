"""How far a deployment can be loaded: promises, the choice of rates, what is kept and shown."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browsing import command
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from search_fakes import completed, record_of

from optimizer.errors import UsageError, WorkspaceError
from optimizer.front.front import front_of
from optimizer.report.album import saturations_of
from optimizer.saturation.figure import figure_of_saturation, png_of_saturation
from optimizer.saturation.result import (
    OpenPoint,
    Saturation,
    Standing,
    blocks_of_point,
    folder_of,
    limits_of,
    load_saturation,
    save_saturation,
)
from optimizer.saturation.slo import slo_from_texts
from optimizer.saturation.sweep import Bench, SweepOrder, next_rate, sweep
from optimizer.saturation.words import lines_of
from optimizer.workspace import Workspace, save_blocks
from search_spaces.deployment import Deployment, OpenLoad, Precision
from search_spaces.metrics import METRICS
from search_spaces.space import Constraint, SearchSpace
from trials.errors import LateError, MemoryLimitError, SaturatedError
from trials.measurement import Block, Quiet
from trials.measuring.load import Driven

POINT = Deployment(variant="small", precision=Precision.FP32, batch_size=1, concurrency=2)
P99 = Constraint(metric=METRICS["latency_p99_ms"], upper=True, bound=10.0)
CAPACITY = 1_000.0  # samples/s of one worker; two get through 1.8 times as much, more no more


def point(rate: float, standing: Standing = Standing.MEETS) -> OpenPoint:
    return OpenPoint(
        rate_rps=rate, standing=standing, speed=None, queueing=None, flags=(), reason=""
    )


def engine(deployment: Deployment) -> Driven:
    """Answer as an engine does whose latency goes as 1 / (capacity - rate)."""
    load = deployment.load
    reached = CAPACITY * min(deployment.concurrency, 1.8)
    if load is not None and load.rate_rps >= reached:
        raise SaturatedError("the queue grows without limit")
    left = reached - (0 if load is None else load.rate_rps)
    outcome = completed(deployment, latency_ms=1_000 / left, sps=reached, accuracy=1)
    block = Block(
        start_s=0, window_s=1, latencies_s=np.full(round(reached), 1 / reached), batch_size=1
    )
    return Driven(
        blocks=(block,) * 8,
        cold_call_s=0.1,
        warmup_s=0.1,
        speed=outcome.speed,
        flags=(),
        quiet=Quiet(contended_blocks=0, repeated_blocks=0, cpu_s_per_request=None),
    )


def swept(measure: object = engine, *, deployment: Deployment = POINT) -> Saturation:
    order = SweepOrder(study="s", trial=3, deployment=deployment, slo=(P99,), time_s=60)
    bench = Bench(
        measure=measure,  # type: ignore[arg-type] # a function of the same form
        keep=lambda _, __: None,
        on_step=lambda _: None,
    )
    return sweep(order, bench, made_at="2026-01-02T03:04:05+00:00", environment=())


def test_promise_is_the_bounds_of_the_space_unless_told(space: SearchSpace) -> None:
    bounded = replace(space, constraints=(*space.constraints, P99))

    assert slo_from_texts((), bounded) == (P99,)
    assert [str(one) for one in slo_from_texts(["latency_p50_ms <= 3"], bounded)] == [
        "latency_p50_ms <= 3"
    ]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ((), "nothing says how late is too late"),
        (["latency_p99_ms <= x"], "--slo: 'latency_p99_ms <= x' is no bound"),
        (["latency_p99_ms <= 1", "latency_p99_ms <= 2"], "bounds latency_p99_ms a second time"),
        (["latency_p50_ms <= 9", "latency_p99_ms <= 5"], "contradicts latency_p99_ms <= 5"),
        (["accuracy >= 0.5"], "accuracy does not depend on how fast requests come"),
        (["latency_p99_ms >= 5"], "forbids the good side"),
    ],
)
def test_promise_that_cannot_be_meant_is_refused(
    space: SearchSpace, texts: Sequence[str], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        slo_from_texts(texts, space)


@given(limit=st.floats(15, 1_500), capacity=st.just(1_000.0))
def test_limit_is_known_to_five_percent_in_a_few_rates(limit: float, capacity: float) -> None:
    tried: list[OpenPoint] = []

    while (rate := next_rate(tried, capacity_sps=capacity)) is not None:
        tried.append(point(rate, Standing.MEETS if rate <= limit else Standing.MISSES))

    kept, lost = limits_of(tuple(sorted(tried, key=lambda one: one.rate_rps)))
    assert kept is not None
    assert lost is not None
    assert kept <= limit < lost
    assert lost / kept <= 1.06  # rates have three digits
    assert len(tried) <= 14


def test_search_ends_where_nothing_is_kept() -> None:
    tried: list[OpenPoint] = []

    while (rate := next_rate(tried, capacity_sps=1_000)) is not None:
        tried.append(point(rate, Standing.SATURATED))

    assert len(tried) < 10


def test_rate_above_one_that_is_not_kept_does_not_count() -> None:
    points = (point(100), point(200, Standing.UNDECIDED), point(300))

    assert limits_of(points) == (100, 200)


def test_sweep_finds_the_rate_that_keeps_the_promise() -> None:
    """A latency of 1,000 ms / (1,800 - rate) with 1 % of width is 10 ms at 1,699 requests/s."""
    found = swept()

    assert found.kept_rps == pytest.approx(1_680, rel=0.05)
    assert found.lost_rps is not None
    assert found.kept_rps is not None
    assert found.kept_rps <= 1_699 < found.lost_rps


def test_sweep_stops_when_more_in_flight_bring_no_more() -> None:
    found = swept()

    assert [one.concurrency for one in found.closed] == [1, 2, 4, 8]
    assert found.scalability is not None


def test_levels_that_do_not_fit_end_the_closed_loops() -> None:
    def measure(deployment: Deployment) -> Driven:
        if deployment.concurrency > 4:
            raise MemoryLimitError("it does not fit")
        return engine(deployment)

    assert [one.concurrency for one in swept(measure).closed] == [1, 2, 4]


def test_late_generator_leaves_a_point_without_a_number_and_the_sweep_goes_on() -> None:
    def measure(deployment: Deployment) -> Driven:
        if deployment.load is not None and deployment.load.rate_rps > 1_400:
            raise LateError("requests were sent late")
        return engine(deployment)

    found = swept(measure)

    assert Standing.NO_NUMBER in {one.standing for one in found.open}
    assert found.kept_rps is not None
    assert found.kept_rps <= 1_400


def test_open_loops_keep_the_deployments_own_queue_delay() -> None:
    delays = []

    def measure(deployment: Deployment) -> Driven:
        if deployment.load is not None:
            delays.append(deployment.load.max_queue_delay_us)
        return engine(deployment)

    swept(measure, deployment=replace(POINT, load=OpenLoad(rate_rps=5, max_queue_delay_us=70)))

    assert set(delays) == {70}


def test_result_is_read_back_as_it_was(tmp_path: Path) -> None:
    workspace, found = Workspace(root=tmp_path), swept()

    save_saturation(found, workspace, "uid")

    assert load_saturation(workspace, "uid") == found
    assert load_saturation(workspace, "another") is None


def test_blocks_of_an_earlier_sweep_go_with_its_result(tmp_path: Path) -> None:
    workspace, found = Workspace(root=tmp_path), swept()
    for made_at in ("2025-01-01T00:00:00+00:00", found.made_at):
        path = blocks_of_point(workspace, "uid", made_at, point="closed-1")
        save_blocks(engine(POINT).blocks, path)

    save_saturation(found, workspace, "uid")

    kept = [path.name for path in folder_of(workspace, "uid").iterdir() if path.is_dir()]
    assert kept == ["2026-01-02T030405+0000"]


def test_damaged_result_is_explained(tmp_path: Path) -> None:
    workspace = Workspace(root=tmp_path)
    save_saturation(swept(), workspace, "uid").write_text("{}", encoding="utf-8")

    with pytest.raises(WorkspaceError, match="cannot be read") as caught:
        load_saturation(workspace, "uid")

    assert "trifront saturate" in caught.value.hint


def test_result_of_another_format_is_refused_and_not_half_read(tmp_path: Path) -> None:
    workspace = Workspace(root=tmp_path)
    path = save_saturation(swept(), workspace, "uid")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"format": 1', '"format": 2'), encoding="utf-8")

    with pytest.raises(WorkspaceError, match="cannot be read as this version writes it"):
        load_saturation(workspace, "uid")


def test_words_name_the_rate_the_promise_and_the_knee() -> None:
    text = "\n".join(lines_of(swept()))

    assert "latency_p99_ms <= 10 is kept up to 1,6" in text
    assert "requests/s it is no longer kept for certain" in text
    assert "knee at" in text


def test_rate_that_could_not_be_measured_is_no_broken_promise() -> None:
    points = (point(100), replace(point(200, Standing.NO_NUMBER), reason="sent too late"))
    found = replace(swept(), open=points, kept_rps=100.0, lost_rps=200.0)

    text = "\n".join(lines_of(found))

    assert "at 200 requests/s nothing could be measured: sent too late" in text
    assert "no longer kept" not in text


def test_ceiling_of_the_time_is_none_of_the_deployment() -> None:
    found = replace(swept(), open=(point(100),), kept_rps=100.0, lost_rps=None)

    assert "no higher rate was tried" in "\n".join(lines_of(found))


def texts_of(figure: Figure) -> Iterator[str]:
    for axes in figure.axes:
        yield from (axes.get_xlabel(), axes.get_ylabel())
        yield from (text.get_text() for text in axes.get_legend().get_texts())  # type: ignore[union-attr] # each has one


def test_hockey_stick_has_logarithmic_axes_and_says_what_is_kept() -> None:
    figure = figure_of_saturation(swept())

    assert {axes.get_yscale() for axes in figure.axes} == {"log"}
    assert figure.axes[0].get_xscale() == "log"
    texts = set(texts_of(figure))
    assert {"p50 latency", "p99 latency", "measured", "fitted law"} <= texts
    assert any(text.startswith("kept up to 1,6") for text in texts)


def test_report_shows_the_members_whose_saturation_is_known(space: SearchSpace) -> None:
    deployments = list(space.deployments())[:2]
    outcomes = [
        completed(one, latency_ms=1 + at, sps=100 + at, accuracy=0.9)
        for at, one in enumerate(deployments)
    ]
    records = [record_of(at, one) for at, one in enumerate(outcomes)]
    front = front_of(records, space.objectives, space.constraints)
    known = {records[0].uid: swept()}

    (picture,) = saturations_of(front, known.get)

    assert picture.svg.startswith("<?xml")
    assert picture.text.startswith("Trial 3: latency_p99_ms <= 10 is kept up to 1,6")


def test_picture_is_drawn_where_every_rate_is_saturated() -> None:
    found = replace(
        swept(),
        open=(point(10, Standing.SATURATED),),
        kept_rps=None,
        lost_rps=10,
        scalability=None,
    )

    assert png_of_saturation(found).startswith(b"\x89PNG")


@pytest.fixture
def place(fake_workspace: Path, tmp_path: Path) -> str:
    """A copy of the searched workspace, because saturating writes."""
    shutil.copytree(fake_workspace, tmp_path / "trifront")
    return str(tmp_path / "trifront")


def run(*arguments: str) -> tuple[int, str, str]:
    ran = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout, ran.stderr


def test_user_saturates_a_trial_and_is_shown_it_again(place: str, tmp_path: Path) -> None:
    wanted = ("--slo", "latency_p99_ms <= 150", "--json")

    code, out, err = run(
        "saturate", "knee", "-w", place, *wanted, "--plot", str(tmp_path / "s.png")
    )

    assert code == 0, err
    assert json.loads(out)["kept_rps"] > 0
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    _, shown, _ = run("show", "knee", "-w", place)
    assert "latency_p99_ms <= 150 is kept up to" in shown


def test_promise_that_no_rate_keeps_ends_with_code_3(place: str) -> None:
    code, out, _ = run("saturate", "knee", "-w", place, "--slo", "latency_p99_ms <= 0.001")

    assert code == 3
    assert "is kept at no rate that was tried" in out
