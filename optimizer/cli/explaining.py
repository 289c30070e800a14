"""``trifront explain``: why a search tried what it tried."""

from typing import Annotated

import typer

from optimizer.cli.options import (
    WORKSPACE,
    JsonOption,
    PlotOption,
    StorageOption,
    StudyOption,
    WorkspaceOption,
    results_console,
    study_named,
)


def explain(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[STUDY]", help="A study.", show_default="the only one"),
    ] = None,
    *,
    last: Annotated[
        int, typer.Option(help="Tell of so many trials, the last ones; 0 for all.", min=0)
    ] = 10,
    untried: Annotated[
        int, typer.Option(help="Tell of so many deployments that were never tried.", min=0)
    ] = 10,
    plot: PlotOption = None,
    study: StudyOption = None,
    workspace: WorkspaceOption = WORKSPACE,
    storage: StorageOption = None,
    json: JsonOption = False,
) -> None:
    """Say why each deployment was tried, what is believed of the others, which axes matter.

    For each trial: what was expected of it before it was measured, with 95 % intervals, what it
    promised to add to the front and at which price, and what came. Then how many of these
    intervals held, the most promising deployments that were never tried, and how much of each
    objective an axis explains alone. All of it is computed from the trials; of those of another
    sampler it says what ours would have thought of them.

    Examples:

      trifront explain

      trifront explain fashion-mnist --last 0 --plot why.png
    """
    from optimizer.explaining.explain import explained
    from optimizer.explaining.plot import png_of_explanation
    from optimizer.explaining.words import (
        data_of_explanation,
        lines_of_calibration,
        lines_of_reasons,
        table_of_importances,
        table_of_untried,
    )
    from optimizer.wiring import place_at, study_at
    from optimizer.workspace import write_atomically

    found = study_at(place_at(workspace, storage), study_named(name, study))
    explanation = explained(found, untried=untried)
    if plot is not None:
        title = f"{found.name}: what was believed before measuring"
        write_atomically(plot, png_of_explanation(explanation, title), option="--plot")
    if json:
        _echo_json({"study": found.name, **data_of_explanation(explanation)})
        return
    console = results_console()
    lines = [*lines_of_reasons(explanation.reasons[-last:]), ""]
    for line in [*lines, *lines_of_calibration(explanation), ""]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if explanation.untried:
        console.print(table_of_untried(explanation.untried))
        console.print()
    console.print(table_of_importances(explanation))


def _echo_json(document: dict[str, object]) -> None:
    import json

    typer.echo(json.dumps(document, indent=2))
