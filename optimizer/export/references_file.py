"""References as a file: one compressed npz, which NumPy reads anywhere without trifront.

Arrays: ``inputs.<name>`` for each input of the engine and ``outputs.<name>`` for each output, both
of shape ``(samples, …)``, and ``labels``. With its inputs and labels it is also a data file that
a space could name. Nothing in it is pickled.
"""

from pathlib import Path

import numpy as np

from optimizer.errors import BundleError
from trials.data.npz import Array, arrays_in
from trials.errors import DataError
from trials.references import References

REFERENCES = "references.npz"

_INPUT, _OUTPUT, _LABELS = "inputs.", "outputs.", "labels"


def write_references(references: References, path: Path) -> None:
    """Write references.

    Raises:
        OSError: The disk refuses.
    """
    arrays: dict[str, Array] = {_LABELS: references.labels}
    arrays |= {f"{_INPUT}{name}": array for name, array in references.inputs.items()}
    arrays |= {f"{_OUTPUT}{name}": array for name, array in references.outputs.items()}
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_references(path: Path, *, batch_size: int) -> References:
    """Read references back.

    Args:
        path: The file.
        batch_size: In which they were answered; the manifest says it.

    Raises:
        BundleError: The file is damaged, or not one of references.
    """
    try:
        arrays = arrays_in(path)
    except DataError as error:
        raise BundleError(str(error), hint="copy or export it again") from error
    inputs = {
        name.removeprefix(_INPUT): array
        for name, array in arrays.items()
        if name.startswith(_INPUT)
    }
    outputs = {
        name.removeprefix(_OUTPUT): array
        for name, array in arrays.items()
        if name.startswith(_OUTPUT)
    }
    labels = arrays.get(_LABELS)
    lengths = {len(array) for array in arrays.values() if array.ndim}
    if labels is None or not inputs or not outputs or len(lengths) != 1 or lengths == {0}:
        raise BundleError(
            f"{path}: holds {', '.join(sorted(arrays)) or 'nothing'}, which are no references",
            hint="copy or export it again",
        )
    return References(inputs=inputs, outputs=outputs, labels=labels, batch_size=batch_size)
