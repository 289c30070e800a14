"""Whether two engines answer alike: outputs within a bound, predictions one by one. Pure.

The same engine on the same kind of machine with the same library answers bit by bit alike, and any
difference is a fault. An engine that was built anew (for another processor, by another version)
sums in another order, so its answers are held against a bound that depends on the precision:

    deviation = largest |new - old| of an output / largest |old| of that output

Seen on ONNX Runtime with six classifiers, 512 samples and engines of other kernels (each level of
graph optimization): at most 4e-7 in fp32, 1e-6 in fp16 and 0.024 in int8, where two predictions
changed; dynamic int8 in other batches 0.037. The bounds leave room for other processors, and a
wrong model, input or order of samples exceeds them many times. Outputs that are not floating
point (class numbers, say) must be equal but for a share of 1 %.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_spaces.deployment import Precision
from trials.backend import Tensors
from trials.data.npz import Array
from trials.errors import OutputError

TOLERANCES: Mapping[Precision, float] = {
    Precision.FP32: 1e-4,
    Precision.TF32: 1e-2,
    Precision.FP16: 2e-2,
    Precision.BF16: 1e-1,
    Precision.INT8: 1e-1,
    Precision.INT8_DYNAMIC: 1e-1,
    Precision.FP8: 2e-1,
    Precision.INT4: 2e-1,
}
"""Largest deviation of an engine that was built anew, as a share of the largest answer."""

_DIFFERENT_SHARE = 0.01  # of answers that are no floating point numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """One output of two engines.

    Attributes:
        output: Its name.
        deviation: Largest |new - old| / largest |old|; of other than floating point numbers the
            share that differs.
        bound: What it may be; 0.0 where the answers must be the same bit by bit.
    """

    output: str
    deviation: float
    bound: float

    @property
    def holds(self) -> bool:
        """Tell whether the answers agree within the bound."""
        return self.deviation <= self.bound


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """Predicted classes of two engines on the same samples.

    Attributes:
        agree: On how many samples both predict the same class.
        hits_old: Which ones the old engine got right, shape ``(samples,)``; likewise ``hits_new``.
    """

    agree: int
    hits_old: NDArray[np.bool_]
    hits_new: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.hits_old)


def agreements(
    new: Tensors, old: Tensors, *, precision: Precision, identical: bool
) -> tuple[Agreement, ...]:
    """Compare the answers to the same samples, output by output.

    Args:
        new: Arrays of shape ``(samples, …)``; likewise ``old``.
        old: What they are held against.
        precision: Of both engines.
        identical: The same engine, machine and library: nothing may differ.

    Raises:
        OutputError: Other outputs, or another shape or type.
    """
    if new.keys() != old.keys():
        raise OutputError(
            f"the engine has the outputs {', '.join(new)}; recorded were {', '.join(old)}"
        )
    return tuple(
        _agreement(name, new[name], old[name], 0.0 if identical else _bound(old[name], precision))
        for name in old
    )


def predictions(new: Array, old: Array, labels: NDArray[np.int64]) -> Predictions:
    """Compare predicted classes, sample by sample.

    Args:
        new: Class scores of shape ``(samples, classes)``; likewise ``old``.
        old: What they are held against.
        labels: Shape ``(samples,)``.
    """
    chosen_new, chosen_old = new.argmax(axis=1), old.argmax(axis=1)
    return Predictions(
        agree=int(np.count_nonzero(chosen_new == chosen_old)),
        hits_old=chosen_old == labels,
        hits_new=chosen_new == labels,
    )


def _bound(old: Array, precision: Precision) -> float:
    return TOLERANCES[precision] if old.dtype.kind == "f" else _DIFFERENT_SHARE


def _agreement(name: str, new: Array, old: Array, bound: float) -> Agreement:
    if new.shape != old.shape or new.dtype != old.dtype:
        raise OutputError(
            f"output {name!r} is {new.dtype.name} {new.shape}; recorded was {old.dtype.name} "
            f"{old.shape}"
        )
    return Agreement(output=name, deviation=_deviation(new, old), bound=bound)


def _deviation(new: Array, old: Array) -> float:
    """Say how far the answers are apart; infinite where one has a NaN and the other has not."""
    if new.tobytes() == old.tobytes():
        return 0.0
    if old.dtype.kind != "f":
        return float(np.mean(new != old))
    now, then = new.astype(np.float64), old.astype(np.float64)
    largest = float(np.abs(then).max())
    furthest = float(np.abs(now - then).max())
    if not np.isfinite(furthest) or not np.isfinite(largest):
        return float("inf")
    if furthest == 0.0:  # -0.0 and 0.0 have other bits and the same value
        return 0.0
    return furthest / largest if largest > 0 else float("inf")
