"""Does a converted model still answer like the original? On real samples, before it is built.

The measure is the ratio of signal to noise of each floating output, in decibels::

    10 log10 ( sum old² / sum (new − old)² )

with the original's answers in fp32 as the signal. The bounds tell a conversion that went wrong
(wrong scales answer with as much noise as signal, 0 dB) from one that merely costs accuracy, which
is scored and traded off. Seen on four classifiers of clothes: fp16 55 dB and more, bf16 36, int8
29, int8-dynamic 32, fp8 21, int4 23. Outputs that are not floating point are left to the scores.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from search_spaces.deployment import Precision
from trials.backend import Tensors
from trials.errors import UnsupportedError
from trials.models.rehearsal import Rehearsal
from trials.scoring.calibration import Floats

LEAST_DB: Mapping[Precision, float] = {
    Precision.FP16: 30.0,
    Precision.BF16: 15.0,
    Precision.INT8: 6.0,  # noise of half the signal's amplitude
    Precision.INT8_DYNAMIC: 6.0,
    Precision.FP8: 6.0,
    Precision.INT4: 6.0,
}
"""Least ratio of signal to noise of a converted model, decibels."""


def signal_to_noise_db(new: Tensors, old: Tensors) -> float:
    """Return the worst ratio among the floating outputs, infinite where nothing differs.

    An output that is zero throughout in the original has no signal, and says nothing.

    Args:
        new: Arrays of shape ``(samples, …)`` by output name; likewise ``old``.
        old: The signal, finite.

    Returns:
        Decibels; minus infinity where the new answers are not finite.

    Raises:
        UnsupportedError: Other outputs, or another shape.
    """
    layouts = [{name: array.shape for name, array in each.items()} for each in (new, old)]
    if layouts[0] != layouts[1]:
        raise UnsupportedError(f"it answers {layouts[0]} where the original answers {layouts[1]}")
    ratios = [
        _ratio_db(new[name].astype(np.float64), old[name].astype(np.float64))
        for name in old
        if old[name].dtype.kind == "f"
    ]
    return min(ratios, default=math.inf)


def refuse_unfaithful(
    converted: Path, original: Path, precision: Precision, samples: Sequence[Tensors]
) -> None:
    """Hold a converted model against the original.

    Nothing is said where the original's own answers are not finite: that is for the scores.

    Args:
        converted: The model in that precision.
        original: What it was made of.
        precision: One that changes the file.
        samples: Batches by input name, at least one.

    Raises:
        UnsupportedError: Its answers differ by more than :data:`LEAST_DB` allows.
    """
    import onnx

    old, new = (
        Rehearsal(onnx.load_model(path)).answers(samples) for path in (original, converted)
    )
    if not all(np.isfinite(array).all() for array in old.values() if array.dtype.kind == "f"):
        return
    ratio_db, least_db = signal_to_noise_db(new, old), LEAST_DB[precision]
    if ratio_db < least_db:
        count = len(next(iter(old.values())))
        raise UnsupportedError(
            f"{original.name}: in {precision} its answers to {count} samples are no longer those "
            f"of fp32: {ratio_db:.1f} dB of signal over noise, and at least {least_db:g} dB are "
            f"wanted; leave {precision} out, or keep its most sensitive layers with keep_layers"
        )


def _ratio_db(new: Floats, old: Floats) -> float:
    if not np.isfinite(new).all():
        return -math.inf
    noise, signal = float(np.square(new - old).sum()), float(np.square(old).sum())
    return 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else math.inf
