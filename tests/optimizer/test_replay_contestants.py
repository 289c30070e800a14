"""Who may race, and how the hill climber climbs."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from replay_fakes import CROWDED, TABLE

from optimizer.errors import UsageError
from optimizer.replaying.contestants import (
    contestants_named,
    names_of_contestants,
    serving_axes,
)
from optimizer.replaying.generating import Recipe, generated_table
from optimizer.replaying.race import Entrant, entrants_from_text
from optimizer.replaying.replay import Limits, Replayed, replay
from optimizer.replaying.table import DeploymentTable, bounded
from optimizer.replaying.truth import Truth
from optimizer.study.encoding import Encoding
from search_spaces.rules import rule_from_text

CHEAP = [name for name in names_of_contestants() if not name.startswith(("gp", "auto"))]
HILLS = generated_table(Recipe(variants=2, precisions=2, builds=2, refused=0.0, deviation=0.0))


def raced(name: str, table: DeploymentTable, *, seed: int = 0, trials: int = 40) -> Replayed:
    (contestant,) = contestants_named([name])
    sampler = contestant.make(table, Encoding(table.space), seed)
    return replay(table, sampler, limits=Limits(trials=trials), seed=seed)


@pytest.mark.parametrize("name", CHEAP)
def test_contestant_proposes_deployments_of_the_table(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = raced(name, CROWDED, trials=20)

    assert run.rows.size == 20
    assert (run.ask_s >= 0).all()


def test_gaussian_process_proposes_deployments_of_the_table() -> None:
    pytest.importorskip("torch", reason="the gp contestant needs torch")

    assert raced("gp", TABLE, trials=11).rows.size == 11


@pytest.mark.parametrize("name", [name for name in CHEAP if name.endswith("-distinct")])
def test_contestant_that_is_called_distinct_never_repeats(name: str) -> None:
    run = raced(name, TABLE, trials=100)

    assert sorted(run.rows) == list(range(len(TABLE)))
    assert run.has_ended


def test_contestant_that_is_not_called_distinct_may_repeat() -> None:
    run = raced("random", TABLE, trials=24)

    assert len(set(run.rows.tolist())) < 24


@pytest.mark.parametrize("name", ["random", "sobol", "tpe-multivariate", "hill", "grid"])
def test_contestant_keeps_to_the_rules(name: str) -> None:
    rule = rule_from_text("batch_size * concurrency <= 16", axes=["batch_size", "concurrency"])
    product = [
        deployment.batch_size * deployment.concurrency
        for deployment in map(CROWDED.deployment, range(len(CROWDED)))
    ]
    kept = np.flatnonzero(np.array(product) <= 16)
    table = only(replace(CROWDED, space=replace(CROWDED.space, rules=(rule,))), kept)

    run = raced(name, table, trials=60)  # a row that the table lacks would be a KeyError

    assert run.rows.size == 60


def only(table: DeploymentTable, rows: NDArray[np.intp]) -> DeploymentTable:
    """Keep some rows of a table."""
    prices = {name: getattr(table.prices, name)[rows] for name in table.prices.__slots__}
    blocks = {name: getattr(table.metrics, name)[rows] for name in ("values", "lows", "highs")}
    columns = ("positions", "states", "models", "engines", "flat")
    return replace(
        table,
        **{name: getattr(table, name)[rows] for name in columns},
        kinds=tuple(table.kinds[row] for row in rows),
        reasons=tuple(table.reasons[row] for row in rows),
        prices=replace(table.prices, **prices),
        metrics=replace(table.metrics, **blocks),
    )


def test_unknown_contestant_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="did you mean 'random'") as caught:
        contestants_named(["randon"])

    assert "hill" in caught.value.hint


def test_contestant_that_is_not_installed_says_what_it_needs() -> None:
    (auto,) = (name for name in names_of_contestants() if name == "auto")
    try:
        import optunahub  # noqa: F401
    except ImportError:
        with pytest.raises(UsageError, match="'auto' needs optunahub, which is not installed"):
            contestants_named([auto])
    else:
        assert contestants_named([auto])[0].is_remote


def test_all_is_everybody_who_is_at_hand() -> None:
    names = {one.name for one in contestants_named(["all"])}

    assert set(CHEAP) <= names
    assert not names & {"auto", "auto-distinct"}


def test_entrants_may_have_limits_of_their_own() -> None:
    assert entrants_from_text("random:2000, tpe,random:5") == (
        Entrant(name="random", trials=5),
        Entrant(name="tpe"),
    )


@pytest.mark.parametrize("text", ["random:", "tpe:x", "tpe:0", "tpe:-1"])
def test_limit_that_is_no_number_is_refused(text: str) -> None:
    if text.endswith(":"):
        assert entrants_from_text(text)[0].trials is None
        return
    with pytest.raises(UsageError, match="is no number of trials"):
        entrants_from_text(text)


def test_axes_of_serving_leave_the_engine_as_it_is() -> None:
    assert serving_axes(HILLS) == ("batch_size", "concurrency", "threads")


def test_batch_size_is_climbed_where_each_has_an_engine_too() -> None:
    batches = CROWDED.positions[:, [axis.name for axis in CROWDED.space.axes].index("batch_size")]
    table = replace(CROWDED, engines=CROWDED.engines * 5 + batches)

    assert serving_axes(table) == serving_axes(CROWDED)


def test_climber_starts_each_engine_at_its_smallest_and_never_repeats() -> None:
    run = raced("hill", HILLS, trials=len(HILLS))

    first = {int(HILLS.engines[row]): row for row in run.rows[::-1].tolist()}
    starts = [HILLS.deployment(row) for row in first.values()]
    assert len(starts) == len(HILLS.engine_names)
    assert {(one.batch_size, one.concurrency) for one in starts} == {(1, 1)}
    assert len(set(run.rows.tolist())) == run.rows.size
    assert run.has_ended
    assert run.rows.size < len(HILLS) / 3


def test_climber_comes_near_the_highest_throughput_of_the_engines() -> None:
    """Published: in most cases more than 95 % of the best with less than 10 % of the space."""
    run = raced("hill", HILLS, trials=len(HILLS))
    speeds = HILLS.metrics.column("throughput_sps")

    shares = []
    for engine in range(len(HILLS.engine_names)):
        of_engine = HILLS.engines == engine
        ours = speeds[[row for row in run.rows if of_engine[row]]]
        shares.append(np.nanmax(ours) / np.nanmax(speeds[of_engine]))

    assert np.median(shares) > 0.95


def test_climber_looks_for_what_meets_the_bounds() -> None:
    latencies = HILLS.metrics.column("latency_p99_ms")
    table = bounded(HILLS, [f"latency_p99_ms <= {np.nanquantile(latencies, 0.2):g}"])

    run = raced("hill", table, trials=len(table))

    feasible = Truth(table).feasible
    assert run.shares[-1] > 0.8
    assert feasible[run.rows].mean() > feasible.mean()


def test_climber_gives_up_an_engine_that_cannot_run() -> None:
    run = raced("hill", CROWDED, trials=len(CROWDED))

    refused = np.array([kind == "unsupported" for kind in CROWDED.kinds])
    tries = np.bincount(CROWDED.engines[run.rows][refused[run.rows]])
    assert set(tries.tolist()) <= {0, 1}
