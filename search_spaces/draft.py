"""The first space file for a user's own model, as `trifront init` writes it.

A draft is read by somebody who has never seen a space file, so every section says what it is for
and what else could stand there. It is a good first search on a CPU: a few hundred points that a
budget of forty trials explores well.
"""

import json
import re
from dataclasses import dataclass

from search_spaces.space import is_floating

_MOST_BATCH = 32  # beyond it a CPU gains no throughput and loses latency
_LONGEST_NAME = 64
_BYTE = 0.00392156862745098  # 1/255, to the digits that a double holds
_FEW_SAMPLES = 1_000  # 450 of them searched: accuracy is known to ±3 points at best

_READ_OTHERWISE = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}  # by YAML 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftInput:
    """One input of the model.

    Attributes:
        dtype: NumPy name of its type.
        shape: With the batch dimension; None is a free dimension.
        stored: NumPy name of the type that its samples are stored in, None where there are none.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    stored: str | None

    def __str__(self) -> str:
        sizes = ", ".join("free" if size is None else str(size) for size in self.shape)
        return f"{_quoted(self.name)} {self.dtype} ({sizes})"


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftFacts:
    """What a look into the model and the data has found.

    Attributes:
        name: What the space shall be called; made into a valid name.
        model: Path of the ONNX file as the space file shall name it.
        inputs: Inputs of the model, >= 1.
        opset: Version of the default operator set.
        fixed_batch: The only batch size that the model takes, None where it is free.
        data: Path of the npz file or image folder as the space file shall name it.
        samples: Number of samples.
        classes: Number of classes, None where the labels are none; then a custom task is drafted.
        cores: CPU cores that may be used here, >= 1.
        images: (height, width) and color that the model takes, None where the data are no images.
    """

    name: str
    model: str
    inputs: tuple[DraftInput, ...]
    opset: int
    fixed_batch: int | None
    data: str
    samples: int
    classes: int | None
    cores: int
    images: tuple[tuple[int, int], str] | None = None


def draft_yaml(facts: DraftFacts) -> str:
    """Write a commented space file that ``space_from_yaml`` reads, given that the files are there.

    For labels that are no classes the task names a function ``my_metric:score``, which the user
    still has to write.
    """
    sections = (
        _head(facts),
        _task(facts),
        _variants(facts),
        _axes(facts),
        _wishes(facts),
        _MEASURE,
    )
    return "\n".join(sections)


def _head(facts: DraftFacts) -> str:
    return f"""\
# A deployment space: what may be deployed, what is wanted of it, how it is measured.
#
# Drafted by `trifront init`; change what you like. `trifront schema` prints every key and what it
# takes. Paths start at this file's folder.
version: 1
name: {_quoted(_name(facts.name))} # also the name of the study
backend: ort # ONNX Runtime on the CPU; `fake` needs no model and shows how a search goes
"""


def _task(facts: DraftFacts) -> str:
    few = (
        "\n  # Few samples: intervals of the scores will be wide. More data is the best next step."
        if facts.samples < _FEW_SAMPLES
        else ""
    )
    return f"""\
# What the model is for and how well it does it. The data are cut into three disjoint splits:
# `calibration` sets the scales of int8 and fp8, ranks layers for keep_layers and checks each
# conversion, `search` gives the scores that the search sees, `report` is opened at the end, for
# the front members alone.
task:
{_kind(facts)}
  # {facts.samples:,} samples. Three files instead of one cut:
  # data: {{calibration: calibration.npz, search: search.npz, report: report.npz}}{few}
  data:
    path: {_quoted(facts.data)} # arrays `inputs`, `labels` and, for scores by group, `cohorts`
    split: {{calibration: 0.1, search: 0.45, report: 0.45, seed: 0}}
{_preprocess(facts)}"""


def _kind(facts: DraftFacts) -> str:
    if facts.classes is not None:
        return f"""\
  kind: classification # {facts.classes} classes; anything else: kind: custom with a metric"""
    return """\
  # The labels are no classes, so the score is yours: a function that takes the outputs (arrays by
  # name) and the labels and returns one score per sample, higher is better. Write it in
  # my_metric.py where Python finds it. For classes: kind: classification, without metric.
  kind: custom
  metric: my_metric:score"""


def _preprocess(facts: DraftFacts) -> str:
    bytes_wanted_as_floats = any(
        each.stored == "uint8" and is_floating(each.dtype) for each in facts.inputs
    )
    scale, reason = (_BYTE, "1/255: bytes to [0, 1]") if bytes_wanted_as_floats else (1.0, "as is")
    described = "; ".join(str(each) for each in facts.inputs)
    size, color = facts.images or ((224, 224), "rgb")
    optional = "# " if facts.images is None else ""
    return f"""\
  # From stored samples ({_stored(facts)}) to model inputs: (x * scale - mean) / std.
  # The model wants {described}.
  # Give it what it was trained with, or the accuracy will be low for no good reason.
  preprocess:
    dtype: {_types(facts)}
    scale: {scale!r} # {reason}
    # mean: [0.485, 0.456, 0.406] # one per channel
    # std: [0.229, 0.224, 0.225]
    {optional}size: {_list(list(size))} # height and width, for a folder of images
    {optional}color: {color} # rgb or gray, for a folder of images
"""


