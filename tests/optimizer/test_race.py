"""Races: many runs in several processes, their numbers, words and picture."""

import io
import json
import math
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image
from replay_fakes import CROWDED, TABLE
from rich.console import Console

from optimizer.replaying.contestants import contestants_named
from optimizer.replaying.figure import png_of_race
from optimizer.replaying.race import Entrant, RaceOrder, Runs, race
from optimizer.replaying.replay import Limits, Replayed
from optimizer.replaying.standing import (
    Standing,
    _ratios,
    best_builtin,
    ratio_of,
    spread_of,
    standings_of,
)
from optimizer.replaying.table import bounded
from optimizer.replaying.truth import Truth
from optimizer.replaying.words import (
    document_of_race,
    duration,
    legend,
    lines_of_table,
    summary_of_table,
    table_of_bests,
    table_of_ends,
    table_of_prices,
    table_of_trials,
)

ORDER = RaceOrder(
    entrants=(Entrant(name="random"), Entrant(name="tpe", trials=12), Entrant(name="hill")),
    seeds=(0, 1, 2),
    limits=Limits(trials=40),
)


@pytest.fixture(scope="module")
def raced() -> tuple[Runs, ...]:
    return race(CROWDED, ORDER, lambda _: None)


@pytest.fixture(scope="module")
def standings(raced: tuple[Runs, ...]) -> tuple[Standing, ...]:
    return standings_of(CROWDED, raced)


def run_of(shares: list[float], *, has_ended: bool = False) -> Replayed:
    count = len(shares)
    return Replayed(
        rows=np.arange(count, dtype=np.int64),
        prices_s=np.arange(1.0, count + 1) * 10,
        shares=np.array(shares),
        ask_s=np.full(count, 0.002),
        has_ended=has_ended,
    )


def test_race_does_not_depend_on_the_number_of_processes(raced: tuple[Runs, ...]) -> None:
    done: list[str] = []

    again = race(CROWDED, replace(ORDER, jobs=2), done.append)

    assert sorted(done) == sorted(one.name for one in ORDER.entrants for _ in ORDER.seeds)
    for one, other in zip(raced, again, strict=True):
        assert one.name == other.name
        for run, same in zip(one.runs, other.runs, strict=True):
            assert run.rows.tolist() == same.rows.tolist()
            assert run.prices_s.tolist() == same.prices_s.tolist()
            assert run.shares.tolist() == same.shares.tolist()


def test_entrant_has_its_own_limit_or_the_races(raced: tuple[Runs, ...]) -> None:
    assert [one.runs[0].rows.size for one in raced] == [40, 12, 40]


def test_gaussian_process_is_stopped_where_it_gets_slow() -> None:
    if find_spec("torch") is None:
        pytest.skip("the gp contestant needs torch")

    (found,) = contestants_named(["gp"])

    assert found.most_trials == 100


def test_quartiles_are_values_that_a_seed_had() -> None:
    spread = spread_of([1.0, 2.0, 3.0, math.inf, math.inf])

    assert (spread.low, spread.median, spread.high) == (2.0, 3.0, math.inf)
    assert (spread.reached, spread.seeds) == (3, 5)


def test_price_of_a_share_is_that_of_the_trial_that_reached_it() -> None:
    runs = (run_of([0.5, 0.93, 0.99]), run_of([0.2, 0.3, 0.91]))

    found = standings_of(TABLE, [Runs(contestant=contestants_named(["random"])[0], runs=runs)])[0]

    assert [one.median for one in found.prices_s] == [20.0, 30.0, 30.0]
    assert [one.reached for one in found.prices_s] == [2, 1, 1]
    assert [one.median for one in found.trials] == [2.0, 3.0, 3.0]


def test_run_that_was_stopped_has_no_share_later_and_one_that_ended_keeps_it() -> None:
    contestant = contestants_named(["hill"])[0]
    stopped, ended = (
        standings_of(
            TABLE, [Runs(contestant=contestant, runs=(run_of([0.9] * 20, has_ended=over),))]
        )[0]
        for over in (False, True)
    )

    assert stopped.shares[0].reached == 0
    assert [one.median for one in ended.shares] == [0.9, 0.9, 0.9]


def test_best_points_are_held_against_the_true_best(standings: tuple[Standing, ...]) -> None:
    for standing in standings:
        for best in standing.bests:
            assert best.ratio.median >= 1
            assert best.prices_s.reached == 3 or best.ratio.high > 1.02

    grid = race(CROWDED, replace(ORDER, entrants=(Entrant(name="grid", trials=810),)), print)
    (whole,) = standings_of(CROWDED, grid)
    assert [one.ratio.median for one in whole.bests] == [1.0, 1.0, 1.0]
    assert whole.members.median == 1.0
    assert whole.tried.median == len(CROWDED)


