"""Plausible deployment tables of any size, for scale; nothing in them was measured.

The law, per engine (variant × precision × build option):

- a batch takes ``call + max(memory, compute · batch) · serial`` seconds: below the knee the
  weights are read whatever the batch (roofline, Williams et al. 2009), beyond it time is affine;
- threads (or streams) help by Amdahl's law;
- concurrency follows the Universal Scalability Law (Gunther 2007), more contended with more
  threads, and ``X = batch · C / R`` with the mean latency R (Little);
- the tail grows as the system saturates;
- memory is weights plus activations for each sample in flight, and ends in a cliff;
- builds take tens of seconds, as TensorRT's do, longer for larger models and lower precisions.

Each row deviates from the law by a lognormal factor of its own, so that no model of it is exact,
and each engine by one for all its rows.
"""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.replaying.table import (
    COMPLETED,
    INFEASIBLE,
    STATES,
    Codes,
    Column,
    DeploymentTable,
    Metrics,
    Origin,
    Prices,
    flat_positions,
)
from search_spaces.deployment import Precision, Scalar
from search_spaces.metrics import METRICS, Direction
from search_spaces.space import (
    Axis,
    FakeSource,
    MeasuringPlan,
    Objective,
    Preprocessing,
    SearchSpace,
    Task,
    TaskKind,
)

