"""The converted models of a bench: made once, checked against the original, kept by content.

``keep_layers`` names how many of a variant's layers stay in fp32. Which ones is found by lowering
each layer alone on the calibration split, never on the samples that the search or the report
scores; every such effect is kept, so that the ranking goes on where it was interrupted and
``trifront precision-report`` sees the same numbers.
"""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from search_spaces.deployment import Precision
from search_spaces.space import Task
from trials.backend import Tensors
from trials.data.dataset import Dataset, LayerSplit, Split
from trials.data.feeding import feeds
from trials.errors import DataError, InputChangedError, UnsupportedError
from trials.models.fidelity import refuse_unfaithful
from trials.models.layers import Product
from trials.models.onnx_model import content_digest
from trials.models.precision import (
    OpenedLowering,
    converter_versions,
    keeps_file,
    needs_calibration,
    write_as_it_is,
)
from trials.models.signature import Signature
from trials.models.variants import Model
from trials.sensitivity import (
    RECIPE,
    Asked,
    LayerEffect,
    Yardstick,
    effect_from_json,
    effect_of,
    json_from_effect,
    ranked,
)
from trials.store.store import Obtained, Store

_BATCH = 32  # samples a call where the model takes any batch size
_CHECKED = 128  # samples that a converted model is held against the original on


