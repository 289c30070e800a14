"""Which layers suffer most from a precision: each is lowered alone, on real samples.

Two signals, because one does not do. *Accuracy* is what is wanted, but of some thousand samples it
is coarse: paired on the same samples, its difference mostly cannot be told from chance. The *ratio
of signal to noise* of the outputs is fine, and says nothing of what the noise costs. So layers
whose loss is certain come first, and the others follow by their noise.

The lowered models are run on the CPU, unoptimized (``models.rehearsal``): their arithmetic is
that of the file and not of a device's fused kernels. That ranks layers; it scores no deployment.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from search_spaces.space import Preprocessing, Task
from trials.backend import Tensors, TensorSpec
from trials.data.dataset import Split
from trials.errors import OutputError
from trials.measurement import Estimate
from trials.models.fidelity import signal_to_noise_db
from trials.models.rehearsal import Rehearsal
from trials.scoring.paired import PairedDifference, holm, paired_difference
from trials.scoring.scoring import Marks, mark_engine

if TYPE_CHECKING:
    from onnx import ModelProto

RECIPE = 2  # part of a stored effect's key; to be raised when the same model would say otherwise

_BATCH = 64  # samples a call where the model takes any batch size
_CERTAIN = 0.05  # doubt below which a difference is no chance


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerEffect:
    """What lowering does to the answers.

    Attributes:
        layer: Name of the only layer that was lowered; empty where all were.
        metric: ``accuracy`` or ``score``.
        change: Lowered minus fp32, paired on the same samples; None without usable answers.
        signal_to_noise_db: Of the outputs, decibels; infinite where nothing differs.
        problem: What made the answers unusable; empty where they are not.
    """

    layer: str
    metric: str
    change: PairedDifference | None
    signal_to_noise_db: float
    problem: str = ""

    @property
    def is_certain_loss(self) -> bool:
        """Tell whether it costs accuracy beyond chance; of several layers, once ``ranked``."""
        if self.change is None:
            return True
        return self.change.difference.value < 0 and self.change.doubt < _CERTAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Yardstick:
    """Samples with a task: how models are asked and scored.

    Attributes:
        inputs: The model's.
        fixed_batch: The only batch that the model takes, None where any will do.
        source: The space file, for messages.
    """

    split: Split
    task: Task
    preprocessing: Preprocessing
    inputs: tuple[TensorSpec, ...]
    fixed_batch: int | None
    source: str

    def asked(self, model: "ModelProto") -> "Asked":
        """Run the whole split through a model and score each sample.

        Raises:
            OutputError: Answers that are not finite or not of the shape that the task needs.
            UnsupportedError: The model cannot be run on the CPU.
        """
        rehearsal, heard = Rehearsal(model), list[Tensors]()

        def infer(inputs: Tensors) -> Tensors:
            heard.append(rehearsal.answers([inputs]))
            return heard[-1]

        marks = mark_engine(
            infer,
            self.inputs,
            self.split,
            task=self.task,
            preprocessing=self.preprocessing,
            batch_size=self.fixed_batch or _BATCH,
            source=self.source,
        )
        return Asked(marks=marks, answers=tuple(heard))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """What a model said to a split.

    Attributes:
        marks: Scores of each sample.
        answers: Outputs of each call, by name.
    """

    marks: Marks
    answers: tuple[Tensors, ...]


def effect_of(layer: str, model: "ModelProto", fp32: Asked, yardstick: Yardstick) -> LayerEffect:
    """Hold a lowered model against the original.

    Args:
        layer: The only one that is lowered in it; empty where all are.
        model: The lowered model.
        fp32: What the original said.
        yardstick: What both are asked.

    Raises:
        UnsupportedError: The model cannot be run on the CPU.
    """
    metric = fp32.marks.metric
    try:
        lowered = yardstick.asked(model)
    except OutputError as error:  # the narrow type overflows: no layer is more sensitive
        return LayerEffect(
            layer=layer,
            metric=metric,
            change=None,
            signal_to_noise_db=-math.inf,
            problem=str(error),
        )
    return LayerEffect(
        layer=layer,
        metric=metric,
        change=paired_difference(lowered.marks.scores, fp32.marks.scores),
        signal_to_noise_db=min(map(signal_to_noise_db, lowered.answers, fp32.answers)),
    )


def ranked(effects: Sequence[LayerEffect]) -> tuple[LayerEffect, ...]:
    """Order effects from the most sensitive layer to the least; equal ones as they were.

    Among fifty layers, two or three that cost nothing would be below 5 % by chance. So the doubts
    are raised by Holm's rule first: where no layer costs anything, in at most 5 % of rankings
    any is told as a certain loss.

    Args:
        effects: One for each layer, as :func:`effect_of` found it.

    Returns:
        The same with raised doubts, in order.
    """
    alone = {one.layer: one.change for one in effects if one.change is not None}
    doubts = holm({layer: change.doubt for layer, change in alone.items()})
    together = {layer: replace(change, doubt=doubts[layer]) for layer, change in alone.items()}
    held = [replace(one, change=together.get(one.layer)) for one in effects]
    return tuple(sorted(held, key=_standing))


def _standing(effect: LayerEffect) -> tuple[float, float]:
    if effect.change is None:
        return (-math.inf, 0.0)
    loss = effect.change.difference.value if effect.is_certain_loss else 0.0
    return (loss, effect.signal_to_noise_db)


def json_from_effect(effect: LayerEffect) -> str:
    """Serialize an effect; floats keep every digit."""
    return json.dumps(asdict(effect))  # with Python's own Infinity, for the store alone


def effect_from_json(text: str) -> LayerEffect:
    """Read an effect back.

    Raises:
        KeyError: A field is missing: the file is of another version.
        json.JSONDecodeError: Not JSON.
    """
    raw = json.loads(text)
    change = raw["change"]
    if change is not None:
        change = PairedDifference(**{**change, "difference": Estimate(**change["difference"])})
    return LayerEffect(
        layer=raw["layer"],
        metric=raw["metric"],
        change=change,
        signal_to_noise_db=raw["signal_to_noise_db"],
        problem=raw["problem"],
    )
