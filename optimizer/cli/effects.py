"""``trifront effect``: what changing one axis alone does."""

from typing import Annotated

import typer

from optimizer.cli.options import (
    WORKSPACE,
    JsonOption,
    PlotOption,
    StorageOption,
    StudyOption,
    WorkspaceOption,
    names_of,
    results_console,
)


def effect(
    axis: Annotated[
        str, typer.Argument(metavar="AXIS", help="An axis of the space.", show_default=False)
    ],
    *,
    metrics: Annotated[
        str | None,
        typer.Option(help="What to look at.", metavar="METRIC,…", show_default="the objectives"),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Hold all values against this one.",
            metavar="VALUE",
            show_default="neighbours, or the first name",
        ),
    ] = None,
    plot: PlotOption = None,
    study: StudyOption = None,
    workspace: WorkspaceOption = WORKSPACE,
    storage: StorageOption = None,
    json: JsonOption = False,
) -> None:
    """Show what changing one axis does with all others held.

    From pairs of trials that differ in this axis alone: the typical ratio (difference, for scores)
    with its interval, and where a metric turns around. Says where the data cannot tell.

    Examples:

      trifront effect batch_size

      trifront effect precision --against fp32 --metrics throughput_sps,accuracy --plot effect.png
    """
    from optimizer.effects.effect import effect_of
    from optimizer.effects.naming import axis_named, value_named
    from optimizer.effects.plot import png_of_effect
    from optimizer.effects.words import data_of_effect, lines_of_effect, table_of_effect
    from optimizer.wiring import place_at, study_at
    from optimizer.workspace import write_atomically

    found = study_at(place_at(workspace, storage), study)
    chosen = axis_named(axis, found.space)
    names = names_of(metrics) or [one.metric.name for one in found.space.objectives]
    value = None if against is None else value_named(against, chosen)
    the_effect = effect_of(chosen, found.records(), names, against=value)
    if plot is not None:
        write_atomically(
            plot, png_of_effect(the_effect, f"{found.name}: {axis} alone"), option="--plot"
        )
    if json:
        _echo_json({"study": found.name, **data_of_effect(the_effect)})
        return
    console = results_console()
    console.print(table_of_effect(the_effect))
    for line in lines_of_effect(the_effect):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _echo_json(document: dict[str, object]) -> None:
    import json

    typer.echo(json.dumps(document, indent=2))
