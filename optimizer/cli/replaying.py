"""``trifront record`` and ``trifront replay``: a space measured once, and samplers on it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optimizer.cli.options import (
    WORKSPACE,
    JsonOption,
    PlotOption,
    SpaceArgument,
    StorageOption,
    WorkspaceOption,
    results_console,
)
from optimizer.cli.searching import SentinelOption
from optimizer.cli.values import percent, seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from optimizer.replaying.race import Runs
    from optimizer.replaying.table import DeploymentTable
    from optimizer.study.study import SearchStudy
    from optimizer.workspace import Workspace

NO_BOUNDS = "none"

_QUICK = "front,random,sobol,nsga2,tpe,tpe-multivariate-distinct,hill,grid"


TableArgument = Annotated[
    Path,
    typer.Argument(metavar="TABLE", help="A table of `trifront record`.", show_default=False),
]
RacersOption = Annotated[
    str,
    typer.Option(
        "--sampler",
        help="Who races, or `all`; a limit of its own as random:2000.",
        metavar="NAME,…",
    ),
]
TrialsOption = Annotated[
    int, typer.Option("--trials", "-n", min=1, help="Stop each run after so many trials.")
]
ChargeOption = Annotated[
    float | None,
    typer.Option(
        "--time",
        "-t",
        parser=seconds,
        metavar="DURATION",
        help="Stop each run when it was charged so much, e.g. 90s, 10m, 2h.",
    ),
]
UntilOption = Annotated[
    float | None,
    typer.Option(
        help="Stop each run at this share of the hypervolume, such as 99.9%.",
        parser=percent,
        metavar="SHARE",
    ),
]
NoiseOption = Annotated[
    float,
    typer.Option(help="Add noise to what samplers are told, 0.05 for 5 %.", min=0, max=1),
]
BoundsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--constraint",
        help="Another bound than the space's; may be repeated. `none` for no bounds.",
        metavar="BOUND",
        show_default="the space's",
    ),
]


def record(
    space: SpaceArgument,
    *,
    out: Annotated[
        Path,
        typer.Option("--out", help="Where to write the table.", dir_okay=False),
    ],
    partial: Annotated[
        bool,
        typer.Option("--partial", help="After an interruption, write what there is."),
    ] = False,
    study: Annotated[
        str | None,
        typer.Option("--study", "-s", help="Name of the study.", show_default="SPACE-grid"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seeds the order of the deployments.")] = 0,
    sentinel: SentinelOption = True,
    workspace: WorkspaceOption = WORKSPACE,
    storage: StorageOption = None,
) -> None:
    """Measure every deployment of a space into a table, for `trifront replay`.

    A search without a limit, over a study of its own and in random order, so that a machine that
    drifts does not look like an axis. The same command goes on after an interruption. The table is
    one Parquet file: axes, metrics with their intervals, why a deployment cannot run, and the
    seconds of converting, building, scoring, loading and measuring.

    Examples:

      trifront record fake --out fake.parquet

      trifront record model.yaml --out model.parquet --workspace /data/trifront
    """
    from rich.console import Console

    from optimizer.replaying.record import RecordOrder, measured
    from optimizer.wiring import place_at

    order = RecordOrder(space=space, out=out, study=study, seed=seed, sentinel=sentinel)
    place = place_at(workspace, storage)
    with measured(order, place, Console(stderr=True)) as (finished, found):
        typer.echo(f"measuring ended: {finished.reason}", err=True)
        _write(found, place.workspace, out, partial=partial)


def replay(
    table: TableArgument,
    *,
    sampler: RacersOption = _QUICK,
    seeds: Annotated[int, typer.Option(help="How often each races.", min=1)] = 20,
    trials: TrialsOption = 240,
    time: ChargeOption = None,
    until: UntilOption = None,
    noise: NoiseOption = 0.0,
    constraint: BoundsOption = None,
    jobs: Annotated[int, typer.Option(help="Runs at a time.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    plot: PlotOption = None,
    json: JsonOption = False,
) -> None:
    """Race samplers over a recorded table, without a device.

    Each run is charged the recorded seconds: converting, building and scoring once for all
    deployments that share them, loading and measuring each time. Prints what it cost to reach 90,
    95 and 99 % of the hypervolume of the whole table, and how near the best points came.

    Samplers: front (ours); random, sobol, nsga2, tpe, tpe-multivariate, gp (where torch is; 100
    trials at most), auto (OptunaHub's, where optunahub is), each also with -distinct for one that
    never repeats a deployment; hill (Model Analyzer's quick mode); grid.

    Examples:

      trifront replay fake.parquet

      trifront replay fake.parquet --sampler all --jobs 2 --plot race.png

      trifront replay fake.parquet --sampler random:1944,tpe --constraint "accuracy >= 0.93"
    """
    from optimizer.cli.progress import counted
    from optimizer.replaying.race import RaceOrder, entrants_from_text, race
    from optimizer.replaying.replay import Limits
    from optimizer.replaying.table import bounded, check_whole
    from optimizer.replaying.table_file import table_from_parquet
    from optimizer.search.samplers import count_allowed
    from optimizer.study.encoding import Encoding

    order = RaceOrder(
        entrants=entrants_from_text(sampler),
        seeds=tuple(range(seed, seed + seeds)),
        limits=Limits(trials=trials, price_s=time, share=until),
        noise=noise,
        jobs=jobs,
    )
    found = table_from_parquet(table)
    check_whole(found, count_allowed(Encoding(found.space)))
    if constraint is not None:
        found = bounded(found, [one for one in constraint if one != NO_BOUNDS])
    with counted(len(order.entrants) * seeds, begin="racing") as counter:

        def on_done(name: str) -> None:
            counter.say(f"racing, last {name}")
            counter.count()

        raced = race(found, order, on_done)
    if plot is not None:
        _draw(plot, raced, found)
    if json:
        _print_json(found, raced)
    else:
        _print_tables(found, raced)


def _write(study: "SearchStudy", workspace: "Workspace", out: Path, *, partial: bool) -> None:
    from optimizer.replaying.of_study import table_of_study
    from optimizer.replaying.record import check_measured
    from optimizer.replaying.table_file import save_table
    from optimizer.replaying.words import summary_of_table

    if not partial:
        check_measured(study)
    table = table_of_study(study, workspace)
    save_table(table, out)
    typer.echo(f"{out}: {summary_of_table(table)}")


def _draw(plot: Path, raced: "Sequence[Runs]", table: "DeploymentTable") -> None:
    from optimizer.replaying.figure import png_of_race
    from optimizer.workspace import write_atomically

    title = f"{table.space.name}, {len(table):,} deployments"
    write_atomically(plot, png_of_race(raced, title), option="--plot")


def _print_json(table: "DeploymentTable", raced: "Sequence[Runs]") -> None:
    import json

    from optimizer.replaying.words import document_of_race

    typer.echo(json.dumps(document_of_race(table, raced), indent=2))


def _print_tables(table: "DeploymentTable", raced: "Sequence[Runs]") -> None:
    from optimizer.replaying.standing import standings_of
    from optimizer.replaying.words import (
        legend,
        lines_of_table,
        table_of_bests,
        table_of_ends,
        table_of_prices,
        table_of_trials,
    )

    standings = standings_of(table, raced)
    console = results_console()

    def say(lines: "Iterable[str]") -> None:
        for line in lines:
            console.print(line, highlight=False, markup=False, soft_wrap=True)

    say(lines_of_table(table))
    for make in (table_of_prices, table_of_trials, table_of_ends, table_of_bests):
        console.print()
        console.print(make(standings))
    console.print()
    say(legend(standings))
