"""Plausible deployment tables of any size, for scale; nothing in them was measured.

What engines do follows :mod:`optimizer.replaying.laws`. Each row deviates from them by a lognormal
factor of its own, so that no model of the laws is exact; noise of measuring may be added.
"""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.replaying.laws import PRECISIONS, Engines, Serving, drawn_engines, speeds_of
from optimizer.replaying.table import (
    COMPLETED,
    INFEASIBLE,
    STATES,
    DeploymentTable,
    Metrics,
    Origin,
    Prices,
    flat_positions,
)
from search_spaces.deployment import Scalar
from search_spaces.metrics import METRICS
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

_TIMED = ("latency_p50_ms", "latency_p99_ms", "throughput_sps")
_EXACT = ("accuracy", "peak_memory_mb")  # an engine is scored and weighed once
_OBJECTIVES = ("latency_p99_ms", "throughput_sps", "accuracy")
_Z95 = 1.96
_LEAST_NOISE = 1e-3  # no interval is narrower
_MB_PER_GB = 1e3


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
        assert 1 <= self.precisions <= len(PRECISIONS), "only so many precisions are known"


def generated_table(recipe: Recipe) -> DeploymentTable:
    """Generate a table; the same for the same recipe, but for the time at which it was made."""
    random = np.random.default_rng(recipe.seed)
    space = _space(recipe)
    shape = tuple(len(axis.values) for axis in space.axes)
    positions = np.indices(shape).reshape(len(shape), -1).T.astype(np.int64)
    engines = drawn_engines(
        (recipe.variants, recipe.precisions, recipe.builds), refused=recipe.refused, random=random
    )
    serving = _serving(space, positions)
    metrics, fits = _measured(recipe, engines, serving, random)
    refused = engines.refused[serving.engine]
    completed = fits & ~refused
    models = positions[:, 0] * recipe.precisions + positions[:, 1]
    return DeploymentTable(
        space=space,
        origin=_origin(recipe),
        positions=positions,
        states=np.where(completed, STATES.index(COMPLETED), STATES.index(INFEASIBLE)),
        kinds=_words(completed, refused, ("memory", "unsupported")),
        reasons=_words(completed, refused, _reasons(recipe)),
        model_names=_numbered("m", recipe.variants * recipe.precisions),
        models=models,
        engine_names=_numbered("e", engines.build_s.size),
        engines=models * recipe.builds + serving.engine[2],
        metrics=_without(metrics, completed),
        prices=_prices(engines, serving, completed, random),
        flat=flat_positions(positions, space),
    )


def _space(recipe: Recipe) -> SearchSpace:
    names = tuple(f"v{number}" for number in range(recipe.variants))

    def doubling(count: int) -> tuple[Scalar, ...]:
        return tuple(2**power for power in range(count))

    axes = (
        Axis(name="variant", values=names),
        Axis(name="precision", values=PRECISIONS[: recipe.precisions]),
        Axis(name="batch_size", values=doubling(recipe.batches)),
        Axis(name="concurrency", values=doubling(recipe.concurrencies)),
        Axis(name="build_level", values=tuple(range(1, recipe.builds + 1))),
        Axis(name="threads", values=doubling(recipe.threads)),
    )
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
            Objective(metric=METRICS[name], direction=METRICS[name].direction)
            for name in _OBJECTIVES
        ),
        constraints=(),
        plan=MeasuringPlan(),
    )


def _numbered(letter: str, count: int) -> tuple[str, ...]:
    return tuple(f"{letter}{number}" for number in range(count))


def _serving(space: SearchSpace, positions: NDArray[np.int64]) -> Serving:
    at = {axis.name: column for axis, column in zip(space.axes, positions.T, strict=True)}
    batch, concurrency, threads = (
        np.array(space.axis(name).values, dtype=float)[at[name]]
        for name in ("batch_size", "concurrency", "threads")
    )
    engine = (at["variant"], at["precision"], at["build_level"])
    return Serving(engine=engine, batch=batch, concurrency=concurrency, threads=threads)


def _measured(
    recipe: Recipe, engines: Engines, serving: Serving, random: np.random.Generator
) -> tuple[Metrics, NDArray[np.bool_]]:
    """Return the metrics of all rows, as if they all ran, and which of them fit."""
    law = speeds_of(engines, serving)
    rows = len(law.p50_s)
    own = np.exp(random.normal(0.0, recipe.deviation, (rows, 2)))
    p50_ms = law.p50_s * own[:, 0] * 1e3
    timed = np.stack(
        [
            p50_ms,
            p50_ms * (1 + (law.tail - 1) * own[:, 1] ** 5),  # tails differ more than medians
            serving.batch * serving.concurrency / p50_ms * 1e3,
        ],
        axis=1,
    )
    timed *= np.exp(random.normal(0.0, recipe.noise, timed.shape))
    exact = np.stack([engines.accuracy[serving.engine], law.memory_mb], axis=1)
    width = np.exp(_Z95 * max(recipe.noise, _LEAST_NOISE))
    metrics = Metrics(
        names=(*_TIMED, *_EXACT),
        values=np.hstack([timed, exact]),
        lows=np.hstack([timed / width, exact]),
        highs=np.hstack([timed * width, exact]),
    )
    return metrics, law.memory_mb < recipe.memory_gb * _MB_PER_GB


def _without(metrics: Metrics, completed: NDArray[np.bool_]) -> Metrics:
    """Forget what rows would have done that did not run."""

    def known(block: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(completed[:, None], block, np.nan)

    return Metrics(
        names=metrics.names,
        values=known(metrics.values),
        lows=known(metrics.lows),
        highs=known(metrics.highs),
    )


def _prices(
    engines: Engines,
    serving: Serving,
    completed: NDArray[np.bool_],
    random: np.random.Generator,
) -> Prices:
    at, rows = serving.engine, len(completed)
    is_built = ~engines.refused[at]
    measure_s = random.uniform(2.0, 8.0, rows)  # until the intervals are narrow
    return Prices(
        convert_s=engines.convert_s[at],
        # a builder that refuses does so before it is half through
        build_s=engines.build_s[at] * np.where(is_built, 1.0, 0.3),
        score_s=np.where(is_built, engines.score_s[at], 0.0),
        load_s=np.where(is_built, 0.2 + engines.weight_mb[at] / 1e3, 0.0),
        measure_s=np.where(completed, measure_s, 0.0),
        other_s=np.exp(random.normal(np.log(0.3), 0.2, rows)),
    )


def _reasons(recipe: Recipe) -> tuple[str, str]:
    return (
        f"it needs more than {recipe.memory_gb:g} GB; lower batch_size or concurrency",
        "the made-up device does not build this precision of this variant",
    )


def _words(
    completed: NDArray[np.bool_], refused: NDArray[np.bool_], words: tuple[str, str]
) -> tuple[str, ...]:
    """Say for each row why it did not run: it does not fit, or it cannot be built."""
    chosen = np.where(completed, 0, np.where(refused, 2, 1))
    return tuple(("", *words)[each] for each in chosen.tolist())


def _origin(recipe: Recipe) -> Origin:
    return Origin(
        study=f"generated-{recipe.seed}",
        identity="generated",
        space_file="",
        digests=(),
        environment=(("recipe", str(recipe)),),
        made_s=time.time(),
    )