_PRECISIONS = ("fp32", "fp16", "int8", "fp8", "int8-dynamic", "bf16")  # the first few are taken
_SPEEDUP = {"fp32": 1.0, "fp16": 1.9, "int8": 3.1, "fp8": 2.9, "int8-dynamic": 1.5, "bf16": 1.8}
_LOSS = {"fp32": 0.0, "fp16": 3e-4, "int8": 6e-3, "fp8": 4e-3, "int8-dynamic": 9e-3, "bf16": 8e-4}
_WIDTH = {"fp32": 4, "fp16": 2, "int8": 1, "fp8": 1, "int8-dynamic": 1, "bf16": 2}  # bytes
_METRICS = ("latency_p50_ms", "latency_p99_ms", "throughput_sps", "accuracy", "peak_memory_mb")
_Z95 = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How large a table is and how rough.

    Attributes:
        seed: Of everything random.
        variants: Model variants, >= 1; likewise ``precisions`` (at most 6), ``builds`` (values of
            the option that changes the engine), ``batches`` and ``concurrencies`` (powers of two)
            and ``threads`` (powers of two).
        deviation: Standard deviation of the logarithm of each row's own factor.
        noise: Likewise of what measuring adds to the values in the table; 0 for none.
        memory_gb: Where deployments stop to fit.
        refused: Share of (variant, precision) pairs that cannot be built, in [0, 1).
    """

    seed: int = 0
    variants: int = 4
    precisions: int = 3
    builds: int = 2
    batches: int = 9
    concurrencies: int = 6
    threads: int = 3
    deviation: float = 0.03
    noise: float = 0.0
    memory_gb: float = 24.0
    refused: float = 0.1

    def __post_init__(self) -> None:
        assert 1 <= self.precisions <= len(_PRECISIONS), "only so many precisions are known"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Engines:
    """Numbers of every engine, each shape ``(variants, precisions, builds)``."""

    compute_s: NDArray[np.float64]
    memory_s: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    weight_mb: NDArray[np.float64]
    contention: NDArray[np.float64]
    convert_s: NDArray[np.float64]
    build_s: NDArray[np.float64]
    score_s: NDArray[np.float64]
    refused: NDArray[np.bool_]


def generated_table(recipe: Recipe) -> DeploymentTable:
    """Generate a table; the same for the same recipe, but for the time at which it was made."""
    random = np.random.default_rng(recipe.seed)
    space = _space(recipe)
    shape = tuple(len(axis.values) for axis in space.axes)
    positions = np.indices(shape).reshape(len(shape), -1).T.astype(np.int64)
    engines = _engines(recipe, random)
    models = positions[:, 0] * recipe.precisions + positions[:, 1]
    engine_codes = models * recipe.builds + positions[:, 4]
    at = (positions[:, 0], positions[:, 1], positions[:, 4])
    values, fits = _measured(recipe, space, positions, engines, random)
    is_refused = engines.refused[at]
    completed = fits & ~is_refused
    noise = np.exp(random.normal(0.0, recipe.noise, values.shape))
    noise[:, 3:] = 1.0  # an engine is scored and weighed exactly
    values = np.where(completed[:, None], values * noise, np.nan)
    width = np.exp(_Z95 * max(recipe.noise, 1e-3))
    width = np.where(np.arange(len(_METRICS)) < 3, width, 1.0)  # noqa: PLR2004 - the timed ones
    return DeploymentTable(
        space=space,
        origin=_origin(recipe),
        positions=positions,
        states=_states(completed),
        kinds=_words(completed, is_refused, "memory", "unsupported"),
        reasons=_words(
            completed,
            is_refused,
            f"it needs more than {recipe.memory_gb:g} GB; lower batch_size or concurrency",
            "the generated device does not build this precision of this variant",
        ),
        model_names=tuple(f"m{code}" for code in range(recipe.variants * recipe.precisions)),
        models=models,
        engine_names=tuple(f"e{code}" for code in range(int(engine_codes.max()) + 1)),
        engines=engine_codes,
        metrics=Metrics(names=_METRICS, values=values, lows=values / width, highs=values * width),
        prices=_prices(engines, at, completed, random),
        flat=flat_positions(positions, space),
    )


def _space(recipe: Recipe) -> SearchSpace:
    names = tuple(f"v{number}" for number in range(recipe.variants))
    precisions = tuple(Precision(one).value for one in _PRECISIONS[: recipe.precisions])

    def doubling(count: int) -> tuple[Scalar, ...]:
        return tuple(2**power for power in range(count))

    axes = (
        Axis(name="variant", values=names),
        Axis(name="precision", values=precisions),
        Axis(name="batch_size", values=doubling(recipe.batches)),
        Axis(name="concurrency", values=doubling(recipe.concurrencies)),
        Axis(name="build_level", values=tuple(range(1, recipe.builds + 1))),
        Axis(name="threads", values=doubling(recipe.threads)),
    )
    wanted = ("latency_p99_ms", "throughput_sps", "accuracy")
    return SearchSpace(
        name=f"generated-{recipe.seed}",
        source=f"generated-{recipe.seed}.yaml",
        backend="fake",
        task=Task(
            kind=TaskKind.CLASSIFICATION, metric=None, data=None, preprocessing=Preprocessing()
        ),
        variants=tuple(
            FakeSource(name=name, work_ms=1.0, accuracy=0.9, size_mb=10.0) for name in names
        ),
        axes=axes,
        rules=(),
        objectives=tuple(
            Objective(metric=METRICS[name], direction=Direction(METRICS[name].direction))
            for name in wanted
        ),
        constraints=(),
        plan=MeasuringPlan(),
    )


def _engines(recipe: Recipe, random: np.random.Generator) -> _Engines:
    shape = (recipe.variants, recipe.precisions, recipe.builds)
    names = _PRECISIONS[: recipe.precisions]
    size = np.sort(10 ** random.uniform(-4.3, -2.3, recipe.variants))[:, None, None]  # 50 µs–5 ms
    relative = (np.log10(size) + 4.3) / 2.0
    speed = np.array([_SPEEDUP[name] for name in names])[None, :, None]
    loss = np.array([_LOSS[name] for name in names])[None, :, None]
    width = np.array([_WIDTH[name] for name in names])[None, :, None]
    gain = size / (size + 2e-4)  # small models gain little from a lower precision
    level = np.arange(recipe.builds)[None, None, :]
    faster = 1 + 0.08 * level * random.uniform(0.2, 1.8, shape)
    own = np.exp(random.normal(0, 0.1, shape))
    compute_s = size / (1 + (speed - 1) * gain) / faster * own
    weight_mb = 400 * (size / 5e-3) ** 0.8 * width / 4 * np.ones(shape)
    accuracy = 0.78 + 0.17 * relative**0.7 + random.normal(0, 0.01, (recipe.variants, 1, 1))
    accuracy = accuracy - loss * (1.5 - relative) * random.uniform(0.5, 1.5, (*shape[:2], 1))
    accuracy = accuracy + random.normal(0, 2e-4, shape)  # builds differ in their last bits
    refused = random.random((*shape[:2], 1)) < recipe.refused
    refused[:, 0] = False  # every variant runs at full precision
    convert_s = (2 + 8 * relative) * np.exp(random.normal(0, 0.3, (*shape[:2], 1)))
    build_s = (8 + 40 * relative) * (1 + 0.8 * level) * np.exp(random.normal(0, 0.3, shape))
    return _Engines(
        compute_s=compute_s,
        memory_s=compute_s * random.uniform(1.5, 6.0, shape),
        accuracy=np.clip(accuracy, 0.1, 0.999),
        weight_mb=weight_mb,
        contention=random.uniform(0.02, 0.12, shape),
        convert_s=convert_s * np.ones(shape),
        build_s=build_s,
        score_s=(1 + 2000 * compute_s) * np.exp(random.normal(0, 0.1, shape)),
        refused=refused & np.ones(shape, dtype=bool),
    )


def _measured(
    recipe: Recipe,
    space: SearchSpace,
    positions: NDArray[np.int64],
    engines: _Engines,
    random: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the values of ``_METRICS``, shape ``(rows, metrics)``, and which rows fit."""
    at = (positions[:, 0], positions[:, 1], positions[:, 4])
    batch, lanes, threads = (
        np.array(space.axis(name).values, dtype=float)[positions[:, column]]
        for name, column in (("batch_size", 2), ("concurrency", 3), ("threads", 5))
    )
    serial = 0.15 + 0.85 / np.minimum(threads, 8)  # Amdahl
    work_s = np.logaddexp(  # a smooth maximum, in the logarithm
        4 * np.log(engines.memory_s[at]), 4 * np.log(engines.compute_s[at] * batch)
    )
    alone_s = 2e-5 + np.exp(work_s / 4) * serial
    contention = np.minimum(0.9, engines.contention[at] * (1 + 0.8 * (threads - 1)))
    slowdown = 1 + contention * (lanes - 1) + 0.004 * lanes * (lanes - 1)
    own = np.exp(random.normal(0, recipe.deviation, (len(positions), 2)))
    p50_ms = alone_s * slowdown * own[:, 0] * 1e3
    tail = 1.05 + 0.9 * (1 - 1 / slowdown) ** 2
    memory_mb = engines.weight_mb[at] * (1 + 0.25 * batch * lanes) + 60
    values = np.stack(
        [
            p50_ms,
            p50_ms * (1 + (tail - 1) * own[:, 1] ** 5),
            batch * lanes / p50_ms * 1e3,
            engines.accuracy[at],
            memory_mb,
        ],
        axis=1,
    )
    return values, memory_mb < recipe.memory_gb * 1e3