class Conversions:
    """The models of one data set and task, in one store; for one thread."""

    def __init__(
        self, store: Store, dataset: Dataset, task: Task, *, metric_code: str | None, source: str
    ) -> None:
        """Take what conversions are made of.

        Args:
            store: Keeps them.
            dataset: Calibrates and checks them.
            task: Scores the effect of layers.
            metric_code: Digest of a custom metric's code.
            source: The space file, for messages.
        """
        self._store = store
        self._dataset = dataset
        self._task = task
        self._metric_code = metric_code
        self._source = source
        self._lowering: tuple[tuple[str, Precision], OpenedLowering] | None = None
        self._fp32: tuple[tuple[str, str], Asked] | None = None
        self._refusals: dict[tuple[str, Precision, int], UnsupportedError] = {}

    def converted(self, model: Model, precision: Precision, *, keep_layers: int = 0) -> Obtained:
        """Convert a variant, or find it in the store.

        What was refused before is refused again at once, for the same reason.

        Args:
            model: The variant, convertible.
            precision: What it is to compute in.
            keep_layers: How many of its most sensitive layers stay in fp32.

        Raises:
            UnsupportedError: It cannot be made, or no longer answers like the original.
            InputChangedError: The model file was replaced.
            StoreError: The store cannot be written.
        """
        asked = (model.digest, precision, keep_layers)
        if asked in self._refusals:
            raise self._refusals[asked]
        try:
            return self._obtained(model, precision, self._kept(model, precision, keep_layers))
        except UnsupportedError as error:  # memory may be there again later, support may not
            self._refusals[asked] = error
            raise

    def layers(self, model: Model, precision: Precision) -> tuple[Product, ...]:
        """List the layers that a precision lowers.

        Raises:
            UnsupportedError: The precision cannot be made of the model.
            StoreError: The store cannot be written.
        """

        def make(out: Path) -> None:
            found = self._opened(model, precision).layers
            _refuse_changed(model)
            out.write_text(json.dumps([asdict(one) for one in found]), encoding="utf-8")

        entry = self._store.obtain("layers", self._parts(model, precision), make).entry
        found = json.loads(entry.path.read_text(encoding="utf-8"))
        return tuple(Product(**one) for one in found)

    def effect(
        self, model: Model, precision: Precision, layer: str, split: LayerSplit
    ) -> LayerEffect:
        """Say what lowering one layer alone does; an empty name stands for all of them.

        Raises:
            DataError: There is no such split.
            UnsupportedError: The precision cannot be made of the model.
            StoreError: The store cannot be written.
        """
        samples = self._split(split)
        parts = self._parts(model, precision) | {
            "layer": layer,
            "samples": samples.digest,
            "task": [self._task.kind.value, self._task.metric, self._metric_code],
            "preprocessing": asdict(self._dataset.preprocessing),
            "effect_recipe": RECIPE,
        }

        def make(out: Path) -> None:
            yardstick = self._yardstick(model, samples)
            lowering = self._opened(model, precision)
            names = {one.name for one in lowering.layers}
            assert layer in {"", *names}, f"{precision} lowers no layer {layer!r}"
            lowered = lowering.keeping(names - {layer} if layer else ())
            fp32 = self._asked_in_fp32(model, yardstick)
            found = effect_of(layer, lowered, fp32, yardstick)
            _refuse_changed(model)
            out.write_text(json_from_effect(found), encoding="utf-8")

        entry = self._store.obtain("sensitivity", parts, make).entry
        return effect_from_json(entry.path.read_text(encoding="utf-8"))

    def _obtained(self, model: Model, precision: Precision, kept: list[str]) -> Obtained:
        parts = self._parts(model, precision) | ({"kept": kept} if kept else {})

        def make(out: Path) -> None:
            if keeps_file(precision):
                write_as_it_is(model.path, out)
                _refuse_changed(model)
                return
            self._opened(model, precision).write(out, kept)
            _refuse_changed(model)
            refuse_unfaithful(out, model.path, precision, self._checked_samples(model))

        return self._store.obtain("model", parts, make)

    def _kept(self, model: Model, precision: Precision, count: int) -> list[str]:
        """Name the most sensitive layers, sorted."""
        if count == 0:
            return []
        if keeps_file(precision):
            raise UnsupportedError(f"{precision} lowers no layer, so none can be kept")
        layers = self.layers(model, precision)
        if count >= len(layers):
            lowered = f"{len(layers)} layers" if len(layers) > 1 else "one layer"
            raise UnsupportedError(
                f"{precision} lowers {lowered} of '{model.name}', and keep_layers={count} would "
                "leave none of them lowered, which is fp32; a rule of the space leaves it out: "
                f"precision != '{precision}' or variant != '{model.name}' or keep_layers < "
                f"{len(layers)}"
            )
        effects = [self.effect(model, precision, one.name, "calibration") for one in layers]
        return sorted(one.layer for one in ranked(effects)[:count])

    def _parts(self, model: Model, precision: Precision) -> dict[str, object]:
        parts: dict[str, object] = {
            "variant": model.digest,
            "precision": precision.value,
            "converters": dict(converter_versions(precision)),
        }
        calibration = self._dataset.calibration if needs_calibration(precision) else None
        if calibration is not None:
            parts["calibration"] = calibration.digest
            parts["preprocessing"] = asdict(self._dataset.preprocessing)
        return parts

    def _opened(self, model: Model, precision: Precision) -> OpenedLowering:
        """Open a lowering, or take the one that was asked for last."""
        asked = (model.digest, precision)
        if self._lowering is not None and self._lowering[0] == asked:
            return self._lowering[1]
        calibration = self._calibration(model) if needs_calibration(precision) else []
        opened = OpenedLowering(model.path, precision, calibration=calibration)
        self._lowering = (asked, opened)
        return opened

    def _asked_in_fp32(self, model: Model, yardstick: Yardstick) -> Asked:
        import onnx

        asked = (model.digest, yardstick.split.digest)
        if self._fp32 is None or self._fp32[0] != asked:
            self._fp32 = (asked, yardstick.asked(onnx.load_model(model.path)))
        return self._fp32[1]

    def _yardstick(self, model: Model, split: Split) -> Yardstick:
        facts = _facts(model)
        return Yardstick(
            split=split,
            task=self._task,
            preprocessing=self._dataset.preprocessing,
            inputs=facts.inputs,
            fixed_batch=facts.batch_size,
            source=self._source,
        )

    def _split(self, name: LayerSplit) -> Split:
        found = {
            "calibration": self._dataset.calibration,
            "search": self._dataset.search,
        }[name]
        if found is None:
            raise DataError(
                f"{self._source}: task.data has no {name} split; add one, or use another split"
            )
        return found

    def _calibration(self, model: Model) -> list[Tensors]:
        calibration = self._dataset.calibration
        if calibration is None:
            return []
        size = _facts(model).batch_size or _BATCH
        return self._batches(calibration, model, size=size, count=len(calibration))

    def _checked_samples(self, model: Model) -> list[Tensors]:
        split = self._dataset.calibration or self._dataset.search
        size = _facts(model).batch_size or 1  # which models that fix it inside take, too
        return self._batches(split, model, size=size, count=min(_CHECKED, len(split)))

    def _batches(self, split: Split, model: Model, *, size: int, count: int) -> list[Tensors]:
        starts = range(0, count - size + 1, size) or range(1)  # whole batches only
        indices = [np.arange(start, start + size) % len(split) for start in starts]
        return [
            feeds(
                split.samples(chosen, self._dataset.preprocessing),
                _facts(model).inputs,
                source=self._source,
            )
            for chosen in indices
        ]


def _facts(model: Model) -> Signature:
    assert model.facts is not None, "only models that can be converted are"
    return model.facts


def _refuse_changed(model: Model) -> None:
    """See that what was just read is what the digest names, or it would be stored as such."""
    if content_digest(model.path) != model.digest:
        raise InputChangedError(
            f"{model.path}: variant '{model.name}' has changed since the search began; put the "
            "old file back and go on, or search the new one under another --study name"
        )
