"""A race in words: tables for people, a document for programs."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from optimizer.front.words import label, number
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
    """Show what reaching each share cost: seconds, trials, and ratios to who is known."""
    table = _table("to reach")
    for share in SHARES:
        table.add_column(f"{share:.0%} [s]", justify="right", no_wrap=True)
        table.add_column("trials", justify="right", no_wrap=True)
    known = dict(_references(standings))
    for name in known:
        table.add_column(f"× {name}", justify="right")
    for one in standings:
        cells = [one.name]
        for price_s, trials in zip(one.prices_s, one.trials, strict=True):
            cells += [_quartiles(price_s), _quartiles(trials)]
        cells += [_ratios(one, reference) for reference in known.values()]
        table.add_row(*cells)
    return table


def table_of_shares(standings: Sequence[Standing]) -> "Table":
    """Show what was reached after some trials, and at the end."""
    table = _table("after trials")
    for count in TRIALS:
        table.add_column(f"{count} [%]", justify="right", no_wrap=True)
    for heading in ("front found [%]", "tried", "price [s]", "CPU/ask [ms]"):
        table.add_column(heading.replace("[", "\\["), justify="right", no_wrap=True)
    for one in standings:
        table.add_row(
            one.name,
            *(_quartiles(share, times=100) for share in one.shares),
            _quartiles(one.members, times=100),
            _quartiles(one.tried),
            _quartiles(one.ended_s),
            _quartiles(one.ask_ms),
        )
    return table


def table_of_bests(standings: Sequence[Standing]) -> "Table":
    """Show the best feasible point of each objective against the true best."""
    table = _table("best point")
    for best in standings[0].bests:
        table.add_column(f"{label(best.objective.metric.name)}, × worse", justify="right")
        table.add_column(f"within {NEAR - 1:.0%} \\[s]", justify="right", no_wrap=True)
    for one in standings:
        cells = [one.name]
        for best in one.bests:
            cells += [_quartiles(best.ratio), _quartiles(best.prices_s)]
        table.add_row(*cells)
    return table


def legend(standings: Sequence[Standing]) -> Iterator[str]:
    """Say how the tables are read."""
    seeds = standings[0].members.seeds
    yield (
        f"medians and quartiles over {seeds} seeds; {_NOT_REACHED} is not reached, (n) by n of "
        "the seeds; shares are of the hypervolume of the whole table"
    )
    names = dict(_references(standings))
    if "built-in" in names:
        chosen = [best_builtin(standings, at) for at in range(len(SHARES))]
        words = ", ".join(
            f"{share:.0%} {one.name}" for share, one in zip(SHARES, chosen, strict=True) if one
        )
        yield f"ratios are of the median prices for {_shares_in_words()}; built-in: {words}"
    elif names:
        yield f"ratios are of the median prices for {_shares_in_words()}"


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


def _table(heading: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(heading, no_wrap=True)
    return table


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
    high = number(spread.high * times) if math.isfinite(spread.high) else _NOT_REACHED
    middle, low = number(spread.median * times), number(spread.low * times)
    if low == middle == high:
        return middle + some
    return f"{middle} ({low}–{high}){some}"


def _shares_in_words() -> str:
    return ", ".join(f"{share:.0%}" for share in SHARES)


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