def _prices(
    engines: _Engines,
    at: tuple[Codes, Codes, Codes],
    completed: NDArray[np.bool_],
    random: np.random.Generator,
) -> Prices:
    rows = len(completed)
    load_s: Column = 0.2 + engines.weight_mb[at] / 1e3
    measure_s = random.uniform(2.0, 8.0, rows)  # until the intervals are narrow
    is_built = ~engines.refused[at]
    return Prices(
        convert_s=engines.convert_s[at],
        build_s=np.where(is_built, engines.build_s[at], 0.3 * engines.build_s[at]),
        score_s=np.where(is_built, engines.score_s[at], 0.0),
        load_s=np.where(is_built, load_s, 0.0),
        measure_s=np.where(completed, measure_s, 0.0),
        other_s=np.exp(random.normal(np.log(0.3), 0.2, rows)),
    )


def _states(completed: NDArray[np.bool_]) -> Codes:
    return np.where(completed, STATES.index(COMPLETED), STATES.index(INFEASIBLE)).astype(np.int64)


def _words(
    completed: NDArray[np.bool_], refused: NDArray[np.bool_], unfit: str, unbuilt: str
) -> tuple[str, ...]:
    words = ("", unfit, unbuilt)
    codes = np.where(completed, 0, np.where(refused, 2, 1))
    return tuple(words[code] for code in codes.tolist())


def _origin(recipe: Recipe) -> Origin:
    return Origin(
        study=f"generated by {recipe}",
        identity=f"generated-{recipe.seed}",
        space_file="",
        digests=(),
        environment=(),
        made_s=time.time(),
    )
