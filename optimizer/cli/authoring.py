"""``trifront init``, ``check`` and ``schema``: write and check space files."""

from pathlib import Path
from typing import Annotated

import typer

from optimizer.cli.options import SpaceArgument


def init(
    model: Annotated[Path, typer.Argument(help="An ONNX file.", show_default=False)],
    *,
    data: Annotated[
        Path,
        typer.Option(help="An .npz file with `inputs` and `labels`, or a folder class/*.png."),
    ],
    to: Annotated[
        Path | None,
        typer.Option(help="The space file to write.", show_default="MODEL's name .yaml"),
    ] = None,
) -> None:
    """Look into a model and its data, and write a commented space file to search.

    A model with a fixed batch dimension gets a copy with a free one where that is safe.

    Example:

      trifront init model.onnx --data data.npz && trifront search model.yaml
    """
    from optimizer.authoring import draft_space

    written = draft_space(model, data=data, to=to)
    for note in written.notes:
        typer.echo(note, err=True)
    typer.echo(written.path)
    typer.echo(f"next: trifront search {written.path}", err=True)


def check(space: SpaceArgument) -> None:
    """Check a space file with its models and data, and say what a search of it would try.

    Examples:

      trifront check fashion-mnist

      trifront check model.yaml
    """
    from tempfile import TemporaryDirectory

    from optimizer.building import elsewhere
    from optimizer.search.samplers import count_allowed
    from optimizer.study.encoding import Encoding
    from optimizer.workspace import STORE_LIMIT_BYTES
    from search_spaces.catalog import space_path
    from search_spaces.files import space_from_yaml
    from trials.backends.catalog import backend_named
    from trials.bench import open_bench
    from trials.capabilities import refuse_ignored
    from trials.errors import UnsupportedError
    from trials.store.store import Store

    found = space_from_yaml(space_path(space))
    why_not_here = ""
    try:
        refuse_ignored(found, backend_named(found.backend).capabilities())
        with TemporaryDirectory(prefix="trifront-check-") as scratch:
            open_bench(found, Store(Path(scratch), limit_bytes=STORE_LIMIT_BYTES))
    except UnsupportedError as error:  # a space for another machine is still a good space
        why_not_here = str(error)
    for axis in found.axes:
        typer.echo(f"{axis.name}: {', '.join(map(str, axis.values))}")
    for rule in found.rules:
        typer.echo(f"rule: {rule.text}")
    for constraint in found.constraints:
        typer.echo(f"constraint: {constraint}")
    wanted = (f"{one.direction.value} {one.metric.name}" for one in found.objectives)
    typer.echo(f"objectives: {', '.join(wanted)}")
    allowed = count_allowed(Encoding(found))
    typer.echo(f"deployments: {'more than 200,000' if allowed is None else f'{allowed:,}'}")
    if why_not_here:
        typer.echo(f"a valid space, but not to be searched here: {why_not_here}", err=True)
        for line in elsewhere(found):
            typer.echo(line, err=True)


def schema() -> None:
    """Print the JSON Schema of space files, for editors.

    Example:

      trifront schema > trifront.schema.json
    """
    import json

    from search_spaces.files import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))
