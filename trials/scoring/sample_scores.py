"""The main score of every sample, packed small enough to travel with a trial's record.

Two engines that were scored on the same samples are compared sample by sample: on the same 3,000
images the difference of two accuracies is known several times better than either of them. That
needs to be known of each sample, not only of their mean.
"""

import base64
import zlib
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trials.measurement import SampleScores

# of scores that are numbers and not hits: 4 bytes each would swell the study's database
_MOST_NUMBERS = 4_096


def packed(scores: NDArray[np.float64] | NDArray[np.bool_]) -> SampleScores | None:
    """Pack one score per sample; None where they would be too large to keep.

    Hits and misses take a bit each. Other scores are kept as float32, up to 4,096 of them.

    Args:
        scores: Shape ``(samples,)``, in the order of the split.
    """
    values = np.asarray(scores, dtype=np.float64)
    kind: Literal["bits", "float32"]
    if np.isin(values, (0.0, 1.0)).all():
        content, kind = np.packbits(values.astype(bool)).tobytes(), "bits"
    elif values.size <= _MOST_NUMBERS:
        content, kind = values.astype("<f4").tobytes(), "float32"
    else:
        return None
    text = base64.b85encode(zlib.compress(content, level=9)).decode("ascii")
    return SampleScores(samples=values.size, kind=kind, text=text)


def unpacked(scores: SampleScores) -> NDArray[np.float64]:
    """Return one score per sample, shape ``(samples,)``.

    Raises:
        ValueError: Not what :func:`packed` wrote.
    """
    try:
        content = zlib.decompress(base64.b85decode(scores.text))
    except (zlib.error, ValueError) as error:
        raise ValueError(f"{scores.samples} packed scores cannot be read: {error}") from error
    if scores.kind == "bits":
        bits = np.frombuffer(content, dtype=np.uint8)
        values = np.unpackbits(bits, count=scores.samples).astype(np.float64)
    else:
        values = np.frombuffer(content, dtype="<f4").astype(np.float64)
    if values.size != scores.samples:
        raise ValueError(f"{values.size} scores are packed, {scores.samples} were promised")
    return values
