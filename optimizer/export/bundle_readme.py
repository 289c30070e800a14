"""The README of an exported bundle: what it is, and how to load it in ten lines."""

from optimizer.front.words import short, text_of
from optimizer.study.records import TrialRecord
from search_spaces.space import SearchSpace
from trials.outcome import Completed


def readme_of(record: TrialRecord, space: SearchSpace) -> str:
    """Write a bundle's README in Markdown."""
    outcome = record.outcome
    assert isinstance(outcome, Completed)
    measured = "\n".join(
        f"- {objective.metric.label}: {text_of(outcome.metric(objective.metric.name))}"
        for objective in space.objectives
    )
    return f"""\
# {short(outcome.deployment)}

Trial {record.number} of study {record.study}, exported by trifront. `manifest.json` says
everything: digests, every metric, the machine, the data. Measured with batch size
{outcome.deployment.batch_size} and concurrency {outcome.deployment.concurrency},
with 95 % intervals:

{measured}

Inputs as they were measured: {space.task.preprocessing.in_words()}.

{_loading(space, outcome)}
"""


def _loading(space: SearchSpace, outcome: Completed) -> str:
    if space.backend != "ort":
        return f"`engine.*` is an engine of backend `{space.backend}`; trifront loads it."
    options = dict(outcome.deployment.options)
    spinning = "1" if options.get("spinning", True) else "0"
    by_input = not isinstance(space.task.preprocessing.dtype, str)
    feed = "batch" if by_input else "{session.get_inputs()[0].name: batch}"
    return f"""\
`engine.onnx` is optimized for the CPU that measured it, and runs as it is:

```python
import onnxruntime as ort

options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it is done
options.intra_op_num_threads = {int(options.get("threads", 1))}
options.inter_op_num_threads = 1
options.add_session_config_entry("session.intra_op.allow_spinning", "{spinning}")
session = ort.InferenceSession("engine.onnx", options, providers=["CPUExecutionProvider"])
outputs = session.run(None, {feed}){"  # arrays by input" if by_input else ""}
```

`model.onnx` is what it was made from, for any other machine: `ort.InferenceSession("model.onnx")`.
"""