def test_scores_below_nought_are_no_better_the_lower_they_are() -> None:
    """A ratio of two negative scores would say so."""
    at = TABLE.metrics.names.index("accuracy")
    values = TABLE.metrics.values.copy()
    values[:, at] -= 2
    table = replace(TABLE, metrics=replace(TABLE.metrics, values=values))
    accuracy = next(one for one in TABLE.space.objectives if one.metric.name == "accuracy")

    ratios = _ratios(table, Truth(table), accuracy)

    order = np.argsort(-values[:, at])
    assert ratios[order[0]] == 1
    assert (np.diff(ratios[order]) >= 0).all()
    assert ratios.max() == pytest.approx(2)


def test_best_point_under_bounds_meets_them() -> None:
    cut = float(np.nanquantile(CROWDED.metrics.column("latency_p99_ms"), 0.3))
    table = bounded(CROWDED, [f"latency_p99_ms <= {cut}"])
    order = replace(ORDER, entrants=(Entrant(name="grid", trials=810),), seeds=(0,))

    (free,) = standings_of(table, race(CROWDED, order, lambda _: None))
    (bound,) = standings_of(table, race(table, order, lambda _: None))

    assert [one.ratio.median for one in bound.bests] == [1.0, 1.0, 1.0]
    assert [one.prices_s.median for one in bound.bests] == [
        one.prices_s.median for one in free.bests
    ]


def test_ratio_is_of_medians_that_were_reached() -> None:
    assert ratio_of(spread_of([10.0]), spread_of([40.0])) == 0.25
    assert ratio_of(spread_of([10.0]), spread_of([math.inf])) is None
    assert ratio_of(spread_of([math.inf]), spread_of([10.0])) is None


def test_best_builtin_is_the_cheapest_that_got_there(standings: tuple[Standing, ...]) -> None:
    random, tpe, hill = standings
    cheap = replace(random, prices_s=(spread_of([5.0]),) * 3)
    cheaper = replace(hill, prices_s=(spread_of([1.0]),) * 3)

    assert best_builtin([cheap, tpe, cheaper], 2) is cheap
    assert best_builtin([cheaper], 2) is None


def printed(table: object) -> str:
    console = Console(width=250, file=io.StringIO())
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_tables_name_every_entrant_and_what_was_not_reached(
    standings: tuple[Standing, ...],
) -> None:
    for make in (table_of_prices, table_of_trials, table_of_ends, table_of_bests):
        text = printed(make(standings))
        assert all(f"\n{one.name} " in text for one in standings)
        assert "inf" not in text
        assert "nan" not in text
    assert "– (1)" in printed(
        table_of_prices(
            [replace(standings[0], prices_s=(spread_of([1, math.inf, math.inf]),) * 3)]
        )
    )
    assert "latency_p99_ms ×  within 2 % [s]" in printed(table_of_bests(standings))


def test_legend_names_the_reference(standings: tuple[Standing, ...]) -> None:
    cheap = replace(standings[0], prices_s=(spread_of([5.0]), *standings[0].prices_s[1:]))

    text = "\n".join(legend([cheap, *standings[1:]]))

    assert "3 seeds" in text
    assert "the best of those that Optuna brings: random for 90 %" in text


def test_table_is_summed_up_in_a_line() -> None:
    assert summary_of_table(TABLE).startswith("24 deployments (24 completed) of 4 engines, ")
    assert next(lines_of_table(TABLE)).startswith("'generated-0': 24 deployments, 4 engines")


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.5, "0.5 s"), (119, "119 s"), (150, "2.5 min"), (9000, "2.5 h")]
)
def test_durations_are_written_as_people_do(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_document_is_json_without_infinities(raced: tuple[Runs, ...]) -> None:
    document = document_of_race(CROWDED, raced)

    text = json.dumps(document, allow_nan=False)

    runs = json.loads(text)["contestants"][1]["runs"]
    assert len(runs) == 3
    assert len(runs[0]["rows"]) == 12


def test_race_is_drawn(raced: tuple[Runs, ...]) -> None:
    picture = Image.open(io.BytesIO(png_of_race(raced, "crowded")))

    assert picture.format == "PNG"
    assert picture.width > 1000


def test_race_without_a_known_share_is_drawn_too() -> None:
    contestant = contestants_named(["random"])[0]
    nothing = Runs(contestant=contestant, runs=(run_of([0.0, 0.0]), run_of([0.0] * 3)))

    assert png_of_race([nothing], "nothing").startswith(b"\x89PNG")
