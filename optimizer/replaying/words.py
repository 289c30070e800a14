"""A race in words: tables for people, a document for programs."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from optimizer.front.words import number
from optimizer.replaying.race import Runs
from optimizer.replaying.replay import Replayed
from optimizer.replaying.standing import (
    NEAR,
    SHARES,
    TRIALS,
    Best,
    Spread,
    Standing,
    best_builtin,
    ratio_of,
    standings_of,
)
from optimizer.replaying.table import STATES, DeploymentTable
from optimizer.replaying.truth import Truth

if TYPE_CHECKING:
    from rich.table import Table

_NOT_REACHED = "–"
_GRID, _RANDOM = "grid", "random"


def lines_of_table(table: DeploymentTable) -> Iterator[str]:
    """Say what is searched and what is to be found in it."""
    truth = Truth(table)
    name, rows = table.space.name, len(table)
    yield (
        f"'{name}': {rows:,} deployments, {len(table.engine_names)} engines, "
        f"{int(truth.feasible.sum()):,} feasible, {len(truth.members)} on the front; "
        f"all of them cost {duration(table.total_s)}"
    )
    bounds = ", ".join(map(str, table.space.constraints))
    if bounds:
        yield f"bounds: {bounds}"


def summary_of_table(table: DeploymentTable) -> str:
    """Say in a line what a table holds."""
    counts = {state: int((table.states == at).sum()) for at, state in enumerate(STATES)}
    states = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
    return (
        f"{len(table):,} deployments ({states}) of {len(table.engine_names)} engines, "
        f"{duration(table.total_s)} in all"
    )


def table_of_prices(standings: Sequence[Standing]) -> "Table":
    """Show what reaching each share cost, and the ratios to who is known."""
    known = dict(_references(standings))
    headings = [f"{_percent(share)} [s]" for share in SHARES]
    table = _table("price of", *headings, *(f"× {name}" for name in known))
    for one in standings:
        prices = (_quartiles(price_s) for price_s in one.prices_s)
        _add(table, one.name, *prices, *(_ratios(one, others) for others in known.values()))
    return table


def table_of_trials(standings: Sequence[Standing]) -> "Table":
    """Show how many trials reached each share, and the shares after some trials."""
    headings = [f"to {_percent(share)}" for share in SHARES]
    table = _table("trials", *headings, *(f"share after {count} [%]" for count in TRIALS))
    for one in standings:
        shares = (_quartiles(share, times=100) for share in one.shares)
        _add(table, one.name, *map(_quartiles, one.trials), *shares)
    return table


def table_of_ends(standings: Sequence[Standing]) -> "Table":
    """Show where the runs ended."""
    table = _table("by the end", "front found [%]", "tried", "price [s]", "CPU/ask [ms]")
    for one in standings:
        found = _quartiles(one.members, times=100)
        _add(table, one.name, found, *map(_quartiles, (one.tried, one.ended_s, one.ask_ms)))
    return table


def table_of_bests(standings: Sequence[Standing]) -> "Table":
    """Show the best feasible point of each objective against the true best."""
    names = [best.objective.metric.name for best in standings[0].bests]
    within = f"within {_percent(NEAR - 1)} [s]"
    table = _table("best point", *(part for name in names for part in (f"{name} ×", within)))
    for one in standings:
        cells = [_quartiles(each) for best in one.bests for each in (best.ratio, best.prices_s)]
        _add(table, one.name, *cells)
    return table


def legend(standings: Sequence[Standing]) -> Iterator[str]:
    """Say how the tables are read."""
    seeds = standings[0].members.seeds
    yield (
        f"medians (and quartiles) over {seeds} seeds; {_NOT_REACHED} is not reached, (n) by n of "
        "the seeds; shares are of the hypervolume of the whole table; a best point is × times "
        "worse than the true best"
    )
    if dict(_references(standings)):
        shares = ", ".join(map(_percent, SHARES))
        yield f"ratios are of the median prices for {shares}"
    chosen = [best_builtin(standings, at) for at in range(len(SHARES))]
    words = [
        f"{one.name} for {_percent(share)}"
        for share, one in zip(SHARES, chosen, strict=True)
        if one is not None
    ]
    if words:
        yield f"the best of those that Optuna brings: {', '.join(words)}"


def document_of_race(table: DeploymentTable, raced: Sequence[Runs]) -> dict[str, Any]:
    """Write a race as a JSON document: no infinities, null is not reached."""
    truth = Truth(table)
    standings = standings_of(table, raced)
    return {
        "space": table.space.name,
        "deployments": len(table),
        "engines": len(table.engine_names),
        "feasible": int(truth.feasible.sum()),
        "members": len(truth.members),
        "total_s": table.total_s,
        "constraints": [str(one) for one in table.space.constraints],
        "contestants": [
            _data_of(one) | {"runs": [_data_of_run(run) for run in its.runs]}
            for one, its in zip(standings, raced, strict=True)
        ],
    }


def duration(seconds: float) -> str:
    """Write seconds as people do."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{number(seconds)} s"


