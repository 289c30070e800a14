"""``trifront export``, ``verify``, ``register`` and ``reproduce``: take a deployment out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optimizer.cli.options import (
    WORKSPACE,
    JsonOption,
    MlflowOption,
    StorageOption,
    StudyOption,
    TrialArgument,
    WorkspaceOption,
    results_console,
)
from optimizer.cli.values import GATE_FAILED, percent
from optimizer.export.format_name import REFERENCES, FormatName, TritonBackend
from optimizer.verification.defaults import MARGIN, SESSIONS

if TYPE_CHECKING:
    from optimizer.verification.findings import Findings

_AGAINST = f"{MARGIN:.0%}"


AgainstOption = Annotated[
    float,
    typer.Option(
        "--against",
        parser=percent,
        metavar="N%",
        help="Difference of a speed that does not matter.",
    ),
]


FolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="What was exported.", show_default=False)
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
    from optimizer.exporting import ExportOrder, export_trial
    from optimizer.wiring import place_at, study_at

    place = place_at(workspace, storage)
    order = ExportOrder(
        trial=trial,
        to=to,
        form=form,
        references=references,
        model_name=model_name,
        triton_backend=triton_backend,
        by=by,
    )
    done = export_trial(order, study_at(place, study), place)
    for note in _notes(done.references, references):
        typer.echo(note, err=True)
    for file in done.exported.files:
        typer.echo(file)
    typer.echo(f"fingerprint {done.exported.fingerprint}; next: trifront verify {to}", err=True)


def verify(
    folder: FolderArgument,
    *,
    against: AgainstOption = _AGAINST,  # type: ignore[assignment] # the parser makes the float
    sessions: Annotated[
        int, typer.Option(min=0, help="How often the speed is measured anew; 0 for not at all.")
    ] = SESSIONS,
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


def register(
    folder: FolderArgument,
    *,
    name: Annotated[
        str | None,
        typer.Option(help="Of the registered model.", show_default="the space's name"),
    ] = None,
    mlflow: MlflowOption = None,
    workspace: WorkspaceOption = WORKSPACE,
    json: JsonOption = False,
) -> None:
    """Register an export in MLflow's model registry: a version with its files and metrics.

    Every byte is checked first. The version leads to files that stay when runs are deleted, and is
    tagged with each metric and its interval. An export that is a version already stays that one.

    Examples:

      trifront register deploy/

      trifront register deploy/ --name clothes --mlflow http://host:5000
    """
    import json as codec
    from dataclasses import asdict

    from optimizer.registering import register, registry_at
    from optimizer.wiring import place_at

    destination = registry_at(mlflow, place_at(workspace, None).workspace)
    registered = register(folder, destination, name=name)
    if json:
        about = {**asdict(registered), "uri": registered.uri, "mlflow": destination.name}
        typer.echo(codec.dumps(about, indent=2))
        return
    was = "" if registered.is_new else " (was there already)"
    typer.echo(f"{registered.uri}{was}")
    typer.echo(f"in {destination.name}; look at it with trifront ui", err=True)


def reproduce(
    trial: TrialArgument,
    *,
    against: AgainstOption = _AGAINST,  # type: ignore[assignment] # the parser makes the float
    sessions: Annotated[
        int, typer.Option(min=1, help="How often it is measured anew.")
    ] = SESSIONS,
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
