"""Write the page of the space file's format from the models that read it.

Keys, types, defaults and meanings come from the schema, options from the backends' capabilities,
metrics from their list, and the refusals are what reading a wrong file says. A test holds the page
to be what this writes.

::

    python scripts/document_space.py [--to docs/formats/space.md]
"""

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import chdir
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

from search_spaces.errors import SpaceError
from search_spaces.field_types import FORMAT_VERSION
from search_spaces.files import json_schema, space_from_yaml
from search_spaces.metrics import METRICS
from trials.backend import Option
from trials.backends import torch_backend, trt_options
from trials.backends.catalog import backend_named
from trials.serving_options import ON_GPU

PAGE = Path(__file__).parents[1] / "docs" / "formats" / "space.md"

Schema: TypeAlias = Mapping[str, Any]  # a part of a JSON Schema, as pydantic writes it

_HEAD = f"""\
# `*.yaml`: the space file (version {FORMAT_VERSION})

What may be deployed, what is wanted of it, and how it is measured. `search_spaces/document.py`
reads it; `trifront schema` prints the same as JSON Schema, for editors; `trifront check FILE`
reads a file as a search would. This page is written by `scripts/document_space.py`.

It is YAML 1.1 in UTF-8, at most 1 MB, and stricter than YAML where YAML guesses: unknown keys,
keys that stand twice, anchors and aliases are refused, and no value is converted (`1.0` is no
whole number, `on` no truth value). `1e-3` is a number. Paths start at the file's folder.

A file of another version is refused with the mend. `version` rises when a file that was valid
would mean something else, or nothing; new keys with a default do not raise it. A study keeps the
space as it was, so that it is read without the file.

```yaml
"""
# the task's data are left out: the page must be checked without files beside it
_EXAMPLE = """\
version: 1
name: clothes
backend: fake
variants:
  - {name: small, fake: {work_ms: 0.3, accuracy: 0.91, size_mb: 4}}
  - {name: large, fake: {work_ms: 3, accuracy: 0.94, size_mb: 90}}
axes:
  precision: [fp32, int8]
  batch_size: [1, 2, 4, 8]
  concurrency: [1, 2, 4]
  threads: [1, 2]
rules: ["concurrency * threads <= 4"]
objectives: {latency_p99_ms: minimize, throughput_sps: maximize, accuracy: maximize}
constraints: ["accuracy >= 0.9", "latency_p99_ms <= 15"]
measure: {max_s: 5, seed: 0}
"""
_BACKENDS = ("ort", "fake")  # those that can say here what they honour
# those that cannot, by where they run: what they honour there
_SIDES: Mapping[str, Mapping[str, tuple[Option, ...]]] = {
    "torch": {
        "on the CPU": torch_backend.options_of(is_gpu=False, can_compile=True),
        "on a GPU": torch_backend.options_of(is_gpu=True, can_compile=True),
    },
    "tensorrt": {
        "for RTX": (*trt_options.options_of(is_rtx=True), *ON_GPU),
        "in the data centre": (*trt_options.options_of(is_rtx=False), *ON_GPU),
    },
}
# (place in the file, name of the model in the schema)
_SECTIONS = (
    ("The file", "SpaceDocument"),
    ("`task`", "TaskDocument"),
    ("`task.data`, one file", "OneFileDocument"),
    ("`task.data.split`", "SharesDocument"),
    ("`task.data`, three files", "FilesDocument"),
    ("`task.preprocess`", "PreprocessDocument"),
    ("`variants[]`", "VariantDocument"),
    ("`variants[].torch`", "TorchDocument"),
    ("`variants[].fake`", "FakeDocument"),
    ("`axes`", "AxesDocument"),
    ("`measure`", "MeasureDocument"),
    ("`measure.arrivals`, a Poisson process", "PoissonDocument"),
    ("`measure.arrivals`, bursts", "GammaDocument"),
    ("`measure.arrivals`, equal gaps", "ConstantDocument"),
    ("`measure.arrivals`, steps", "StepsDocument"),
    ("`measure.arrivals`, a day", "DayDocument"),
    ("`measure.arrivals`, a trace", "TraceDocument"),
)
# (what is changed in the example, into what)
_SLIPS = (
    ("version: 1", "version: 2"),
    ("name: clothes", "nmae: clothes"),
    ("name: clothes\n", "name: clothes\nname: shoes\n"),
    ("name: clothes", "\tname: clothes"),
    ("backend: fake", "backend: onnx"),
    ("fake: {work_ms: 3, accuracy: 0.94, size_mb: 90}", "onnx: large.onnx"),
    ("name: large", "name: small"),
    ("batch_size: [1, 2, 4, 8]", "batch_size: 8"),
    ("batch_size: [1, 2, 4, 8]", "batchsize: [8]"),
    ("precision: [fp32, int8]", "precision: [fp32, int-8]"),
    ("concurrency * threads <= 4", "concurrency * thread <= 4"),
    ("concurrency * threads <= 4", "concurrency > 4"),
    ("latency_p99_ms: minimize", "latency_ms: minimize"),
    ("latency_p99_ms: minimize", "latency_p99_ms: maximize"),
    ("accuracy >= 0.9", "accuracy > 0.9"),
    ("max_s: 5", "max_s: 0.2"),
    ("max_s: 5", "max_s: 5s"),
)


def page() -> str:
    """Put the page together."""
    parts = [_HEAD + _EXAMPLE + "```\n"]
    schema = json_schema()
    sections = {**_definitions(schema), "SpaceDocument": schema}
    parts += [_section(title, sections[name]) for title, name in _SECTIONS]
    parts += [_options(), _metrics(), _refusals()]
    return "\n".join(parts)