def _table(*headings: str) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for at, heading in enumerate(headings):
        table.add_column(Text(heading), justify="right" if at else "left", no_wrap=True)
    return table


def _add(table: "Table", *cells: str) -> None:
    from rich.text import Text

    table.add_row(*map(Text, cells))


def _references(
    standings: Sequence[Standing],
) -> Iterator[tuple[str, tuple[Standing | None, ...]]]:
    """Yield who the others are held against, by share: the best built-in, random, grid."""
    shares = range(len(SHARES))
    if any(one.is_builtin for one in standings):
        yield "built-in", tuple(best_builtin(standings, at) for at in shares)
    for one in standings:
        if one.name in (_RANDOM, _GRID):
            yield one.name, tuple(one for _ in shares)


def _ratios(one: Standing, references: Sequence[Standing | None]) -> str:
    words = []
    for at, reference in enumerate(references):
        ratio = None
        if reference is not None:
            ratio = ratio_of(one.prices_s[at], reference.prices_s[at])
        words.append(_NOT_REACHED if ratio is None else f"{ratio:.2f}")
    return " ".join(words)


def _quartiles(spread: Spread, *, times: float = 1.0) -> str:
    """Write quartiles as ``12 (10–15)``; where some seeds have none, how many have."""
    some = f" ({spread.reached})" if 0 < spread.reached < spread.seeds else ""
    if not math.isfinite(spread.median):
        return _NOT_REACHED + some
    high = number(spread.high * times) if math.isfinite(spread.high) else "∞"
    low = number(spread.low * times) if math.isfinite(spread.low) else _NOT_REACHED
    middle = number(spread.median * times)
    if low == middle == high:
        return middle + some
    return f"{middle} ({low}–{high}){some}"


def _percent(share: float) -> str:
    return f"{share * 100:.12g} %"


def _data_of(one: Standing) -> dict[str, Any]:
    return {
        "name": one.name,
        "prices_s": {
            f"{to}": _data(price) for to, price in zip(SHARES, one.prices_s, strict=True)
        },
        "trials": {f"{to}": _data(count) for to, count in zip(SHARES, one.trials, strict=True)},
        "shares": {f"{at}": _data(share) for at, share in zip(TRIALS, one.shares, strict=True)},
        "members": _data(one.members),
        "tried": _data(one.tried),
        "ended_s": _data(one.ended_s),
        "ask_ms": _data(one.ask_ms),
        "bests": {best.objective.metric.name: _data_of_best(best) for best in one.bests},
    }


def _data_of_best(best: Best) -> dict[str, Any]:
    return {"ratio": _data(best.ratio), "prices_s": _data(best.prices_s)}


def _data(spread: Spread) -> dict[str, float | int | None]:
    ends = {"low": spread.low, "median": spread.median, "high": spread.high}
    finite = {name: value if math.isfinite(value) else None for name, value in ends.items()}
    return {**finite, "reached": spread.reached, "seeds": spread.seeds}


def _data_of_run(run: Replayed) -> dict[str, Any]:
    return {
        "rows": run.rows.tolist(),
        "prices_s": run.prices_s.tolist(),
        "shares": run.shares.tolist(),
        "ended": run.has_ended,
    }
