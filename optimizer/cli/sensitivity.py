"""``trifront precision-report``: which layers suffer from a precision."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from optimizer.cli.options import (
    WORKSPACE,
    JsonOption,
    PlotOption,
    WorkspaceOption,
    results_console,
)

if TYPE_CHECKING:
    from optimizer.sensitivity.sensitivity import Sensitivity

LoweredTo = Literal["fp16", "bf16", "int8", "int8-dynamic", "fp8", "int4"]


def precision_report(
    space: Annotated[
        str,
        typer.Argument(
            metavar="SPACE|MODEL",
            help="A space file, a shipped space, or an ONNX file with --data.",
            show_default=False,
        ),
    ],
    *,
    precision: Annotated[LoweredTo, typer.Option(help="What layers are lowered to.")] = "int8",
    variant: Annotated[
        str | None, typer.Option(help="Which of the space's.", show_default="the only one")
    ] = None,
    split: Annotated[
        Literal["calibration", "search"],
        typer.Option(help="Whose samples are asked; keep_layers uses calibration."),
    ] = "calibration",
    data: Annotated[
        Path | None,
        typer.Option(help="For a model: an .npz file, or a folder class/*.png.", metavar="PATH"),
    ] = None,
    plot: PlotOption = None,
    workspace: WorkspaceOption = WORKSPACE,
    json: JsonOption = False,
) -> None:
    """Rank the layers of a model by what lowering each one alone does.

    Each convolution and matrix product is lowered by itself, on real samples, on this CPU: the
    accuracy that it costs with its paired interval, and the noise in the outputs, which is finer.
    What was found is kept; after an interruption the same command goes on. A space that has
    keep_layers among its axes searches how many of the first layers stay in fp32.

    Examples:

      trifront precision-report fashion-mnist --variant resnet-w16 --precision fp8

      trifront precision-report model.onnx --data data.npz --precision int8 --plot layers.png
    """
    from optimizer.sensitivity.plot import png_of_sensitivity
    from optimizer.sensitivity.words import (
        data_of_sensitivity,
        lines_of_sensitivity,
        table_of_sensitivity,
    )
    from optimizer.workspace import write_atomically

    found = _asked(
        space, data=data, variant=variant, precision=precision, split=split, workspace=workspace
    )
    if plot is not None:
        write_atomically(plot, png_of_sensitivity(found), option="--plot")
    if json:
        _echo_json(data_of_sensitivity(found))
        return
    console = results_console()
    console.print(table_of_sensitivity(found))
    for line in lines_of_sensitivity(found):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _asked(
    name: str,
    *,
    data: Path | None,
    variant: str | None,
    precision: LoweredTo,
    split: Literal["calibration", "search"],
    workspace: Path,
) -> "Sensitivity":
    from rich.console import Console
    from rich.progress import Progress

    from optimizer.sensitivity.sensitivity import named_space, sensitivity_of, variant_named
    from optimizer.wiring import place_at
    from search_spaces.deployment import Precision
    from trials.isolation.messages import LayerQuestion

    with (
        named_space(name, data=data) as space,
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):
        question = LayerQuestion(
            variant=variant_named(variant, space), precision=Precision(precision), split=split
        )
        task = progress.add_task(f"lowering layers to {precision}", total=None)
        return sensitivity_of(
            space,
            place_at(workspace, None),
            question,
            on_layer=lambda done, total: progress.update(task, completed=done, total=total),
        )


def _echo_json(document: dict[str, object]) -> None:
    import json

    typer.echo(json.dumps(document, indent=2))