def _stored(facts: DraftFacts) -> str:
    """Say in what types the samples are stored; by input where they differ."""
    found = {each.name: each.stored for each in facts.inputs if each.stored is not None}
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return ", ".join(f"{_quoted(name)} {dtype}" for name, dtype in found.items()) or "none"


def _types(facts: DraftFacts) -> str:
    """Write the inputs' type, or a mapping where they are of several."""
    if len({each.dtype for each in facts.inputs}) == 1:
        return facts.inputs[0].dtype
    each = ", ".join(f"{_quoted(one.name)}: {one.dtype}" for one in facts.inputs)
    return f"{{{each}}} # scale, mean and std are for the floating ones"


def _variants(facts: DraftFacts) -> str:
    return f"""\
# The models that could be deployed. Add smaller and larger siblings: the trade between accuracy
# and speed is mostly made here. Each is known by its content, never by its name.
variants:
  - name: {_quoted(_name(facts.name))}
    onnx: {_quoted(facts.model)} # opset {facts.opset}
  # - {{name: smaller, onnx: smaller.onnx}}
  # - name: from-torch
  #   torch: {{factory: "module:function", weights: w.safetensors, input_shape: {_sample(facts)}}}
"""


def _sample(facts: DraftFacts) -> str:
    """Write the shape of one sample as the model takes it, or an example where it says none."""
    sizes = [size for size in facts.inputs[0].shape[1:] if isinstance(size, int)]
    known = len(sizes) == len(facts.inputs[0].shape) - 1
    return _list(sizes) if sizes and known else "[3, 224, 224]"


def _axes(facts: DraftFacts) -> str:
    lanes = _list(_powers(facts.cores))
    if facts.fixed_batch is None:
        batch_sizes = f"{_list(_powers(_MOST_BATCH))} # samples per request"
    else:
        batch_sizes = (
            f"[{facts.fixed_batch}] # the model takes no other; export it with a free batch"
        )
    return f"""\
# The dimensions of the space. Every combination that the rules allow is a deployment.
axes:
  # Also: int8-dynamic (no calibration, pays on matrix products), fp16 (half the file, on a CPU
  # rarely faster).
  precision: [fp32, int8]
  batch_size: {batch_sizes}
  concurrency: {lanes} # requests in flight at once
  threads: {lanes} # threads inside one request; any key like this is an option of the backend

# What must hold between axes: arithmetic, comparisons, and, or, not, in; text in quotes.
rules:
  - concurrency * threads <= {facts.cores} # more busy threads than cores only wait
  # - precision != 'int8' or batch_size >= 4
"""


def _wishes(facts: DraftFacts) -> str:
    score = "score" if facts.classes is None else "accuracy"
    return f"""\
# What is wanted. Also: latency_p50_ms, latency_p999_ms, peak_memory_mb, engine_size_mb, load_ms.
objectives:
  latency_p99_ms: minimize
  throughput_sps: maximize
  {score}: maximize

# Bounds that a deployment must meet to be on the front; the first lines to make your own.
constraints: [] # such as [{score} >= 0.9, latency_p99_ms <= 15]
"""


_MEASURE = """\
# How long and how well each deployment is measured. Targets are relative half-widths of the 95 %
# intervals: measuring stops when they are reached, or at max_s.
measure:
  target_p50: 0.02
  target_p99: 0.1
  target_throughput: 0.02
  max_s: 3 # seconds of load per deployment
  deadline_s: 120 # a trial that takes longer is killed and counts as failed
  # max_memory_mb: 4096 # a deployment that needs more is infeasible
  seed: 0
"""


def _powers(most: int) -> list[int]:
    """List the powers of two below ``most``, and ``most`` itself."""
    return [2**power for power in range((most - 1).bit_length())] + [most]


def _list(values: list[int]) -> str:
    return f"[{', '.join(map(str, values))}]"


def _name(text: str) -> str:
    kept = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")
    return kept[:_LONGEST_NAME] or "my-model"


def _quoted(text: str) -> str:
    """Write text as a YAML scalar: plain where that is safe, else in double quotes."""
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_/.-]*", text) is not None
    if plain and text.casefold() not in _READ_OTHERWISE:
        return text
    # JSON's strings are YAML's, but for the characters that YAML takes for line breaks or refuses
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in quoted)
