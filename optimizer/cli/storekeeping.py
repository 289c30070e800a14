"""``trifront store``: list, verify and prune stored models, engines and scores."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from optimizer.cli.options import WORKSPACE, WorkspaceOption, results_console

if TYPE_CHECKING:
    from pathlib import Path

    from trials.store.store import Store

app = typer.Typer(
    help="List, verify and prune the stored models, engines and scores.", no_args_is_help=True
)

_MB = 1e6


@app.command("list")
def list_entries(*, workspace: WorkspaceOption = WORKSPACE) -> None:
    """List what is stored, the most recently used last.

    Example:

      trifront store list
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("kind", "key", "size [MB]", "made in [s]", "what"):
        side: Literal["left", "right"] = "right" if "[" in column else "left"
        table.add_column(Text(column), justify=side, overflow="fold")
    entries = _store(workspace).list()
    for entry in entries:
        table.add_row(
            entry.kind,
            entry.key[:12],
            f"{entry.size_bytes / _MB:.2f}",
            f"{entry.make_s:.2f}",
            _what(entry.parts),
        )
    results_console().print(table)
    total = sum(entry.size_bytes for entry in entries)
    typer.echo(f"{len(entries)} entries, {total / _MB:.1f} MB")


@app.command()
def verify(*, workspace: WorkspaceOption = WORKSPACE) -> None:
    """Read every entry back and compare its checksum; exit code 1 if one is corrupt.

    Example:

      trifront store verify
    """
    store = _store(workspace)
    corrupt = store.verify()
    for entry in corrupt:
        typer.echo(f"corrupt: {entry.kind} {entry.key}: {entry.problem}")
    if corrupt:
        typer.echo("what is corrupt is built again when it is next needed", err=True)
        raise typer.Exit(1)
    typer.echo(f"{len(store.list())} entries are whole")


@app.command()
def prune(
    *,
    keep_mb: Annotated[
        float | None, typer.Option(min=0, help="Drop the least recently used beyond this size.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Drop everything.")] = False,
    workspace: WorkspaceOption = WORKSPACE,
) -> None:
    """Drop stored entries that are not in use; what is needed again is built again.

    Examples:

      trifront store prune --keep-mb 500

      trifront store prune --all
    """
    from optimizer.errors import UsageError

    if (keep_mb is None) != everything:
        raise UsageError("say what to drop", hint="trifront store prune --keep-mb 500, or --all")
    limit_bytes = None if keep_mb is None else int(keep_mb * _MB)
    pruned = _store(workspace).prune(limit_bytes, everything=everything)
    typer.echo(f"dropped {pruned.entries} entries, {pruned.size_bytes / _MB:.1f} MB")


def _what(parts: str) -> str:
    """Say in short what an entry was made of; digests are cut to what tells them apart."""
    import json

    found = json.loads(parts)
    engine = found.get("engine")  # a quality's is a spec, an inspection's is a key
    inner = engine if isinstance(engine, dict) else found
    words = (
        f"{name}={str(value)[:12]}"
        for name, value in inner.items()
        if isinstance(value, str | int) and value is not None
    )
    return " ".join(words)


def _store(workspace: "Path") -> "Store":
    from optimizer.wiring import place_at
    from optimizer.workspace import STORE_LIMIT_BYTES
    from trials.store.store import Store

    return Store(place_at(workspace, None).workspace.store, limit_bytes=STORE_LIMIT_BYTES)
