"""The laws behind generated tables: what made-up engines cost, weigh and do under load.

Per engine (variant × precision × build option):

- a batch takes ``call + max(memory, compute · batch) · serial`` seconds, the maximum rounded off:
  below the knee the weights are read whatever the batch is (roofline, Williams, Waterman &
  Patterson 2009), beyond it time is affine in the batch;
- threads (or streams) help by Amdahl's law (Amdahl 1967);
- concurrency follows the Universal Scalability Law (Gunther 2007), more contended with more
  threads; throughput is ``batch · concurrency / latency`` (Little 1961);
- the tail grows as the system saturates;
- memory is weights plus activations for each sample in flight, and ends in a cliff;
- builds take tens of seconds, as TensorRT's do, longer for larger models and higher levels.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from optimizer.replaying.table import Codes, Column

PRECISIONS = ("fp32", "fp16", "int8", "fp8", "int8-dynamic", "bf16")

_SPEEDUP = np.array([1.0, 1.9, 3.1, 2.9, 1.5, 1.8])  # of large models, likewise by precision
_LOSS = np.array([0.0, 3e-4, 6e-3, 4e-3, 9e-3, 8e-4])  # of accuracy
_WIDTH_BYTES = np.array([4, 2, 1, 1, 1, 2])
_SMALLEST, _LARGEST = -4.3, -2.3  # decades of seconds a sample takes at fp32: 50 µs to 5 ms
_HALF_SPEEDUP_S = 2e-4  # a sample of this length gets half of the possible speed-up
_CALL_S = 2e-5  # fixed cost of any request
_SERIAL = 0.15  # Amdahl's 1 − p
_CORES = 8  # threads beyond these do not help
_COHERENCE = 0.004  # Gunther's kappa
_RUNTIME_MB = 60.0  # memory without any model
_SHARPNESS = 4.0  # of the knee: both slopes within 20 % of the maximum at the corner

_PerEngine: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Engines:
    """Made-up engines, each array of shape ``(variants, precisions, builds)``.

    Attributes:
        compute_s: Of one more sample in a large batch, seconds.
        memory_s: Of reading the weights, which a small batch waits for, seconds.
        accuracy: In [0, 1].
        weight_mb: Of the weights.
        contention: Gunther's sigma with one thread a request.
        convert_s: Of the model, the same for all builds; likewise ``refused``.
        build_s: Of the engine; likewise ``score_s``.
        refused: The precision cannot be built of the variant.
    """

    compute_s: _PerEngine
    memory_s: _PerEngine
    accuracy: _PerEngine
    weight_mb: _PerEngine
    contention: _PerEngine
    convert_s: _PerEngine
    build_s: _PerEngine
    score_s: _PerEngine
    refused: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Serving:
    """How rows are served, each shape ``(rows,)``.

    Attributes:
        engine: Three index arrays, into the arrays of ``Engines``.
    """

    engine: tuple[Codes, Codes, Codes]
    batch: Column
    concurrency: Column
    threads: Column


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Speeds:
    """What rows do by the law, each shape ``(rows,)``.

    Attributes:
        tail: Of the 99th percentile over the median, > 1.
    """

    p50_s: Column
    tail: Column
    memory_mb: Column


def drawn_engines(
    shape: tuple[int, int, int], *, refused: float, random: np.random.Generator
) -> Engines:
    """Draw engines, larger variants being slower and better.

    Args:
        shape: Numbers of variants, precisions and builds.
        refused: Share of (variant, precision) pairs that cannot be built.
        random: Where chance comes from.
    """
    variants, precisions, builds = shape
    model = (variants, precisions, 1)
    decades = np.sort(random.uniform(_SMALLEST, _LARGEST, variants))[:, None, None]
    size_s, relative = 10**decades, (decades - _SMALLEST) / (_LARGEST - _SMALLEST)
    speedup, loss, width = (
        column[None, :precisions, None] for column in (_SPEEDUP, _LOSS, _WIDTH_BYTES)
    )
    level = np.arange(builds)[None, None, :]
    gain = size_s / (size_s + _HALF_SPEEDUP_S)
    faster = (1 + (speedup - 1) * gain) * (1 + 0.08 * level * random.uniform(0.2, 1.8, shape))
    compute_s = size_s / faster * _spread(0.1, shape, random)
    best = 0.78 + 0.17 * relative**0.7 + random.normal(0, 0.01, (variants, 1, 1))
    lost = loss * (1.5 - relative) * random.uniform(0.5, 1.5, model)
    cannot = random.random(model) < refused
    cannot[:, 0] = False  # every variant runs at full precision
    every = np.ones(shape)
    return Engines(
        compute_s=compute_s,
        memory_s=compute_s * random.uniform(1.5, 6.0, shape),
        # builds of one model differ in their last bits
        accuracy=np.clip(best - lost + random.normal(0, 2e-4, shape), 0.1, 0.999),
        weight_mb=400 * (size_s / 10**_LARGEST) ** 0.8 * width / 4 * every,
        contention=random.uniform(0.02, 0.12, shape),
        convert_s=(2 + 8 * relative) * _spread(0.3, model, random) * every,
        build_s=(8 + 40 * relative) * (1 + 0.8 * level) * _spread(0.3, shape, random),
        score_s=(1 + 2000 * compute_s) * _spread(0.1, shape, random),
        refused=np.broadcast_to(cannot, shape),
    )


def speeds_of(engines: Engines, serving: Serving) -> Speeds:
    """Return what rows do, by the law alone."""
    at = serving.engine
    compute_s = engines.compute_s[at] * serving.batch
    work_s = (compute_s**_SHARPNESS + engines.memory_s[at] ** _SHARPNESS) ** (1 / _SHARPNESS)
    serial = _SERIAL + (1 - _SERIAL) / np.minimum(serving.threads, _CORES)
    contention = np.minimum(0.9, engines.contention[at] * (1 + 0.8 * (serving.threads - 1)))
    others = serving.concurrency - 1
    slowdown = 1 + contention * others + _COHERENCE * serving.concurrency * others
    in_flight = serving.batch * serving.concurrency
    return Speeds(
        p50_s=(_CALL_S + work_s * serial) * slowdown,
        tail=1.05 + 0.9 * (1 - 1 / slowdown) ** 2,
        memory_mb=engines.weight_mb[at] * (1 + 0.25 * in_flight) + _RUNTIME_MB,
    )


def _spread(
    deviation: float, shape: tuple[int, ...], random: np.random.Generator
) -> NDArray[np.float64]:
    return np.exp(random.normal(0.0, deviation, shape))
