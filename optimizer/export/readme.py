"""The README of an export: what it is, how good it is, and how to load it in ten lines."""

from collections.abc import Iterator

from optimizer.export.gathering import Export
from optimizer.export.references_file import REFERENCES
from optimizer.front.words import label, short, text_of


def head_of(export: Export) -> str:
    """Say in Markdown what was exported, what was measured of it and what its inputs are."""
    outcome, record = export.outcome, export.record
    measured = "\n".join(
        f"- {label(one.metric.name)}: {text_of(outcome.metric(one.metric.name))}"
        for one in export.space.objectives
    )
    return f"""\
# {short(outcome.deployment)}

Trial {record.number} of study {record.study}, exported by trifront. `manifest.json` says
everything: digests, every metric, the machine, the data, the packages.

Measured with batch size {outcome.deployment.batch_size} and concurrency \
{outcome.deployment.concurrency}, with 95 % intervals:

{measured}

Inputs as they were measured: {export.space.task.preprocessing.in_words()}.
"""


def checking_of(export: Export) -> str:
    """Say in Markdown how to check the export, and with what."""
    return "\n".join(("## Checking it", "", *_checking(export), ""))


def bundle_readme(export: Export, *, engine: str, model: str) -> str:
    """Write the README of a bundle in Markdown.

    Args:
        export: What was gathered.
        engine: Name of the engine's file; likewise ``model``.
        model: Name of the portable model's file.
    """
    return "\n".join((head_of(export), _loading(export, engine, model), checking_of(export)))


def _checking(export: Export) -> Iterator[str]:
    yield "`trifront verify .` reads every file against `SHA256SUMS`, lets the engine answer the"
    yield "references again and measures it under the same load; `sha256sum --check SHA256SUMS`"
    yield "reads the files alone."
    yield ""
    references = export.recorded.references
    if references is None:
        yield "No references were exported: outputs, accuracy and speed cannot be checked."
    else:
        yield f"`{REFERENCES}` holds {len(references):,} labelled samples that no search has seen:"
        yield "`inputs.*` as the engine takes them, `labels`, and `outputs.*` as the measured"
        yield f"engine answered them in batches of {references.batch_size}."
    if export.blocks is None:
        yield "The raw blocks of the measurement are not in it, so speed cannot be checked."


def _loading(export: Export, engine: str, model: str) -> str:
    if export.spec.backend != "ort":
        return f"`{engine}` is an engine of backend `{export.spec.backend}`; trifront loads it.\n"
    options = dict(export.outcome.deployment.options)
    spinning = "1" if options.get("spinning", True) else "0"
    names = [one.name for one in export.recorded.inputs]
    if export.recorded.references is None:
        batch = ", ".join(f'"{name}": batch' for name in names)
        feeding = [f"outputs = session.run(None, {{{batch}}})"]
        imports = []
    else:
        size = export.outcome.deployment.batch_size
        batch = ", ".join(f'"{name}": stored["inputs.{name}"][:{size}]' for name in names)
        feeding = [
            f'stored = np.load("{REFERENCES}")',
            f"outputs = session.run(None, {{{batch}}})",
        ]
        imports = ["import numpy as np"]
    program = (
        *imports,
        "import onnxruntime as ort",
        "options = ort.SessionOptions()",
        "options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # done",
        f"options.intra_op_num_threads = {int(options.get('threads', 1))}",
        "options.inter_op_num_threads = 1",
        f'options.add_session_config_entry("session.intra_op.allow_spinning", "{spinning}")',
        f'session = ort.InferenceSession("{engine}", options, providers=["CPUExecutionProvider"])',
        *feeding,
    )
    lines = "\n".join(program)
    return f"""\
`{engine}` is optimized for the CPU that measured it, and runs as it is:

```python
{lines}
```

`{model}` is what it was made from, for any other machine: `ort.InferenceSession("{model}")`.
"""
