"""``trifront compare``: which of two deployments is faster, and which is more often right."""

from typing import TYPE_CHECKING, Annotated

import typer

from optimizer.cli.options import (
    WORKSPACE,
    JsonOption,
    StorageOption,
    StudyOption,
    WorkspaceOption,
    names_of,
    results_console,
)
from optimizer.cli.values import GATE_FAILED, percent, seconds

if TYPE_CHECKING:
    from optimizer.comparing.compare import Comparison

TIME = "90s"
WITHIN = "2%"  # of a p50, blocks in turns tell less apart in a minute on a shared machine
_SIDE_HELP = "A trial (number, `knee`, `best:METRIC`), an exported folder, or an engine file."


WithinOption = Annotated[
    float, typer.Option(parser=percent, metavar="N%", help="Difference that does not matter.")
]
TimeOption = Annotated[
    float,
    typer.Option(
        "--time", "-t", parser=seconds, metavar="DURATION", help="Most time spent measuring."
    ),
]
EngineOption = Annotated[
    list[str] | None,
    typer.Option(help="Backend option of engine files; may be repeated.", metavar="NAME=VALUE"),
]


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=_SIDE_HELP, show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help=_SIDE_HELP, show_default=False)],
    *,
    within: WithinOption = WITHIN,  # type: ignore[assignment] # the parser makes the float
    metrics: Annotated[
        str,
        typer.Option(help="Speeds to compare.", metavar="METRIC,…"),
    ] = "latency_p50_ms,latency_p99_ms,throughput_sps",
    time: TimeOption = TIME,  # type: ignore[assignment] # likewise
    stored: Annotated[
        bool, typer.Option("--stored", help="Compare what was measured before; weaker.")
    ] = False,
    backend: Annotated[str, typer.Option(help="Of engine files.")] = "ort",
    batch_size: Annotated[int, typer.Option(min=1, help="Of engine files.")] = 1,
    concurrency: Annotated[int, typer.Option(min=1, help="Of engine files.")] = 1,
    option: EngineOption = None,
    study: StudyOption = None,
    workspace: WorkspaceOption = WORKSPACE,
    storage: StorageOption = None,
    json: JsonOption = False,
) -> None:
    """Compare two deployments: is B faster than A, slower, or equivalent?

    Both are loaded and measured in turns, block by block, until every metric is decided or the
    time is over; accuracy is compared on the same samples. Where they cannot be loaded here, what
    was measured of them before is compared, which is weaker.

    Exit codes: 0 B is not worse, 3 B is worse in something.

    Examples:

      trifront compare 12 knee

      trifront compare deployed/ candidate/ --within 5% --json

      trifront compare old.onnx new.onnx --batch-size 8 --option threads=2
    """
    from optimizer.comparing.compare import CompareOrder
    from optimizer.comparing.naming import Names, compared, options_of
    from optimizer.comparing.side import FileOrder
    from optimizer.wiring import place_at

    order = CompareOrder(metrics=_speeds(metrics), margin=within, time_s=time)
    names = Names(
        place=place_at(workspace, storage),
        study=study,
        files=FileOrder(
            backend=backend,
            batch_size=batch_size,
            concurrency=concurrency,
            options=options_of(option or []),
        ),
    )
    _report(compared((a, b), names, order, stored=stored, on_step=_tell), json=json)


def _speeds(text: str) -> tuple[str, ...]:
    from optimizer.errors import UsageError
    from trials.measuring.comparison import SPEEDS

    names = tuple(dict.fromkeys(names_of(text)))
    for name in names:
        if name not in SPEEDS:
            raise UsageError(f"{name!r} is no speed", hint=f"there are: {', '.join(SPEEDS)}")
    return names


def _tell(step: str) -> None:
    typer.echo(step, err=True)


def _report(found: "Comparison", *, json: bool) -> None:
    """Print what was found and end with the gate's code."""
    import json as codec

    from optimizer.comparing.words import data_of, heading_of, lines_below, table_of_speeds

    if json:
        typer.echo(codec.dumps(data_of(found), indent=2))
    else:
        console = results_console()
        for line in heading_of(found):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        console.print(table_of_speeds(found))
        for line in lines_below(found):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    if found.is_worse:
        raise typer.Exit(GATE_FAILED)