def _definitions(schema: Schema) -> dict[str, Any]:
    return dict(schema["$defs"])


def _section(title: str, model: Schema) -> str:
    required = model.get("required", ())
    rows = [
        f"| `{key}` | {_type(one)} | {_default(one, required=key in required)} "
        f"| {_cell(one.get('description', ''))} | {_example(one)} |"
        for key, one in model["properties"].items()
    ]
    head = ["| key | type | default | what it means | for example |", "|---|---|---|---|---|"]
    text = " ".join(str(model["description"]).split()).replace("``", "`")
    return "\n".join([f"## {title}", "", text, "", *head, *rows, ""])


def _type(one: Schema) -> str:
    """Say in words what a value may be."""
    several = one.get("anyOf") or one.get("oneOf")
    if several:
        return " or ".join(_type(each) for each in several if each != {"type": "null"})
    if "$ref" in one:
        return _referred(str(one["$ref"]).rpartition("/")[2])
    if "enum" in one or "const" in one:
        return _words(one.get("enum") or [one["const"]])
    return _plain(one)


def _plain(one: Schema) -> str:
    match one["type"]:
        case "array":
            return f"list of {_type(one['items'])}{_counted(one)}"
        case "object":
            return f"mapping of text to {_type(one['additionalProperties'])}"
        case "string":
            return "text"
        case "integer":
            return f"whole number{_bounds(one)}"
        case kind:
            return f"{kind}{_bounds(one)}"


def _referred(name: str) -> str:
    definition = _definitions(json_schema())[name]
    if "enum" in definition:
        return _words(definition["enum"])
    # a section of the models that is not among ours ends the program: it would be left out
    title = {model: title for title, model in _SECTIONS}[name]
    return f"mapping ({title})"


def _words(values: list[Any]) -> str:
    texts = (value if isinstance(value, str) else json.dumps(value) for value in values)
    return ", ".join(f"`{text}`" for text in texts)


def _counted(one: Schema) -> str:
    least, most = one.get("minItems"), one.get("maxItems")
    if least is not None and least == most:
        return f", {least} of them"
    return ", at least 1" if least else ""


def _bounds(one: Schema) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {one[name]:,}" for name, sign in signs.items() if name in one]
    return f" {', '.join(found)}" if found else ""


def _default(one: Schema, *, required: bool) -> str:
    if required:
        return "**needed**"
    value = one.get("default")
    if value is None:
        return "none"
    # a section that is left out is one whose keys are left out
    return "of its keys" if isinstance(value, dict) else f"`{json.dumps(value)}`"


def _example(one: Schema) -> str:
    return "<br>".join(f"`{_flow(each)}`" for each in one.get("examples", ()))


def _flow(value: object) -> str:
    """Write a value as YAML in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(each) for each in value) + "]"
    quoted = isinstance(value, str) and any(each in value for each in " :'[]{},")
    return json.dumps(value) if quoted else str(value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _options() -> str:
    lines = ["## Options of the backends, as further axes", ""]
    lines += [
        "An option that the backend would ignore is refused: its trials would be duplicates."
    ]
    lines += [
        "",
        "| backend | option | default | values | what it does |",
        "|---|---|---|---|---|",
    ]
    for name, option in _options_of_backends():
        values = _words(list(option.choices)) or f"an integer ≥ {option.least}"
        default = json.dumps(option.default)
        lines.append(f"| {name} | `{option.name}` | `{default}` | {values} | {option.help} |")
    return "\n".join([*lines, ""])


def _options_of_backends() -> Iterator[tuple[str, Option]]:
    for name in _BACKENDS:
        for option in backend_named(name).capabilities().options:
            yield f"`{name}`", option
    for name, sides in _SIDES.items():
        for option in dict.fromkeys(chain(*sides.values())):
            only = [side for side, options in sides.items() if option in options]
            yield f"`{name}`{f' {only[0]} alone' if len(only) == 1 else ''}", option


def _metrics() -> str:
    lines = ["## Metrics, for `objectives` and `constraints`", ""]
    lines += ["| metric | what tables call it | better |", "|---|---|---|"]
    better = {"minimize": "lower", "maximize": "higher"}
    lines += [
        f"| `{one.name}` | {one.label} | {better[one.direction]} |" for one in METRICS.values()
    ]
    return "\n".join([*lines, ""])


def _refusals() -> str:
    lines = ["## What is refused, and how", ""]
    lines += ["The file above with one slip each, as `trifront check` answers it:", ""]
    lines += ["| the slip | the answer |", "|---|---|"]
    lines += [
        f"| `{_shown(wrong)}` | {_cell(answer)} |"
        for (_, wrong), answer in zip(_SLIPS, _answers(), strict=True)
    ]
    return "\n".join([*lines, ""])


def _shown(text: str) -> str:
    return text.strip("\n").replace("\n", " ⏎ ").replace("\t", "⇥")


def _answers() -> Iterator[str]:
    with TemporaryDirectory() as folder, chdir(folder):
        path = Path("space.yaml")
        path.write_text(_EXAMPLE, encoding="utf-8")
        space_from_yaml(path)  # or the slips would not be what is wrong
        for right, wrong in _SLIPS:
            path.write_text(_EXAMPLE.replace(right, wrong, 1), encoding="utf-8")
            try:
                space_from_yaml(path)
            except SpaceError as error:
                yield str(error).removeprefix(f"{path}: ")
            else:
                raise ValueError(f"{wrong!r} is not refused")


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--to", type=Path, default=PAGE)
    chosen = parser.parse_args()
    draft = chosen.to.with_name(f"{chosen.to.name}.{os.getpid()}")
    draft.write_text(page(), encoding="utf-8")
    draft.replace(chosen.to)


if __name__ == "__main__":
    main()
