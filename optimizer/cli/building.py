"""``trifront build``."""

from typing import TYPE_CHECKING, Annotated

import typer

from optimizer.cli.options import (
    WORKSPACE,
    JsonOption,
    SpaceArgument,
    WorkspaceOption,
    results_console,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from optimizer.building import Built, Job
    from optimizer.wiring import Place
    from search_spaces.space import SearchSpace

FAILED = 1
_MB = 1e6


def build(
    space: SpaceArgument,
    *,
    targets: Annotated[
        str | None,
        typer.Option(
            help="Compute capabilities of the GPUs to build for, e.g. SM89,SM120.",
            metavar="SM…,…",
            show_default="this machine",
        ),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Builds at once.")] = 2,
    workspace: WorkspaceOption = WORKSPACE,
    json: JsonOption = False,
) -> None:
    """Build every engine of a space ahead of time, so that a search only measures.

    TensorRT for RTX builds for GPUs that this machine does not have. What is built is kept; after
    an interruption the same command goes on. Exit code 1 if a build crashed or hung.

    Examples:

      trifront build fashion-mnist

      trifront build resnet.yaml --targets SM89,SM120 --jobs 4
    """
    from optimizer.building import Standing, jobs_of
    from optimizer.cli.options import names_of
    from optimizer.wiring import place_at
    from search_spaces.catalog import space_path
    from search_spaces.files import space_from_yaml

    meant = space_from_yaml(space_path(space))
    wanted = jobs_of(meant, [name.upper() for name in names_of(targets)])
    built = _watched(meant, wanted, place_at(workspace, None), workers=jobs)
    if json:
        _print_json(built)
    else:
        results_console().print(_table(built))
        counts = {
            standing: sum(one.standing is standing for one in built) for standing in Standing
        }
        typer.echo(", ".join(f"{count} {name}" for name, count in counts.items() if count))
    if any(one.standing is Standing.FAILED for one in built):
        raise typer.Exit(FAILED)


def _watched(
    space: "SearchSpace", jobs: "Sequence[Job]", place: "Place", *, workers: int
) -> "tuple[Built, ...]":
    """Build, and show how far it is."""
    from optimizer.building import build_all
    from optimizer.cli.progress import counted

    with counted(len(jobs), begin="building engines") as counter:
        return build_all(
            space,
            jobs,
            place,
            workers=workers,
            on_built=lambda _: counter.count(),
            on_phase=lambda job, phase: counter.say(f"{phase}, {_name(job)}"),
        )


def _table(built: "tuple[Built, ...]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("engine")
    table.add_column("size [MB]", justify="right")
    table.add_column(Text("built in [s]"), justify="right")  # a string would be markup
    table.add_column("", overflow="fold")
    for one in built:
        size = "" if one.size_bytes is None else f"{one.size_bytes / _MB:.2f}"
        seconds = "" if one.build_s is None else f"{one.build_s:.2f}"
        what = f"{one.standing}: {one.reason}" if one.reason else one.standing.value
        table.add_row(*map(Text, (_name(one.job), size, seconds, what)))
    return table


def _name(job: "Job") -> str:
    words = [job.deployment.variant, job.deployment.precision.value]
    if job.batch_size is not None:
        words.append(f"b{job.batch_size}")
    elif job.largest_batch is not None:
        words.append(f"b1–{job.largest_batch}")
    words += [f"{name}={value}" for name, value in job.engine_options]
    return " ".join(words if job.target is None else [*words, job.target])


def _print_json(built: "tuple[Built, ...]") -> None:
    import json

    rows = [
        {
            "deployment": dict(one.job.deployment.axes()),
            "target": one.job.target,
            "batch_size": one.job.batch_size,
            "largest_batch": one.job.largest_batch,
            "options": dict(one.job.engine_options),
            "standing": one.standing,
            "build_s": one.build_s,
            "size_bytes": one.size_bytes,
            "reason": one.reason,
        }
        for one in built
    ]
    typer.echo(json.dumps({"engines": rows}, indent=2))
