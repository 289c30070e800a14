"""``trifront export``, ``verify`` and ``reproduce``: take a deployment out, and check it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optimizer.cli.options import (
    WORKSPACE,
    JsonOption,
    StorageOption,
    StudyOption,
    TrialArgument,
    WorkspaceOption,
    results_console,
)
from optimizer.export.format_name import FormatName, TritonBackend

if TYPE_CHECKING:
    from optimizer.verification.findings import Findings

GATE_FAILED = 3
# sessions of one engine differ by percents without a cause: of eleven comparisons of the unchanged
# on a shared machine that was quiet, three were "worse" at 2 %, one at 5 % and none at 10 %
AGAINST = "10%"
REFERENCES = 512  # on as many samples an accuracy of 90 % is known to ±2.6 points
_REFERENCES_BYTES = 64_000_000  # of inputs and outputs, before compression


def percent(text: str) -> float:
    """Read a share such as 10% or 2.5 as a fraction.

    Raises:
        typer.BadParameter: Not a share between 0 and 100 %.
    """
    try:
        share = float(text.strip().removesuffix("%")) / 100
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise typer.BadParameter(f"{text!r} is no share; write one such as 10%")
    return share


AgainstOption = Annotated[
    float,
    typer.Option(
        "--against",
        parser=percent,
        metavar="N%",
        help="Difference of a speed that does not matter.",
    ),
]


def export(
    trial: TrialArgument,
    *,
    to: Annotated[Path, typer.Option(help="A new folder.", file_okay=False)],
    form: Annotated[
        FormatName, typer.Option("--format", help="How it is laid out.")
    ] = FormatName.BUNDLE,
    references: Annotated[
        int,
        typer.Option(
            min=0, help="Labelled samples to export with the engine's answers, 64 MB at most."
        ),
    ] = REFERENCES,
    model_name: Annotated[
        str | None,
        typer.Option(help="What Triton calls the model.", show_default="the space's name"),
    ] = None,
    triton_backend: Annotated[
        TritonBackend | None,
        typer.Option(help="What runs the model in Triton.", show_default="what suits"),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="Who exports, for the manifest.", show_default="login name"),
    ] = None,
    study: StudyOption = None,
    workspace: WorkspaceOption = WORKSPACE,
    storage: StorageOption = None,
) -> None:
    """Export a measured deployment, with a manifest of everything about it.

    Formats: `bundle` (the engine that was measured, its portable model, and references to check it
    with), `triton` (a model repository that Triton Inference Server loads), `onnx` (the converted
    model alone). The folder appears whole or not at all.

    Examples:

      trifront export knee --to deploy/

      trifront export 12 --to models/ --format triton --model-name clothes
    """
    from optimizer.export.catalog import format_named
    from optimizer.export.description import user_name
    from optimizer.export.export import check_place, write_export
    from optimizer.export.gathering import gather
    from optimizer.front.picking import record_named
    from optimizer.wiring import opened_worker, place_at, study_at
    from trials.references import Wanted

    chosen = format_named(form, model_name=model_name, triton_backend=triton_backend)
    folder = check_place(to)
    place = place_at(workspace, storage)
    found = study_at(place, study)
    record = record_named(trial, found)
    chosen.refuse(found.space)
    wanted = Wanted(samples=references, limit_bytes=_REFERENCES_BYTES)
    with opened_worker(found.space, place) as worker:
        blocks = place.workspace.blocks(record.uid)
        gathered = gather(record, found, worker, wanted, blocks=blocks)
        exported = write_export(gathered, chosen, folder, by=by or user_name())
    for note in _notes(len(gathered.recorded.references or ()), references):
        typer.echo(note, err=True)
    for file in exported.files:
        typer.echo(file)
    typer.echo(f"fingerprint {exported.fingerprint}; next: trifront verify {to}", err=True)


def verify(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="What was exported.", show_default=False)
    ],
    *,
    against: AgainstOption = AGAINST,  # type: ignore[assignment] # the parser makes the float
    sessions: Annotated[
        int, typer.Option(min=0, help="How often the speed is measured anew; 0 for not at all.")
    ] = 3,
    data: Annotated[
        Path | None,
        typer.Option(
            exists=True, help="Labelled samples to score: .npz, or a folder class/*.png."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Verify an export: every byte, its answers, its accuracy and its speed.

    Works on any machine. On the hardware that measured it, the engine must answer the references
    bit by bit alike, and its speed is measured again under the same load. Elsewhere an engine is
    built from the portable model, and answers and accuracy are compared alone.

    Exit codes: 0 fine, 3 something is worse or answers differ, 1 the folder is not what was
    exported.

    Examples:

      trifront verify deploy/

      trifront verify deploy/ --against 5% --sessions 9 --json
    """
    from optimizer.verification.verify import VerifyOrder, verify

    order = VerifyOrder(folder=folder, margin=against, sessions=sessions, data=data)
    _report(verify(order, on_step=_tell), json=json)


def reproduce(
    trial: TrialArgument,
    *,
    against: AgainstOption = AGAINST,  # type: ignore[assignment] # the parser makes the float
    sessions: Annotated[int, typer.Option(min=1, help="How often it is measured anew.")] = 3,
    study: StudyOption = None,
    workspace: WorkspaceOption = WORKSPACE,
    storage: StorageOption = None,
    json: JsonOption = False,
) -> None:
    """Build a trial's deployment again from its sources, and measure and score it again.

    The store of the workspace is not used. Exit codes: 0 fine, 3 something is worse, 1 the sources
    are no longer the same.

    Examples:

      trifront reproduce knee

      trifront reproduce 12 --study resnet --against 5%
    """
    from optimizer.front.picking import record_named
    from optimizer.verification.reproduce import ReproduceOrder, reproduce
    from optimizer.wiring import place_at, study_at

    place = place_at(workspace, storage)
    found = study_at(place, study)
    record = record_named(trial, found)
    order = ReproduceOrder(
        blocks=place.workspace.blocks(record.uid), margin=against, sessions=sessions
    )
    _report(reproduce(record, found, order, on_step=_tell), json=json)


def _tell(step: str) -> None:
    typer.echo(step, err=True)


def _report(findings: "Findings", *, json: bool) -> None:
    """Print what was found and end with the gate's code."""
    import json as codec

    from optimizer.verification.words import data_of, lines_of, table_of_speeds, verdict_of

    if json:
        typer.echo(codec.dumps(data_of(findings), indent=2))
    else:
        console = results_console()
        for line in lines_of(findings):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        if findings.speeds:
            console.print(table_of_speeds(findings))
        console.print(verdict_of(findings), highlight=False, markup=False, soft_wrap=True)
    if not findings.passed:
        raise typer.Exit(GATE_FAILED)


def _notes(recorded: int, wanted: int) -> "tuple[str, ...]":
    if recorded == 0:
        return ("no references: outputs, accuracy and speed of this export cannot be verified",)
    if recorded < wanted:
        return (f"{recorded} of {wanted} references: all that there are, or 64 MB of them",)
    return ()
