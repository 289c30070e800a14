"""``trifront doctor``: what this machine can do, what it lacks, what would disturb its numbers."""

from typing import TYPE_CHECKING, Annotated

import typer

from optimizer.cli.options import (
    WORKSPACE,
    JsonOption,
    StorageOption,
    WorkspaceOption,
    results_console,
)

if TYPE_CHECKING:
    from optimizer.health import Finding

_LOOKS = {"ok": "green", "absent": "dim", "warning": "yellow", "broken": "bold red"}


def doctor(
    *,
    workspace: WorkspaceOption = WORKSPACE,
    storage: StorageOption = None,
    mlflow: Annotated[
        str | None, typer.Option(envvar="TRIFRONT_MLFLOW", help="MLflow tracking URI to reach.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Look at packages, backends, the machine and the places that a search would use.

    Changes nothing. Exit code 1 where something is broken, with what to do about it.

    Examples:

      trifront doctor

      trifront doctor --storage postgresql://me@host/studies --mlflow http://host:5000
    """
    from dataclasses import asdict

    from optimizer.health import Grade, findings_at
    from optimizer.wiring import place_at

    findings = list(findings_at(place_at(workspace, storage), mlflow=mlflow))
    if json:
        import json as writer

        typer.echo(writer.dumps({"findings": [asdict(one) for one in findings]}, indent=2))
    else:
        _print(findings)
    if any(one.grade is Grade.BROKEN for one in findings):
        raise typer.Exit(1)


def _print(findings: "list[Finding]") -> None:
    from rich.table import Table
    from rich.text import Text

    console = results_console()
    for topic in dict.fromkeys(one.topic for one in findings):
        table = Table(show_header=False, box=None, pad_edge=False)
        for style in (None, None, "default"):
            table.add_column(overflow="fold", style=style)
        for one in findings:
            if one.topic == topic:
                look = _LOOKS[one.grade.value]
                mend = f"\n→ {one.mend}" if one.mend else ""
                table.add_row(Text(one.grade.value, look), one.name, Text(f"{one.detail}{mend}"))
        console.print(Text(topic, style="italic"))
        console.print(table)
